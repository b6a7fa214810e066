// How models learn: the curves of every run in the folder as they grow, what they wrote on the way, and a run of your own.
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { get } from "./api.js";
import { number, placeOf } from "./format.js";
import { attempt, choose, loadRuns, modelId, parts, saved, tab } from "./state.js";
import { useLook } from "./answer.js";
import { Behind } from "./behind.js";
import { Chart } from "./chart.js";
import { Starter } from "./starter.js";

const EVERY = 2000;
const COLORS = 6;
const DASHES = [undefined, [6, 3], [2, 3]];
/** Runs that are drawn before anybody chooses: the one that is looked into, those that go on, and the best others. */
const FIRST = 4;
const BIGRAM = "a bigram";

/** @typedef {{name: string, state: string, started: string | null, step: number | null, max_steps: number | null, val_loss: number | null}} Run */

/** The runs of the folder, each with its curves; those that go on are asked again. */
function useRuns(own) {
  const [list, setList] = useState(null);
  const [curves, setCurves] = useState({});
  const look = () => attempt("runs", () => get("/api/runs")).then((found) => found && setList(found.runs));
  useLook(look, EVERY);
  const ask = (name) => attempt(`run ${name}`, () => get("/api/run", { model: name })).then((x) => x && setCurves((all) => ({ ...all, [name]: x })));
  useEffect(() => void ask(own), [own]);
  return { list, curves, ask, look };
}

/** A number for each run, for its color: those that begin later leave it to it. @param {Run[]} list @returns {Map<string, number>} */
function numbered(list) {
  const begun = (run) => `${run.started ?? "~"} ${run.name}`; // "~" comes after all dates
  return new Map([...list].sort((a, b) => (begun(a) < begun(b) ? -1 : 1)).map((run, i) => [run.name, i]));
}

/** @param {Run[]} list @param {string} own */
function firstOf(list, own) {
  const worth = (run) => (run.name === own ? 0 : run.state === "running" ? 1 : 2);
  return [...list].sort((a, b) => worth(a) - worth(b) || (a.val_loss ?? Infinity) - (b.val_loss ?? Infinity)).slice(0, FIRST).map((run) => run.name);
}

export function Training() {
  const own = parts(modelId.value).run;
  const { list, curves, ask, look } = useRuns(own);
  const [asked, setShown] = saved("runs", "");
  const [log, setLog] = saved("log", "");
  const [sampled, setSampled] = saved("sampled", "");
  const rows = list?.length ? list : curves[own]?.train.length || curves[own]?.val.length ? [{ ...curves[own], name: own }] : [];
  const names = rows.map((run) => run.name);
  const place = numbered(rows);
  const shown = asked ? names.filter((name) => asked.split(",").includes(name)) : firstOf(rows, own);
  const stamp = rows.filter((run) => shown.includes(run.name)).map((run) => `${run.name} ${run.step} ${run.state}`).join();
  useEffect(() => shown.forEach(ask), [stamp]);
  const toggle = (name) => setShown((shown.includes(name) ? shown.filter((each) => each !== name) : [...shown, name]).join(",") || "none");
  if (list === null || (!rows.length && !curves[own])) return html`<p>Looking for runs ...</p>`;
  const lines = shown.flatMap((name) => (curves[name] ? linesOf(name, place.get(name), curves[name], shown.length) : []));
  const early = log === "1" && !lines.some(({ name, rows }) => name !== BIGRAM && rows.some(([step]) => step > 0));
  const writer = names.includes(sampled) ? sampled : shown.find((name) => curves[name]?.samples.length);
  return html`
    ${lines.length > 0 && early ? html`<p class="hint">Nothing after step 0 yet, and step 0 has no place on a logarithmic axis.</p>` : lines.length > 0 ? html`<${Chart} curves=${lines} log=${log === "1"} name="loss of runs" label="loss, nats per token" ask=${{ path: `/api/run?model=${encodeURIComponent(shown[0])}` }} />` : html`<p class="hint">${shown.some((name) => !curves[name]) ? "Reading the curves ..." : rows.length ? "No curve is chosen." : "This model lies in no run folder: there is no curve of it."}</p>`}
    ${lines.length > 0 && html`<div class="buttons"><label><input type="checkbox" checked=${log === "1"} onChange=${() => setLog(log === "1" ? "" : "1")} /> steps on a logarithmic axis</label></div>`}
    ${rows.length > 0 && html`<p class="hint">Bold lines are validation, thin ones training.</p><div class="scroll" role="region" aria-label="runs" tabindex="0"><table class="runs" aria-label="runs in this folder">
      <thead><tr><th scope="col">draw</th><th scope="col">run</th><th scope="col">state</th><th scope="col">step</th><th scope="col">best <span class="step">validation </span>loss</th><th scope="col"><span class="hidden">what to do</span></th></tr></thead>
      <tbody>${rows.map((run) => html`<tr key=${run.name}><td><label class="touch"><input type="checkbox" checked=${shown.includes(run.name)} aria-label=${`draw ${run.name}`} onChange=${() => toggle(run.name)} /></label></td>
        <th scope="row"><i class="swatch" style=${`background:var(--run-${place.get(run.name) % COLORS})`}></i>${run.name}</th><td>${run.state}</td>
        <td>${run.step?.toLocaleString("en") ?? "0"}${run.max_steps ? html`<span class="step"> of ${run.max_steps.toLocaleString("en")}</span>` : ""}</td><td>${run.val_loss == null ? "" : number(run.val_loss)}</td>
        <td class="buttons"><button class="quiet" aria-label=${`Samples of ${run.name}`} onClick=${() => (setSampled(run.name), ask(run.name))}>Samples</button>${run.name !== own && html`<button class="quiet" aria-label=${`Look inside ${run.name}`} onClick=${() => choose(run.name).then((open) => open && (tab.value = "write"))}>Look inside</button>`}</td></tr>`)}</tbody></table></div>`}
    ${names.filter((name) => shown.includes(name) && curves[name]).map((name) => html`<${Behind} key=${name} says=${`curves of ${name} as a table`} columns=${["step", "training", "validation"]} rows=${() => losses(curves[name])} />`)}
    ${writer && curves[writer] && html`<${Samples} key=${writer} name=${writer} samples=${curves[writer].samples} />`}
    <${Starter} names=${names} changed=${() => (look(), attempt("names", loadRuns))} />`;
}

