// From logits to the next token, over the whole vocabulary, in exactly the order of generation/sampling.py:
// repetition penalty, presence and frequency penalty, temperature, top-k, top-p, min-p. Tests compare the two.

/**
 * @typedef {{temperature: number, topK: number, topP: number, minP: number,
 *   repetition: number, presence: number, frequency: number}} Settings
 */

/** @type {Settings} */
export const NEUTRAL = { temperature: 1, topK: 0, topP: 1, minP: 0, repetition: 1, presence: 0, frequency: 0 };
const COLDEST = 1e-30;

/**
 * @param {ArrayLike<number>} values
 * @returns {Float64Array}
 */
export function softmax(values) {
  let most = -Infinity;
  for (let i = 0; i < values.length; i++) most = Math.max(most, values[i]);
  const out = new Float64Array(values.length);
  let total = 0;
  for (let i = 0; i < out.length; i++) total += out[i] = Math.exp(values[i] - most);
  for (let i = 0; i < out.length; i++) out[i] /= total;
  return out;
}

/**
 * Ids of the n largest values, the largest first; of equal values the one with the lower id.
 * @param {ArrayLike<number>} values @param {number} n @returns {number[]}
 */
export function largest(values, n) {
  const ids = [];
  for (let id = 0; id < values.length; id++) {
    if (ids.length === n && !(values[id] > values[ids[n - 1]])) continue;
    let at = ids.length === n ? n - 1 : ids.length;
    for (; at > 0 && values[id] > values[ids[at - 1]]; at--) ids[at] = ids[at - 1];
    ids[at] = id;
  }
  return ids;
}

/** What dropped a token, by the numbers in `why`; 0 is kept. */
export const REASONS = ["", "temperature 0", "top-k", "top-p", "min-p"];
const [KEPT, COLD, TOP_K, TOP_P, MIN_P] = REASONS.keys();
/** Values that are sorted for top-p before all are. */
const FIRST_GUESS = 64;
const FEW = 1000;
/** What the model itself says of the last logits: sliders do not change it. */
let known = { logits: null, model: null };

/**
 * What each step makes of every token. Nothing is sorted that need not be: this runs while a slider moves.
 * @param {Float32Array} logits
 * @param {Settings} settings
 * @param {number[]} prompt ids that were given
 * @param {number[]} drawn ids since
 * @returns {{penalized: Float64Array, scaled: Float64Array, model: Float64Array, sampler: Float64Array, why: Uint8Array}}
 */
export function pipeline(logits, settings, prompt, drawn) {
  const V = logits.length;
  const penalized = Float64Array.from(logits);
  if (settings.repetition !== 1) {
    for (const id of new Set([...prompt, ...drawn])) {
      penalized[id] = penalized[id] > 0 ? penalized[id] / settings.repetition : penalized[id] * settings.repetition;
    }
  }
  if (settings.presence || settings.frequency) {
    const counts = new Map();
    for (const id of drawn) counts.set(id, (counts.get(id) ?? 0) + 1);
    for (const [id, n] of counts) penalized[id] -= settings.presence + settings.frequency * n;
  }
  const why = new Uint8Array(V);
  const scaled = Float64Array.from(penalized);
  if (settings.temperature < COLDEST) {
    why.fill(COLD);
    why[largest(penalized, 1)[0]] = KEPT;
  } else {
    for (let i = 0; i < V; i++) scaled[i] /= settings.temperature;
    filter(scaled, settings, why);
  }
  if (known.logits !== logits) known = { logits, model: softmax(logits) };
  return { penalized, scaled, model: known.model, sampler: shares(scaled, why), why };
}

/** Softmax over what is kept; 0 for all else. @param {Float64Array} values @param {Uint8Array} why */
function shares(values, why) {
  let most = -Infinity;
  for (let i = 0; i < values.length; i++) if (!why[i] && values[i] > most) most = values[i];
  const out = new Float64Array(values.length);
  let total = 0;
  for (let i = 0; i < out.length; i++) if (!why[i]) total += out[i] = Math.exp(values[i] - most);
  for (let i = 0; i < out.length; i++) out[i] /= total;
  return out;
}

/** Drops what is below a threshold. */
function drop(values, least, why, reason) {
  for (let i = 0; i < values.length; i++) if (!why[i] && values[i] < least) why[i] = reason;
}

/** Marks what top-k, top-p and min-p drop; equal logits stay or go together. */
function filter(scaled, settings, why) {
  const { topK, topP, minP } = settings;
  if (topK > 0 && topK < scaled.length) {
    drop(scaled, topK <= FEW ? scaled[largest(scaled, topK)[topK - 1]] : Float64Array.from(scaled).sort()[scaled.length - topK], why, TOP_K);
  }
  if (topP < 1) drop(scaled, nucleus(scaled, shares(scaled, why), topP), why, TOP_P);
  if (minP > 0) {
    const p = shares(scaled, why);
    drop(p, minP * p.reduce((a, b) => (a > b ? a : b)), why, MIN_P);
  }
}

/** The smallest of the largest values whose shares come to topP. */
function nucleus(values, p, topP) {
  let sum = 0;
  const ids = largest(p, FIRST_GUESS);
  for (const id of ids) if ((sum += p[id]) >= topP) return values[id];
  sum = 0;
  const sorted = Float64Array.from(p).sort();
  let at = sorted.length - 1;
  for (; at > 0 && sorted[at] > 0; at--) if ((sum += sorted[at]) >= topP) break;
  const share = sorted[Math.max(0, at)];
  let least = Infinity;
  for (let i = 0; i < p.length; i++) if (p[i] >= share && p[i] > 0 && values[i] < least) least = values[i];
  return least;
}

/**
 * The token under a needle: where a number between 0 and 1 falls in the running sum, tokens in the order of their ids.
 * @param {Float64Array} probabilities
 * @param {number} needle
 * @returns {number}
 */
export function draw(probabilities, needle) {
  let sum = 0;
  let last = 0;
  for (let id = 0; id < probabilities.length; id++) {
    if (!probabilities[id]) continue;
    sum += probabilities[id];
    last = id;
    if (sum > needle) return id;
  }
  return last;
}
