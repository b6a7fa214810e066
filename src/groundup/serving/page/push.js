// Who pushed this token: the parts that sum to one logit; and which tokens live next to it.
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { post } from "./api.js";
import { number, visible } from "./format.js";
import { largest } from "./sampling.js";
import { attempt, model, modelId, named, result, saved, tokens } from "./state.js";
import { Bar } from "./bars.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";

export function Push() {
  const [asked, setToken] = saved("token", "");
  const token = /^\d+$/.test(asked) && Number(asked) < model.value.vocab_size ? Number(asked) : null;
  const [found, setFound] = useState(null);
  const [near, setNear] = useState(null);
  const ids = tokens.value.ids;
  useEffect(() => {
    if (!ids.length || !model.value.n_layer) return;
    attempt("push", (signal) => post("/api/contributions", { model: modelId.value, tokens: ids, position: -1, token }, signal)).then((x) => x && setFound(x));
  }, [ids, token, modelId.value]);
  useEffect(() => {
    if (!found) return;
    attempt("near", (signal) => post("/api/neighbors", { model: modelId.value, token: found.token }, signal)).then((x) => x && setNear(x));
  }, [found?.token, modelId.value]);
  if (!model.value.n_layer) return html`<p>This model is a table of pairs: a single number pushes each token.</p>`;
  const likely = result.value ? largest(result.value.penalized, 12) : [];
  const most = found ? Math.max(...found.values.map(Math.abs)) : 1;
  const rows = found ? found.names.map((name, i) => [name, found.values[i]]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])) : [];
  return html`
    <${Prompt} rows="2" />
    <div class="buttons" role="group" aria-label="token">${likely.map((id) => html`<button class=${found?.token === id ? "token chosen" : "token"} aria-pressed=${found?.token === id} onClick=${() => setToken(id)}>${visible(named(id))}</button>`)}</div>
    ${found && html`
      <h2>the logit of ${visible(named(found.token))} is ${number(found.logit)}</h2>
      <${Picture} name="who pushed this token" ask=${{ path: "/api/contributions", body: { model: modelId.value, tokens: ids, position: -1, token: found.token } }}><table class="waterfall"><caption>Each part of the residual stream adds its own term (the scale of the final norm held fixed); the terms sum to the logit.</caption><tbody>
        ${rows.slice(0, 24).map(([name, value]) => html`<tr><th scope="row">${name}</th><td>${number(value)}</td><td class="wide"><svg class="bar" viewBox="-100 0 200 10" preserveAspectRatio="none" aria-hidden="true">
          <rect class=${value > 0 ? "fill" : "minus"} x=${Math.min(0, (100 * value) / most)} y="1" width=${(100 * Math.abs(value)) / most} height="8" /></svg></td></tr>`)}
        ${rows.length > 24 && html`<tr><th scope="row">${rows.length - 24} smaller ones</th><td>${number(rows.slice(24).reduce((a, r) => a + r[1], 0))}</td><td></td></tr>`}</tbody></table><//>
      ${near && html`<h2>nearest to ${visible(named(found.token))} in the embedding</h2>
      <${Picture} name=${`neighbors of ${visible(named(found.token))}`} ask=${{ path: "/api/neighbors", body: { model: modelId.value, token: found.token } }}><table class="wider"><caption>The cosine of the angle between their vectors: 1 is the same direction.</caption><tbody>
        ${near.tokens.map((id, i) => html`<tr><th scope="row"><span class="token">${visible(named(id))}</span></th><td class="figure">${number(near.cosine[i])}</td><td class="wide"><${Bar} value=${Math.max(0, near.cosine[i])} /></td></tr>`)}</tbody></table><//>`}`}`;
}