/** Both losses of a run by step, as rows of a table. */
function losses({ train, val }) {
  const known = [new Map(train), new Map(val)];
  const steps = [...new Set([...train, ...val].map(([step]) => step))].sort((a, b) => a - b);
  return steps.map((step) => [step.toLocaleString("en"), ...known.map((of) => (of.has(step) ? number(of.get(step)) : ""))]);
}

function linesOf(name, place, run, n) {
  const [color, dash] = [`--run-${place % COLORS}`, DASHES[Math.floor(place / COLORS) % DASHES.length]];
  const lines = [
    { name: `${name}: training`, color, width: 0.75, dash, points: run.train.length === 1, rows: run.train, beside: n >= FIRST && run.val.length > 0 },
    { name: `${name}: validation`, color, width: 2.25, dash, points: true, rows: run.val },
  ].filter(({ rows }) => rows.length);
  if (run.bigram && n === 1 && lines.length) {
    const steps = [...run.train, ...run.val].map(([step]) => step);
    const least = Math.min(...steps);
    const ends = [least, Math.min(...steps.filter((step) => step > 0)), Math.max(least + 1, ...steps)].filter(Number.isFinite); // 0 has no place on a logarithmic axis
    lines.push({ name: BIGRAM, color: "--ink", width: 1, dash: [4, 4], rows: ends.map((step) => [step, run.bigram]) });
  }
  return lines;
}

/** What a run wrote while it learned. */
function Samples({ name, samples }) {
  const [asked, setAt] = saved("sample", "");
  if (!samples.length) return html`<p class="hint">${name} has written no sample yet.</p>`;
  const last = samples.length - 1;
  const at = placeOf(asked, samples.length) ?? last; // the newest, as long as nobody chose
  const shown = samples[at];
  return html`<h2>what ${name} wrote at step ${shown[0].toLocaleString("en")}</h2>
    ${last > 0 && html`<label class="slide">earlier <input type="range" min="0" max=${last} value=${at} aria-label=${`sample of ${name}`} aria-valuetext=${`step ${shown[0]}`}
      onInput=${(e) => setAt(Number(e.target.value) === last ? "" : e.target.value)} /> later</label>`}
    <pre class="sample growing">${shown[1]}</pre>`;
}
