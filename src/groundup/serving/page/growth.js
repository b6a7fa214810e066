// Watch a model grow: one prompt, at every step of training that weights were kept of.
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { bytes, post } from "./api.js";
import { mean, number, probability, spoken, sum, visible } from "./format.js";
import { largest, softmax } from "./sampling.js";
import { attempt, completion, model, modelId, named, onward, parts, saved, seed, settings, size, text, tokens } from "./state.js";
import { Bar } from "./bars.js";
import { useSteps } from "./picker.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";

const ROWS = 12;
const LENGTH = 120;
const EVERY = 900;
/** Parameters up to which every step is looked at without being asked for. */
const SMALL = 5e6;

/**
 * One step: probabilities of what comes next, the loss of the text so far, what it writes, which comes last.
 * @typedef {{next: Float64Array, loss: number, written?: string}} Look
 */

/** @param {string} id @param {number[]} ids @param {AbortSignal} signal @param {(found: Look) => void} tell what is known so far */
async function look(id, ids, signal, tell) {
  const raw = await bytes("/api/logits", { model: id, tokens: ids }, signal);
  const said = ids.length > 1 ? await post("/api/surprise", { model: id, tokens: ids }, signal) : { loss: [] };
  const found = { next: softmax(new Float32Array(raw)), loss: mean(said.loss) };
  tell(found);
  const answer = await post("/v1/completions", completion({ model: id, ...onward(LENGTH) }), signal);
  tell({ ...found, written: answer.choices[0].text });
}

/** What was seen so far, by step; asked again when the prompt or the drawing changes. */
function useLooks(run, steps, chosen) {
  const ids = tokens.value.ids;
  const key = JSON.stringify([run, ids, seed.value, settings.value]);
  const [seen, setSeen] = useState({ key: "", looks: {} });
  const wanted = size(model.value) <= SMALL ? [chosen, ...steps.filter((step) => step !== chosen)] : [chosen];
  const known = seen.key === key ? seen.looks : {};
  useEffect(() => {
    if (!ids.length || !steps.length) return;
    attempt("growth", async (signal) => {
      for (const step of wanted) {
        if (known[step]?.written !== undefined || signal.aborted) continue;
        await look(`${run}@${step}`, ids, signal, (found) => {
          if (!signal.aborted) setSeen((all) => ({ key, looks: { ...(all.key === key ? all.looks : {}), [step]: found } }));
        });
      }
    });
  }, [key, steps, size(model.value) <= SMALL ? 0 : chosen]);
  return known;
}

export function Growth() {
  const { run } = parts(modelId.value);
  const known = useSteps(run);
  const steps = known ?? NONE;
  const [asked, pick] = saved("step", "");
  const [playing, setPlaying] = useState(false);
  const at = Math.max(0, steps.includes(Number(asked)) && asked !== "" ? steps.indexOf(Number(asked)) : steps.length - 1);
  const looks = useLooks(run, steps, steps[at]);
  useEffect(() => {
    if (!playing) return;
    if (at === steps.length - 1) return setPlaying(false);
    const timer = setTimeout(() => pick(steps[at + 1]), EVERY);
    return () => clearTimeout(timer);
  }, [playing, at, looks[steps[at]]]);
  if (!known) return html`<p>Looking for kept steps ...</p>`;
  if (!steps.length) return html`<p>No weights of earlier steps were kept of this model. A run keeps them with <code>--checkpoint.growth</code>: those of steps 0, 1, 2, 4, 8 and so on.</p>`;
  const play = () => {
    if (!playing && at === steps.length - 1) pick(steps[0]);
    setPlaying(!playing);
  };
  const shown = looks[steps[at]];
  return html`
    <${Prompt} rows="2" />
    <div class="timeline">
      <button class="main" onClick=${play}>${playing ? "Pause" : "Play"}</button>
      <input type="range" min="0" max=${steps.length - 1} value=${at} aria-label="step of training" aria-valuetext=${`step ${steps[at]}`}
        onInput=${(e) => (setPlaying(false), pick(steps[e.target.value]))} />
      <output class="numbers" aria-live="off">step <b>${steps[at].toLocaleString("en")}</b></output>
    </div>
    <div class="columns even">
      <section><h2>it writes</h2><pre class="sample growing"><span class="given">${text.value}</span>${shown?.written ?? " ..."}</pre>
        <p class="hint">Same prompt, same seed${settings.value.temperature === 1 ? "" : `, temperature ${number(settings.value.temperature)}`}: only the weights differ.${shown && Number.isFinite(shown.loss) ? ` The prompt itself costs it ${number(shown.loss)} nats per token.` : ""}</p></section>
      <${Next} looks=${looks} steps=${steps} at=${at} />
    </div>
    <${Over} looks=${looks} steps=${steps} at=${at} pick=${pick} />`;
}

