// What the page knows, and what the address says of it.
import { batch, computed, effect, signal, untracked } from "./vendor/signals.js";
import { GONE, bytes, get, post } from "./api.js";
import { NEUTRAL, RANGES, pipeline } from "./sampling.js";

export const facts = signal(null);
/** Names of the runs in the folder of the first served run. */
export const runs = signal([]);
export const modelId = signal("");
export const tab = signal("");
export const text = signal("");
const NOTHING = { ids: [], texts: [], all: [] };
/** Ids of the text with their texts, of a long one the last; and all its ids. None where the model cannot cut it. */
export const tokens = signal(NOTHING);
/** Ids from this one on were drawn here, and not typed: the count penalties count them. */
export const drawnFrom = signal(Infinity);
/** What Undo goes back to, the newest last, with what made the text after it. @type {{value: {text: string, drawn: number, by: unknown}[]}} */
export const past = signal([]);
export const logits = signal(null);
export const vocabulary = signal([]);
export const settings = signal({ ...NEUTRAL });
export const seed = signal(1);
/** What single views keep in the address, as text by name. */
const view = signal({});
export const problems = signal({});
export const problem = computed(() => Object.values(problems.value).find(Boolean) ?? "");
/** Grows when the machine turns from light to dark or back: pictures are painted again. */
export const shade = signal(0);

export const model = computed(() => facts.value?.models.find((m) => m.id === modelId.value) ?? null);
export const result = computed(() => {
  if (!logits.value) return null;
  const ids = tokens.value.ids;
  const from = Math.min(drawnFrom.value, ids.length);
  return pipeline(logits.value, settings.value, ids.slice(0, from), ids.slice(from));
});

/**
 * Change the text. What one `by` changes in a row is one step of Undo.
 * @param {string} next @param {unknown} by @param {number} drawn the place of the first token that was drawn
 */
export function change(next, by, drawn) {
  if (next === text.peek()) return;
  batch(() => {
    const before = past.peek();
    if (before.at(-1)?.by !== by) past.value = [...before, { text: text.peek(), drawn: drawnFrom.peek(), by }];
    [drawnFrom.value, text.value] = [drawn, next];
  });
}

export function undo() {
  const last = past.peek().at(-1);
  if (last) batch(() => ([drawnFrom.value, text.value, past.value] = [last.drawn, last.text, past.peek().slice(0, -1)]));
}

/**
 * A state of a view that the address carries, as useState has it; values are texts.
 * @param {string} name @param {string} initial
 * @returns {[string, (value: string | number) => void]}
 */
export function saved(name, initial) {
  const set = (value) => {
    const { [name]: _, ...others } = view.peek();
    view.value = String(value) === initial ? others : { ...others, [name]: String(value) };
  };
  return [view.value[name] ?? initial, set];
}

/** Tell a problem of some kind; "" when it is over. The newest is shown. @param {string} kind @param {string} message */
export function tell(kind, message) {
  const { [kind]: _, ...others } = problems.peek();
  problems.value = { [kind]: message, ...others };
}

/** How many questions the server has not answered yet. */
export const waiting = signal(0);

const newest = new Map();
/** Milliseconds until a server that did not answer is asked again. */
const AGAIN = 3000;
const ASKS_AGAIN = `${GONE} The page asks again every few seconds; what it shows was computed before.`;

/**
 * Ask something; what goes wrong is told in one line, and the newest call of a kind wins.
 * @param {string} kind @param {(signal: AbortSignal) => Promise<unknown>} work
 * @param {{once?: boolean}} [how] once: do not ask again where the server does not answer: somebody pressed a button
 */
export async function attempt(kind, work, { once = false } = {}) {
  newest.get(kind)?.abort();
  const { signal } = newest.set(kind, new AbortController()).get(kind);
  while (!signal.aborted) {
    waiting.value = waiting.peek() + 1;
    try {
      const value = await work(signal);
      if (signal.aborted) return null;
      answered(kind);
      return value;
    } catch (error) {
      if (error.name === "AbortError" || signal.aborted) return null;
      tell(kind, error.gone && !once ? ASKS_AGAIN : error.message);
      if (!error.gone || once) return null;
    } finally {
      waiting.value = waiting.peek() - 1;
    }
    do await new Promise((wake) => setTimeout(wake, AGAIN));
    while (document.hidden && !signal.aborted);
  }
  return null;
}

