// Write, step by step: what may come next, under the sliders, and the needle that picks it.
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { able, html } from "./html.js";
import { complete } from "./api.js";
import { aligned, count, isPart, number, probability, spoken, visible } from "./format.js";
import { NEUTRAL, RANGES, REASONS, draw, largest } from "./sampling.js";
import { change, completion, drawnFrom, logits, model, named, onward, past, result, saved, seed, seedOf, settings, tell, text, tokens, undo } from "./state.js";
import { Picture } from "./picture.js";
import { Bar } from "./bars.js";
import { Prompt } from "./prompt.js";
import { Copy } from "./share.js";

const SLIDERS = [
  ["temperature", "temperature"],
  ["topK", "top-k (0: all)"],
  ["topP", "top-p"],
  ["minP", "min-p"],
  ["repetition", "repetition penalty"],
  ["presence", "presence penalty"],
  ["frequency", "frequency penalty"],
];
const ROWS = 16;

/** A number in [0, 1) for a seed and a place: the same needle for the same step. */
function needleAt(seedValue, place) {
  let x = (Math.imul(seedValue, 2654435761) + place * 40503 + 1) >>> 0;
  for (let i = 0; i < 3; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    x >>>= 0;
  }
  return x / 4294967296;
}

const END = "the end of the document, which is no text";
const PART = "a part of a character, which is no text alone: “Write on” draws whole ones";

/** Why a token cannot be taken: the text would not have it. @param {number} id @returns {string} "" where it can */
const noText = (id) => (id === model.value.end ? END : isPart(named(id)) ? PART : "");

export function Write() {
  const [running, setRunning] = useState(false);
  const [samples, setSamples] = useState({ of: null, texts: [] });
  const [many, setMany] = saved("many", "");
  const [said, setSaid] = useState("");
  const control = useRef(null);
  const found = result.value;
  const place = tokens.value.ids.length;
  const needle = needleAt(seed.value, place);
  const chosen = found && draw(found.sampler, needle);
  const kept = found ? noText(chosen) : "";

  const drawn = Math.min(drawnFrom.value, place);

  const take = (id) => change(text.value + named(id), {}, drawn);
  const stream = async (n) => {
    setRunning(true);
    setSaid("writing");
    if (n > 1) setMany(n);
    const own = (control.current = new AbortController());
    const texts = new Array(n).fill("");
    const before = text.value;
    let [frame, last, failed] = [0, before, ""];
    const show = () => {
      frame = 0;
      if (text.value !== last) own.abort(); // somebody types, or looks at another text
      if (own.signal.aborted) return;
      if (n > 1) setSamples({ of: before, texts: [...texts] });
      else change((last = before + texts[0]), own, drawn);
    };
    try {
      await complete(completion({ ...onward(200), n }), (chunk) => {
        for (const choice of chunk.choices) texts[choice.index] += choice.text;
        frame ||= requestAnimationFrame(show);
      }, own.signal);
      show();
    } catch (error) {
      if (error.name !== "AbortError") failed = error.message;
    }
    tell("write", failed);
    setRunning(false);
    setSaid(failed ? "" : `${n > 1 ? `${n} texts` : "text"} of ${Math.max(...texts.map((each) => each.length)).toLocaleString("en")} characters written`);
  };
  useEffect(() => () => control.current?.abort(), []);
  useEffect(() => {
    if (samples.of === null && many && found) stream(4); // an address with samples
    else if (samples.of !== null && samples.of !== text.value) setMany("");
  }, [text.value, Boolean(found)]);

  return html`
    <${Prompt} rows="6" />
    <div class="buttons">
      ${running
        ? html`<button class="main" onClick=${() => control.current.abort()}>Stop</button>`
        : html`<button class="main" onClick=${() => stream(1)}>Write on</button>`}
      <button ...${able(found && !running && !kept, () => take(chosen))}>One token</button>
      <button ...${able(!running && past.value.length, undo)}>Undo</button>
      <button ...${able(!running, () => (seed.value = (seed.value + 1) % Number.MAX_SAFE_INTEGER))}>Draw again</button>
      <button ...${able(!running, () => stream(4))}>Four at once</button>
      <label>seed <input type="number" min="0" value=${seed.value} onInput=${(e) => (seed.value = seedOf(e.target.value))} onChange=${(e) => (e.target.value = seed.value)} /></label>
      <${Copy} path="/v1/completions" body=${completion(onward(100))} />
    </div>
    <p class="hint" role="status">${[said, kept && !running && `The needle points at ${kept}.`].filter(Boolean).join(". ")}</p>
    ${many && samples.of === text.value && html`<div class="samples">${samples.texts.map((each, i) => html`<section><h3>sample ${i + 1}</h3><pre>${each}</pre></section>`)}</div>`}
    <div class="columns">
      <fieldset class="sliders"><legend>how the next token is drawn</legend>
        ${SLIDERS.map(([name, label]) => [name, label, ...RANGES[name]]).map(([name, label, min, max, step]) => html`
          <div><label for=${`set-${name}`}>${label}</label><output for=${`set-${name}`} aria-live="off">${number(settings.value[name])}</output>
            <input type="range" id=${`set-${name}`} min=${min} max=${max} step=${step} value=${settings.value[name]}
              onInput=${(e) => (settings.value = { ...settings.value, [name]: Number(e.target.value) })} /></div>`)}
        <button onClick=${() => (settings.value = { ...NEUTRAL })}>As the model says</button>
      </fieldset>
      ${found && html`<${Candidates} found=${found} chosen=${chosen} needle=${needle} take=${take} disabled=${running} />`}
    </div>`;
}

