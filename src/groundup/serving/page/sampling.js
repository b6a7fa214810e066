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
 * What each step makes of every token.
 * @param {Float32Array} logits
 * @param {Settings} settings
 * @param {number[]} prompt ids that were given
 * @param {number[]} drawn ids since
 * @returns {{order: Uint32Array, penalized: Float64Array, scaled: Float64Array, model: Float64Array,
 *   sampler: Float64Array, why: (string|null)[]}} order: ids by falling logit after penalties; why: what dropped a token
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
  const order = Uint32Array.from({ length: V }, (_, i) => i).sort((a, b) => penalized[b] - penalized[a] || a - b);
  /** @type {(string|null)[]} */
  const why = new Array(V).fill(null);
  const cold = settings.temperature < COLDEST;
  const scaled = penalized.map((x) => (cold ? x : x / settings.temperature));
  if (cold) {
    for (let i = 1; i < V; i++) why[order[i]] = "temperature 0";
  } else {
    filter(scaled, order, settings, why);
  }
  const sampler = softmax(scaled.map((x, id) => (why[id] === null ? x : -Infinity)));
  return { order, penalized, scaled, model: softmax(logits), sampler, why };
}

/** Marks what top-k, top-p and min-p drop; equal logits stay or go together. */
function filter(scaled, order, settings, why) {
  const V = scaled.length;
  if (settings.topK > 0 && settings.topK < V) {
    const least = scaled[order[settings.topK - 1]];
    for (let i = 0; i < V; i++) if (scaled[i] < least) why[i] = "top-k";
  }
  if (settings.topP < 1) {
    const p = softmax(scaled.map((x, id) => (why[id] === null ? x : -Infinity)));
    let sum = 0;
    let last = 0;
    for (let i = 0; i < V; i++) {
      sum += p[order[i]];
      last = i;
      if (sum >= settings.topP) break;
    }
    const least = scaled[order[last]];
    for (let i = 0; i < V; i++) if (why[i] === null && scaled[i] < least) why[i] = "top-p";
  }
  if (settings.minP > 0) {
    const p = softmax(scaled.map((x, id) => (why[id] === null ? x : -Infinity)));
    const least = settings.minP * p[order[0]];
    for (let i = 0; i < V; i++) if (why[i] === null && p[i] < least) why[i] = "min-p";
  }
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