/** Tokens that were likely at some step, the likeliest of the last step first: their places stay while bars move. */
function rowsOf(looks, steps) {
  const seen = steps.map((step) => looks[step]?.next).filter(Boolean);
  if (!seen.length) return [];
  const most = new Map();
  for (const next of seen) for (const id of largest(next, ROWS)) most.set(id, Math.max(most.get(id) ?? 0, next[id]));
  const ids = [...most.keys()].sort((a, b) => most.get(b) - most.get(a)).slice(0, ROWS);
  const last = seen.at(-1);
  return ids.sort((a, b) => last[b] - last[a]);
}

const NONE = [];

/** The largest probability in the picture: bars and tints of all steps have one scale. */
const most = (looks, steps, ids) => Math.max(1e-9, ...steps.flatMap((step) => (looks[step] ? ids.map((id) => looks[step].next[id]) : [])));

function Next({ looks, steps, at }) {
  const next = looks[steps[at]]?.next;
  const ids = rowsOf(looks, steps);
  const scale = most(looks, steps, ids);
  const left = next ? Math.max(0, 1 - sum(ids.map((id) => next[id]))) : 0;
  if (!ids.length) return html`<section><h2>what may come next</h2><p class="hint">...</p></section>`;
  return html`<section><h2>what may come next</h2><${Picture} name=${`${parts(modelId.value).run} at step ${steps[at]}`} ask=${{ path: "/v1/completions", body: completion({ model: `${parts(modelId.value).run}@${steps[at]}`, ...onward(LENGTH) }) }}><div class="scroll"><table class="wider"><caption class="hidden">probability of the next token at step ${steps[at]}</caption><tbody>
    ${ids.map((id) => html`<tr key=${id}><th scope="row" aria-label=${spoken(visible(named(id)))}><span class="token">${visible(named(id))}</span></th><td class="figure">${next ? probability(next[id]) : ""}</td>
      <td class="wide"><${Bar} value=${next ? next[id] / scale : 0} /></td></tr>`)}
    ${next && html`<tr class="rest"><th scope="row">all others</th><td class="figure">${probability(left)}</td><td></td></tr>`}</tbody></table></div><//></section>`;
}

function Over({ looks, steps, at, pick }) {
  const ids = rowsOf(looks, steps);
  if (ids.length === 0) return null;
  const scale = most(looks, steps, ids);
  const cell = (step, id) => {
    const p = looks[step]?.next[id];
    return html`<td class=${step === steps[at] ? "now" : ""} style=${`--share:${(p ?? 0) / scale}`}>${p === undefined ? "" : p < 0.01 ? "·" : (100 * p).toFixed(0)}</td>`;
  };
  return html`<h2>over all kept steps</h2><p class="hint">Probability of each token in percent; a dot is less than one. Choose a step above its column.</p>
    <${Picture} name=${`${parts(modelId.value).run} over its steps`}><div class="scroll" role="region" aria-label="over all kept steps" tabindex="0"><table class="over" aria-label="probability of tokens at each kept step, in percent">
    <thead><tr><th scope="col">step</th>${steps.map((step) => html`<th scope="col"><button class="token" aria-pressed=${step === steps[at]} onClick=${() => pick(step)}>${step}</button></th>`)}</tr></thead>
    <tbody>${ids.map((id) => html`<tr><th scope="row" aria-label=${spoken(visible(named(id)))}><span class="token">${visible(named(id))}</span></th>${steps.map((step) => cell(step, id))}</tr>`)}
      <tr class="rest"><th scope="row">loss of the prompt</th>${steps.map((step) => html`<td>${looks[step] && Number.isFinite(looks[step].loss) ? looks[step].loss.toFixed(2) : ""}</td>`)}</tr></tbody></table></div><//>`;
}
