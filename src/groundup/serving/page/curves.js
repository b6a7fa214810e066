// How the model learned: its curves as they grow, and what it wrote on the way.
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import uPlot from "./vendor/uplot.js";
import { get } from "./api.js";
import { number } from "./format.js";
import { attempt, modelId } from "./state.js";

const EVERY = 2000;

export function Curves() {
  const [run, setRun] = useState(null);
  const [at, setAt] = useState(null);
  const [log, setLog] = useState(false);
  const place = useRef(null);
  useEffect(() => {
    const look = () => document.hidden || attempt("run", () => get(`/api/run?model=${encodeURIComponent(modelId.value)}`)).then((x) => x && setRun(x));
    look();
    const timer = setInterval(look, EVERY);
    return () => clearInterval(timer);
  }, [modelId.value]);
  useEffect(() => {
    if (!run?.train.length || !place.current) return;
    const steps = [...new Set([...run.train, ...run.val].map(([step]) => step))].sort((a, b) => a - b);
    const column = (rows) => {
      const known = new Map(rows);
      return steps.map((step) => known.get(step) ?? null);
    };
    const style = getComputedStyle(document.documentElement);
    const [ink, accent, faint, soft] = ["--ink", "--accent", "--card", "--soft"].map((name) => style.getPropertyValue(name).trim());
    const data = [steps, column(run.train), column(run.val)];
    const axis = { stroke: ink, grid: { stroke: faint, width: 1 }, ticks: { stroke: faint } };
    const series = [{ label: "step" }, { label: "training", stroke: soft, width: 1, points: { show: false }, spanGaps: true }, { label: "validation", stroke: accent, width: 2, spanGaps: true, points: { show: true } }];
    if (run.bigram) {
      data.push(steps.map(() => run.bigram));
      series.push({ label: "bigram", stroke: ink, dash: [4, 4], width: 1, points: { show: false } });
    }
    const width = place.current.clientWidth;
    const chart = new uPlot({ width, height: Math.min(360, width * 0.6), scales: { x: { time: false, distr: log ? 3 : 1 } }, axes: [{ ...axis, label: "step" }, { ...axis, label: "loss, nats per token" }], series },
      log ? data.map((values, i) => values.slice(steps[0] === 0 ? 1 : 0)) : data, place.current);
    return () => chart.destroy();
  }, [run, log]);
  if (run === null) return html`<p>Looking for the run ...</p>`;
  if (!run.train.length && !run.val.length) return html`<p>This model lies in no run folder: there is no curve to show.</p>`;
  const samples = run.samples;
  const shown = samples[Math.min(at ?? samples.length - 1, samples.length - 1)];
  const last = run.val.at(-1);
  return html`
    <p class="numbers">${run.state}${last ? html` · validation loss <b>${number(last[1])}</b> at step ${last[0]}` : ""}${run.bigram ? html` · the bigram has ${number(run.bigram)}` : ""}</p>
    <label><input type="checkbox" checked=${log} onChange=${() => setLog(!log)} /> steps on a logarithmic axis</label>
    <div ref=${place} class="chart" role="img" aria-label="Loss against steps; the table below has the numbers"></div>
    <details><summary>as a table</summary><table><thead><tr><th scope="col">step</th><th scope="col">validation loss</th></tr></thead><tbody>${run.val.map(([step, loss]) => html`<tr><th scope="row">${step}</th><td>${number(loss)}</td></tr>`)}</tbody></table></details>
    ${shown && html`<h2>what it wrote at step ${shown[0]}</h2>
      <label class="slide">earlier <input type="range" min="0" max=${samples.length - 1} value=${at ?? samples.length - 1} onInput=${(e) => setAt(Number(e.target.value))} aria-label="sample" /> later</label>
      <pre class="sample">${shown[1]}</pre>`}`;
}
