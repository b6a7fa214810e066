// Choose a model: a served one or a run beside it, and a kept step of its training.
import { useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { useAnswer } from "./answer.js";
import { get } from "./api.js";
import { facts, parts, runs } from "./state.js";

let asking = 0;

/** The kept steps of a run. @param {string} run @returns {number[] | null} null until they are known */
export function useSteps(run) {
  const [kind] = useState(() => `steps ${(asking += 1)}`); // of this list alone: several stand on one page
  return useAnswer(kind, run, { work: () => get("/api/steps", { model: run }) })?.steps ?? null;
}

/** @param {{id: string, pick: (id: string) => unknown, label: string}} props */
export function Picker({ id, pick, label }) {
  const { run, step } = parts(id);
  const steps = useSteps(run);
  const [, again] = useState(null);
  const chosen = (wanted) => Promise.resolve(pick(wanted)).then(() => again({})); // what was refused is not what it shows
  const served = facts.value.models.map((m) => parts(m.id).run);
  const names = [...new Set([...served, ...runs.value])];
  return html`<span class="picker">
    <label>${label} <select value=${run} onChange=${(e) => chosen(e.target.value)}>${names.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
    ${steps?.length > 0 && html`<label>step <select value=${step} onChange=${(e) => chosen(e.target.value ? `${run}@${e.target.value}` : run)}>
      <option value="">the model</option>${steps.map((each) => html`<option value=${String(each)}>${each.toLocaleString("en")}</option>`)}</select></label>`}</span>`;
}
