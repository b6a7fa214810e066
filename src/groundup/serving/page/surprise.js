// How strange the model finds a text.
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { post } from "./api.js";
import { bits, number, probability, visible } from "./format.js";
import { attempt, model, modelId, named, tokens } from "./state.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";

export function Surprise() {
  const [found, setFound] = useState(null);
  const [at, setAt] = useState(null);
  const ids = tokens.value.ids;
  useEffect(() => {
    if (ids.length < 2) return setFound(null);
    attempt("surprise", (signal) => post("/api/surprise", { model: modelId.value, tokens: ids }, signal)).then((x) => x && setFound(x));
  }, [ids, modelId.value]);
  const fresh = found && found.loss.length === ids.length - 1;
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const scale = Math.log(model.value.vocab_size);
  return html`
    <${Prompt} rows="4" />
    ${fresh && html`
      <${Picture} name="surprise" ask=${{ path: "/api/surprise", body: { model: modelId.value, tokens: ids } }}><p class="looked" aria-label="The text, tinted by surprise"><span>${visible(tokens.value.texts[0])}</span>${found.loss.map((loss, i) => html`
        <span tabindex="0" style=${`--share:${Math.min(1, loss / scale)}`} onMouseEnter=${() => setAt(i)} onFocus=${() => setAt(i)}>${visible(tokens.value.texts[i + 1])}</span>`)}</p><//>
      <p class="numbers"><b>${number(bits(sum(found.loss)))}</b> bits in all, <b>${number(bits(sum(found.loss) / found.loss.length))}</b> per token</p>
      ${at !== null && found.top[at] && html`<div aria-live="polite" class="card"><p>After ${visible(tokens.value.texts[at])} came <b>${visible(tokens.value.texts[at + 1])}</b>:
        ${probability(Math.exp(-found.loss[at]))}, ${number(bits(found.loss[at]))} bits, ${found.rank[at] === 0 ? "the likeliest" : `${found.rank[at]} were likelier`}; unsure by ${number(bits(found.entropy[at]))} bits before.</p>
        <p>expected: ${found.top[at].slice(0, 5).map((id, i) => `${visible(named(id))} ${probability(found.probability[at][i])}`).join(" · ")}</p></div>`}`}
    ${fresh && html`<details><summary>as a table</summary><table><thead><tr><th scope="col">token</th><th scope="col">probability</th><th scope="col">bits</th><th scope="col">likelier ones</th></tr></thead>
      <tbody>${found.loss.map((loss, i) => html`<tr><th scope="row">${visible(tokens.value.texts[i + 1])} (${i + 1})</th><td>${probability(Math.exp(-loss))}</td><td>${number(bits(loss))}</td><td>${found.rank[i]}</td></tr>`)}</tbody></table></details>`}
    <p class="hint">Paste your own text: what does the model find strange?</p>`;
}
