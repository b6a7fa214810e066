// How strange the model finds a text; and how much stranger than another model does.
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { post } from "./api.js";
import { bits, number, probability, visible } from "./format.js";
import { attempt, facts, model, modelId, named, tokens } from "./state.js";
import { Prompt } from "./prompt.js";

export function Surprise() {
  const [found, setFound] = useState(null);
  const [other, setOther] = useState("");
  const [theirs, setTheirs] = useState(null);
  const [at, setAt] = useState(null);
  const ids = tokens.value.ids;
  useEffect(() => {
    if (ids.length < 2) return setFound(null);
    attempt("surprise", (signal) => post("/api/surprise", { model: modelId.value, tokens: ids }, signal)).then((x) => x && setFound(x));
  }, [ids, modelId.value]);
  useEffect(() => {
    if (!other || ids.length < 2) return setTheirs(null);
    attempt("theirs", (signal) => post("/api/surprise", { model: other, tokens: ids }, signal)).then((x) => x && setTheirs(x));
  }, [ids, other]);
  const fresh = found && found.loss.length === ids.length - 1;
  const compare = fresh && theirs && theirs.loss.length === found.loss.length;
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  const scale = Math.log(model.value.vocab_size);
  const others = facts.value.models.filter((m) => m.id !== modelId.value && m.vocab_size === model.value.vocab_size);
  return html`
    <${Prompt} rows="4" />
    ${others.length > 0 && html`<label>compare with <select value=${other} onChange=${(e) => setOther(e.target.value)}>
      <option value="">nobody</option>${others.map((m) => html`<option>${m.id}</option>`)}</select></label>`}
    ${fresh && html`
      <p class="looked" aria-label="The text, tinted by surprise"><span>${visible(tokens.value.texts[0])}</span>${found.loss.map((loss, i) => {
        const change = compare ? loss - theirs.loss[i] : 0;
        return html`<span tabindex="0" class=${compare ? (change > 0 ? "worse" : "better") : ""} style=${`--share:${compare ? Math.min(1, Math.abs(change) / 3) : Math.min(1, loss / scale)}`}
          onMouseEnter=${() => setAt(i)} onFocus=${() => setAt(i)}>${visible(tokens.value.texts[i + 1])}</span>`;
      })}</p>
      <p class="numbers"><b>${number(bits(sum(found.loss)))}</b> bits in all, <b>${number(bits(sum(found.loss) / found.loss.length))}</b> per token
        ${compare ? html` · ${other}: <b>${number(bits(sum(theirs.loss) / theirs.loss.length))}</b> per token; warm is stranger to ${modelId.value}, cool to ${other}` : ""}</p>
      ${at !== null && found.top[at] && html`<div aria-live="polite" class="card"><p>After ${visible(tokens.value.texts[at])} came <b>${visible(tokens.value.texts[at + 1])}</b>:
        ${probability(Math.exp(-found.loss[at]))}, ${number(bits(found.loss[at]))} bits, ${found.rank[at] === 0 ? "the likeliest" : `${found.rank[at]} were likelier`}; unsure by ${number(bits(found.entropy[at]))} bits before.</p>
        <p>expected: ${found.top[at].slice(0, 5).map((id, i) => `${visible(named(id))} ${probability(found.probability[at][i])}`).join(" · ")}</p></div>`}`}
    <p class="hint">Paste your own text: what does the model find strange?</p>`;
}
