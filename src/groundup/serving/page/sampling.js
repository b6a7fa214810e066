// From logits to the next token, over the whole vocabulary, in exactly the order of generation/sampling.py:
// repetition penalty, presence and frequency penalty, temperature, top-k, top-p, min-p. Tests compare the two.

/**
 * @typedef {{temperature: number, topK: number, topP: number, minP: number,
 *   repetition: number, presence: number, frequency: number}} Settings
 */

/** @type {Settings} */
export const NEUTRAL = { temperature: 1, topK: 0, topP: 1, minP: 0, repetition: 1, presence: 0, frequency: 0 };
/** What can be chosen: the least, the most, and the step between. */
export const RANGES = { temperature: [0, 2, 0.05], topK: [0, 100, 1], topP: [0.01, 1, 0.01], minP: [0, 0.5, 0.01], repetition: [0.5, 2, 0.05], presence: [-2, 2, 0.1], frequency: [-2, 2, 0.1] };
const COLDEST = 1e-30;

/**
 * @param {ArrayLike<number>} values
 * @returns {Float64Array}
 */
export function softmax(values) {
  const all = new Uint8Array(values.length);
  return shares(exponentials(values, all), all);
}

/**
 * Ids of the n largest values, the largest first; of equal values the one with the lower id. For a small n.
 * @param {ArrayLike<number>} values @param {number} n @returns {number[]}
 */
export function largest(values, n) {
  const ids = [];
  let least = -Infinity;
  for (let id = 0; id < values.length; id++) {
    if (ids.length === n && !(values[id] > least)) continue;
    let at = ids.length === n ? n - 1 : ids.length;
    for (; at > 0 && values[id] > values[ids[at - 1]]; at--) ids[at] = ids[at - 1];
    ids[at] = id;
    least = values[ids[ids.length - 1]];
  }
  return ids;
}

/** What dropped a token, by the numbers in `why`; 0 is kept. */
export const REASONS = ["", "temperature 0", "top-k", "top-p", "min-p"];
const [KEPT, COLD, TOP_K, TOP_P, MIN_P] = REASONS.keys();
/** For the border of top-k and top-p: 12 of 50,257 values per bin. */
const BINS = 4096;
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
  const penalized = new Float64Array(logits);
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
  const scaled = new Float64Array(penalized);
  if (settings.temperature < COLDEST) {
    why.fill(COLD);
    why[largest(penalized, 1)[0]] = KEPT;
  } else {
    for (let i = 0; i < V; i++) scaled[i] /= settings.temperature;
  }
  if (known.logits !== logits) known = { logits, model: softmax(logits) };
  return { penalized, scaled, model: known.model, sampler: shares(filter(scaled, settings, why), why), why };
}

/** Of values less the largest one, what softmax shares out; 0 for what is dropped. @param {ArrayLike<number>} values */
function exponentials(values, why) {
  const out = new Float64Array(values.length);
  let most = -Infinity;
  for (let i = 0; i < out.length; i++) if (values[i] > most) most = values[i];
  for (let i = 0; i < out.length; i++) if (!why[i]) out[i] = Math.exp(values[i] - most);
  return out;
}

/** Weights of what is kept, so that they sum to 1; 0 for all else. @param {Float64Array} weights @param {Uint8Array} why */
function shares(weights, why) {
  const out = new Float64Array(weights.length);
  let total = 0;
  for (let i = 0; i < out.length; i++) if (!why[i]) total += weights[i];
  for (let i = 0; i < out.length; i++) if (!why[i]) out[i] = weights[i] / total;
  return out;
}

/** Drops what is below a threshold. */
function drop(values, least, why, reason) {
  for (let i = 0; i < values.length; i++) if (!why[i] && values[i] < least) why[i] = reason;
}

/**
 * Marks what top-k, top-p and min-p drop, and returns the weights of the others; equal logits stay or go together. The
 * likeliest one is never dropped: it has the weight 1.
 */
function filter(scaled, { temperature, topK, topP, minP }, why) {
  const filters = temperature >= COLDEST;
  if (filters && topK > 0 && topK < scaled.length) drop(scaled, border(scaled, new Float64Array(scaled.length).fill(1), topK), why, TOP_K);
  const weights = exponentials(scaled, why);
  if (filters && topP < 1) drop(scaled, border(scaled, shares(weights, why), topP), why, TOP_P);
  if (filters && minP > 0) drop(weights, minP, why, MIN_P);
  return weights;
}

/**
 * The smallest of the largest values whose masses come to a goal; should rounding keep their sum below it, the smallest
 * that has a mass. Values are counted in bins of equal width, and only those of one bin are sorted.
 * @param {Float64Array} values @param {Float64Array} masses @param {number} goal @returns {number}
 */
function border(values, masses, goal) {
  let [least, most] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i++) {
    if (masses[i] > 0 && values[i] < least) least = values[i];
    if (values[i] > most) most = values[i];
  }
  const bins = new Float64Array(BINS);
  const per = most > least ? (BINS - 1) / (most - least) : 0;
  const bin = (i) => ((most - values[i]) * per) | 0;
  for (let i = 0; i < values.length; i++) if (masses[i] > 0) bins[bin(i)] += masses[i];
  let [at, sum] = [0, 0];
  while (at < BINS - 1 && sum + bins[at] < goal) sum += bins[at++];
  const inside = [];
  for (let i = 0; i < values.length; i++) if (masses[i] > 0 && bin(i) === at) inside.push(i);
  inside.sort((a, b) => values[b] - values[a]);
  const last = inside.find((i) => (sum += masses[i]) >= goal) ?? inside[inside.length - 1];
  return values[last];
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