/** What was wrong with a question is over, and so is that nobody answered. @param {string} kind */
function answered(kind) {
  const over = ([each, says]) => each === kind || says.startsWith(GONE);
  const all = Object.entries(problems.peek());
  if (all.some(over)) problems.value = Object.fromEntries(all.filter((each) => !over(each)));
}

/**
 * A model by its id as run and step: "plays@64" is step 64 of "plays".
 * @param {string} id @returns {{run: string, step: string}} step "" is the model itself
 */
export function parts(id) {
  const known = facts.value?.models.some((m) => m.id === id && m.id.includes("@") && !/@\d+$/.test(id));
  const found = known ? null : /^(.*)@(\d+)$/.exec(id);
  return found ? { run: found[1], step: found[2] } : { run: id, step: "" };
}

/**
 * Look into another model: a served one, a run beside it, or a kept step. A first text gives way to its own.
 * @param {string} id @returns {Promise<boolean>} whether it could be opened
 */
export async function choose(id) {
  if (!facts.value.models.some((m) => m.id === id)) {
    const found = await attempt("model", () => get("/api/facts", { model: id }), { once: true });
    if (!found) return false;
    facts.value = { ...facts.value, models: [...facts.value.models, found.models.at(-1)] };
  }
  batch(() => {
    const untouched = text.value === model.value?.first_text;
    modelId.value = id;
    if (untouched) text.value = model.value.first_text;
  });
  return true;
}

export async function loadRuns() {
  runs.value = (await get("/api/runs")).runs.map((run) => run.name);
}

export async function start() {
  facts.value = await get("/api/facts");
  await follow();
  attempt("names", loadRuns); // not waited for: many long runs take a while to read
  addEventListener("hashchange", () => history.state ?? follow()); // with a state it was this page that wrote it
  addEventListener("popstate", ({ state }) => state && back(state));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (shade.value += 1));
  effect(() => void loadVocabulary(modelId.value));
  effect(() => void refresh(modelId.value, text.value));
  effect(remember);
  let before = `${tab.value} ${modelId.value}`; // what the address asked for in vain is told
  effect(() => {
    const now = `${tab.value} ${modelId.value}`;
    if (now !== before) untracked(() => (problems.value = { tokens: problems.peek().tokens ?? "" })); // no tab asks that again
    before = now;
  });
}

/** A seed as it was written: a whole number that JavaScript knows exactly. @param {string | number} written */
export const seedOf = (written) => Math.min(Math.max(0, Math.trunc(Number(written))) || 0, Number.MAX_SAFE_INTEGER);

/** Take everything from the address. */
async function follow() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const take = (name, initial) => {
    const value = asked.get(name) ?? initial;
    asked.delete(name);
    return value;
  };
  asked.delete("key");
  const [wanted, given] = [take("model", ""), take("text", null)];
  batch(() => {
    tab.value = take("tab", "write");
    text.value = given ?? model.value?.first_text ?? "";
    past.value = [];
    seed.value = seedOf(take("seed", 1));
    drawnFrom.value = Number(take("drawn", Infinity));
    const found = { ...NEUTRAL };
    for (const name of Object.keys(NEUTRAL)) {
      const value = Number(take(name, NaN));
      const [least, most, step] = RANGES[name];
      if (Number.isFinite(value)) found[name] = Math.min(most, Math.max(least, step === 1 ? Math.round(value) : value));
    }
    settings.value = found;
    view.value = Object.fromEntries(asked);
  });
  if (wanted) await choose(wanted);
  if (!model.value) modelId.value = facts.value.models[0].id;
  text.value = given ?? model.value.first_text;
  history.replaceState(place(), "");
}

const place = () => ({ tab: tab.value, model: modelId.value });

let goes = false; // back or forward: whatever changes meanwhile is no new place