function Candidates({ found, chosen, needle, take, disabled }) {
  const ids = largest(found.penalized, ROWS);
  if (!ids.includes(chosen)) ids.push(chosen);
  const rest = found.sampler.length - ids.length;
  const others = { model: left(found.model, ids), sampler: left(found.sampler, ids) };
  const most = Math.max(...ids.map((id) => Math.max(found.sampler[id], found.model[id])), 1e-9);
  return html`<div class="candidates"><${Picture} name="next token">
    <${Ruler} found=${found} needle=${needle} chosen=${chosen} />
    <div class="scroll"><table><caption>What may come next. Filled: what is drawn from. Outline: what the model itself says. Click a token to take it.</caption>
      <thead><tr><th scope="col">token</th><th scope="col" class="step">logit</th><th scope="col" class="step">penalized</th><th scope="col" class="step">÷ T</th><th scope="col">model</th><th scope="col">drawn from</th><th scope="col" class="wide"><span class="hidden">bar</span></th></tr></thead>
      <tbody>${ids.map((id) => html`
        <tr class=${found.why[id] ? "dropped" : id === chosen ? "chosen" : ""}>
          <th scope="row"><button class="token" disabled=${disabled} title=${noText(id)} aria-label=${spoken(visible(named(id)))} ...${able(!noText(id), () => take(id))}>${visible(named(id))}</button></th>
          <td class="step">${aligned(logits.value[id], 3)}</td><td class="step">${aligned(found.penalized[id], 3)}</td>
          <td class="step">${REASONS[found.why[id]] || aligned(found.scaled[id], 3)}</td>
          <td>${probability(found.model[id])}</td><td>${probability(found.sampler[id])}${found.why[id] ? html` <small class="why">${REASONS[found.why[id]]}</small>` : ""}</td>
          <td class="wide"><${Bar} value=${found.sampler[id] / most} outline=${found.model[id] / most} /></td>
        </tr>`)}
      ${rest > 0 && html`<tr class="rest"><th scope="row">${count(rest, "other")}</th><td class="step"></td><td class="step"></td><td class="step"></td><td>${probability(others.model)}</td><td>${probability(others.sampler)}</td><td></td></tr>`}</tbody></table></div><//></div>`;
}

/** What is left of a sum of 1 for the tokens that have no row of their own. */
function left(shares, ids) {
  const rest = ids.reduce((sum, id) => sum - shares[id], 1);
  return rest > 1e-12 ? rest : 0;
}

/** All probabilities end to end, and the needle that falls on one of them. */
function Ruler({ found, needle, chosen }) {
  let at = 0;
  const parts = [];
  for (let id = 0; id < found.sampler.length; id++) {
    const p = found.sampler[id];
    if (p > 0.004 || id === chosen) parts.push({ id, at, p });
    at += p;
  }
  return html`<div class="ruler" role="img" aria-label=${`The needle is at ${needle.toFixed(3)} and points at ${spoken(visible(named(chosen)))}`}>
    <div class="parts" title="thin stripes: tokens too narrow to draw">${parts.map((part, i) => html`<span key=${part.id} class=${part.id === chosen ? "chosen" : i % 2 ? "odd" : "even"} style=${`left:${100 * part.at}%;width:${100 * part.p}%`}>${part.p > 0.03 ? visible(named(part.id)) : ""}</span>`)}</div>
    <svg viewBox="0 0 12 44" aria-hidden="true" style=${`left:${100 * needle}%`}><path class="needle" d="M6 0 v36 m-5 8 l5 -8 l5 8 z" /></svg></div>`;
}
