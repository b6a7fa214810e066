// What pushed this token: the parts that sum to one logit; and which tokens live next to it.
import { html } from "./html.js";
import { useAnswer } from "./answer.js";
import { aligned, count, number, placeOf, spoken, sum, visible } from "./format.js";
import { largest } from "./sampling.js";
import { model, modelId, named, result, saved, tokens } from "./state.js";
import { Bar } from "./bars.js";
import { Said } from "./likely.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";

/** Parts that are drawn, the largest first; the others are one. */
const ROWS = 24;

/** From one sum to the next. @param {{from: number, to: number, span: [number, number]}} props span: the least and the largest sum */
function Step({ from, to, span: [low, high] }) {
  const x = (value) => (100 * (value - low)) / Math.max(1e-9, high - low);
  return html`<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><path class="zero" d=${`M${x(0)} 0 v10`} />
    <rect class=${to > from ? "fill" : "minus"} x=${Math.min(x(from), x(to))} y="1" width=${Math.abs(x(to) - x(from))} height="8" /></svg>`;
}

export function Push() {
  const [asked, setToken] = saved("token", "");
  const token = placeOf(asked, model.value.vocab_size);
  const ids = tokens.value.ids;
  const ask = { path: "/api/contributions", body: { model: modelId.value, tokens: ids, position: -1, token } };
  const found = useAnswer("push", ids.length && model.value.n_layer && ask, { of: ids });
  const askNear = { path: "/api/neighbors", body: { model: modelId.value, token: found?.token } };
  const near = useAnswer("near", found && askNear);
  if (!model.value.n_layer) return html`<p>This model is a table of pairs: a single number pushes each token.</p>`;
  const likely = result.value ? largest(result.value.penalized, 12) : [];
  const rows = found ? found.names.map((name, i) => [name, found.values[i]]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])) : [];
  const shown = rows.length > ROWS ? [...rows.slice(0, ROWS), [count(rows.length - ROWS, "smaller one"), sum(rows.slice(ROWS).map(([, value]) => value))]] : rows;
  let end = 0; // each part begins where the one above it ended
  const steps = shown.map(([name, value]) => [name, value, (end += value) - value]);
  const ends = [0, ...steps.map(([, value, from]) => from + value)];
  const span = [Math.min(...ends), Math.max(...ends)];
  return html`
    <${Prompt} rows="2" />
    <div class="buttons" role="group" aria-label="token">${likely.map((id) => html`<button class=${found?.token === id ? "token chosen" : "token"} aria-label=${spoken(visible(named(id)))} aria-pressed=${found?.token === id} onClick=${() => setToken(id)}>${visible(named(id))}</button>`)}</div>
    ${found && html`
      <h2>the logit of <${Said} token=${named(found.token)} /> is ${number(found.logit)}</h2>
      <${Picture} name="what pushed this token" ask=${{ ...ask, body: { ...ask.body, token: found.token } }}><div class="scroll"><table class="waterfall"><caption>Each part of the residual stream adds its own term (the scale of the final norm held fixed), the largest first, and begins where the last one ended: the terms sum to the logit.</caption><tbody>
        ${steps.map(([name, value, from]) => html`<tr><th scope="row">${name}</th><td>${aligned(value, 4)}</td><td class="wide"><${Step} from=${from} to=${from + value} span=${span} /></td></tr>`)}
        <tr class="total"><th scope="row">the logit</th><td>${aligned(found.logit, 4)}</td><td class="wide"><${Step} from=${0} to=${found.logit} span=${span} /></td></tr></tbody></table></div><//>
      ${near && html`<h2>nearest to <${Said} token=${named(found.token)} /> in the embedding</h2>
      <${Picture} name=${`neighbors of ${visible(named(found.token))}`} ask=${askNear}><div class="scroll"><table class="wider"><caption>The cosine of the angle between their vectors: 1 is the same direction.</caption><tbody>
        ${near.tokens.map((id, i) => html`<tr><th scope="row" aria-label=${spoken(visible(named(id)))}><span class="token">${visible(named(id))}</span></th><td class="figure">${aligned(near.cosine[i], 4)}</td><td class="wide"><${Bar} value=${Math.max(0, near.cosine[i])} /></td></tr>`)}</tbody></table></div><//>`}`}`;
}