/** Back or forward: to another view or model. What was written since stays, and so does a model where that one is gone. */
async function back({ tab: view, model: id }) {
  goes = true;
  if (id !== modelId.value) await choose(id);
  tab.value = view;
  history.replaceState(place(), "");
  goes = false;
}

async function loadVocabulary(id) {
  const found = await attempt("vocabulary", () => get("/api/vocabulary", { model: id }));
  if (found) vocabulary.value = found.tokens;
}

/** How a model cuts a text: `tokens` and their `token_strs`. */
export const cut = (id, written, signal) => post("/tokenize", { model: id, prompt: written, add_special_tokens: true, return_token_strs: true }, signal);

let cutBy = ""; // the model that `tokens` and `logits` are of

async function refresh(id, written) {
  const most = Math.min(facts.peek().max_tokens, model.value.context);
  const show = (cutUp, raw) => batch(() => ([tokens.value, logits.value, cutBy] = [cutUp, raw, id]));
  await attempt("tokens", async (signal) => {
    try {
      const found = await cut(id, written, signal);
      const ids = found.tokens.slice(-most);
      const raw = await bytes("/api/logits", { model: id, tokens: ids }, signal);
      if (!signal.aborted) show({ ids, texts: found.token_strs.slice(-most), all: found.tokens }, new Float32Array(raw));
    } catch (error) {
      if (!signal.aborted && !(error.gone && cutBy === id)) show(NOTHING, null); // what is known is of another text or model
      throw error;
    }
  });
}

let [written, due] = ["", 0];
/** Milliseconds; browsers refuse more than 100 changes of the address in 30 seconds. */
const ADDRESS_EVERY = 300;

function remember() {
  const state = new URLSearchParams({ model: modelId.value, tab: tab.value, ...(text.value === model.value.first_text ? {} : { text: text.value }), seed: String(seed.value) });
  for (const [name, value] of Object.entries(settings.value)) if (value !== NEUTRAL[name]) state.set(name, String(value));
  if (Number.isFinite(drawnFrom.value)) state.set("drawn", String(drawnFrom.value));
  for (const [name, value] of Object.entries(view.value)) state.set(name, value);
  written = `#${state}`;
  due ||= setTimeout(() => {
    due = 0;
    const [before, here] = [history.state, place()];
    const moved = before && !goes && (before.tab !== here.tab || before.model !== here.model);
    history[moved ? "pushState" : "replaceState"](here, "", written);
  }, ADDRESS_EVERY);
}

export const named = (id) => vocabulary.value[id] ?? `#${id}`;
/** Of a model, without biases and norms: how dear it is to load another step. */
export const size = ({ n_layer, n_embd, vocab_size }) => 12 * n_layer * n_embd ** 2 + vocab_size * n_embd;

/**
 * How to go on with the text by up to n tokens. Where the context has no room left, its last half is read alone; a model
 * that sees one token needs none.
 * @param {number} n
 */
export const onward = (n) => onwardFrom(n, tokens.value.all, model.value.context);

/** The same by another model, which may cut the text otherwise. @param {string} id @param {number} n @param {AbortSignal} signal */
export async function onwardBy(id, n, signal) {
  const found = await cut(id, text.value, signal);
  return onwardFrom(n, found.tokens, found.max_model_len);
}

function onwardFrom(n, all, context) {
  if (context === 1) return { prompt: text.value, max_tokens: n };
  const room = context + 1 - all.length;
  if (room >= Math.min(n, context / 4)) return { prompt: text.value, max_tokens: Math.min(n, room) };
  const ids = all.slice(-Math.floor(context / 2));
  return { prompt: ids, max_tokens: Math.min(n, context + 1 - ids.length) };
}

/** The body of a completion as the page stands. @param {object} extra */
export function completion(extra) {
  const s = settings.value;
  return {
    model: modelId.value,
    prompt: text.value,
    temperature: s.temperature,
    top_k: s.topK,
    top_p: s.topP,
    min_p: s.minP,
    repetition_penalty: s.repetition,
    presence_penalty: s.presence,
    frequency_penalty: s.frequency,
    seed: seed.value,
    ...extra,
  };
}
