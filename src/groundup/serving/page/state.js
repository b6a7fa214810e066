// What the page knows, and what the address says of it.
import { computed, effect, signal } from "./vendor/signals.js";
import { bytes, get, post } from "./api.js";
import { NEUTRAL, pipeline } from "./sampling.js";

const asked = new URLSearchParams(location.hash.slice(1));

export const facts = signal(null);
export const modelId = signal(asked.get("model") ?? "");
export const tab = signal(asked.get("tab") ?? "write");
export const text = signal(asked.get("text") ?? "ROMEO:\nO, ");
/** Ids of the text with their texts; null while they are asked for. */
export const tokens = signal({ ids: [], texts: [] });
/** How many of the ids were drawn here, and not typed. */
export const drawnFrom = signal(0);
export const logits = signal(null);
export const vocabulary = signal([]);
export const settings = signal({ ...NEUTRAL, ...fromAddress() });
export const seed = signal(Number(asked.get("seed") ?? 1));
export const problem = signal("");

export const model = computed(() => facts.value?.models.find((m) => m.id === modelId.value) ?? null);
export const result = computed(() => {
  if (!logits.value) return null;
  const ids = tokens.value.ids;
  const from = Math.min(drawnFrom.value, ids.length);
  return pipeline(logits.value, settings.value, ids.slice(0, from), ids.slice(from));
});

function fromAddress() {
  const found = {};
  for (const name of Object.keys(NEUTRAL)) {
    const value = Number(asked.get(name) ?? NaN);
    if (Number.isFinite(value)) found[name] = value;
  }
  return found;
}

/** Run something; what goes wrong is told in one line, and the newest call of a kind wins. */
const newest = new Map();
export async function attempt(kind, work) {
  newest.get(kind)?.abort();
  const control = new AbortController();
  newest.set(kind, control);
  try {
    const value = await work(control.signal);
    if (control.signal.aborted) return null;
    problem.value = "";
    return value;
  } catch (error) {
    if (error.name !== "AbortError") problem.value = error.message;
    return null;
  }
}

export async function start() {
  facts.value = await get("/api/facts");
  if (!model.value) modelId.value = facts.value.models[0].id;
  effect(() => void loadVocabulary(modelId.value));
  effect(() => void refresh(modelId.value, text.value));
  effect(remember);
}

async function loadVocabulary(id) {
  const found = await attempt("vocabulary", () => get(`/api/vocabulary?model=${encodeURIComponent(id)}`));
  if (found) vocabulary.value = found.tokens;
}

/** How a model cuts a text: `tokens` and their `token_strs`. */
export const cut = (id, written, signal) => post("/tokenize", { model: id, prompt: written, add_special_tokens: true, return_token_strs: true }, signal);

async function refresh(id, written) {
  const found = await attempt("tokens", async (signal) => {
    const found = await cut(id, written, signal);
    const most = Math.min(facts.value.max_tokens, model.value.context);
    const ids = found.tokens.slice(-most);
    const raw = await bytes("/api/logits", { model: id, tokens: ids }, signal);
    return { ids, texts: found.token_strs.slice(-most), raw: new Float32Array(raw) };
  });
  if (found) {
    tokens.value = { ids: found.ids, texts: found.texts };
    logits.value = found.raw;
  }
}

function remember() {
  const state = new URLSearchParams({ model: modelId.value, tab: tab.value, text: text.value, seed: String(seed.value) });
  for (const [name, value] of Object.entries(settings.value)) if (value !== NEUTRAL[name]) state.set(name, String(value));
  history.replaceState(null, "", `#${state}`);
}

export const named = (id) => vocabulary.value[id] ?? `#${id}`;
