// How strange the model finds a text.
import { html } from "./html.js";
import { useAnswer } from "./answer.js";
import { bits, bytesOf, mean, number, placeOf, placed, probability, sum } from "./format.js";
import { model, modelId, named, saved, tokens } from "./state.js";
import { Behind } from "./behind.js";
import { Likely, Said } from "./likely.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";
import { Tinted } from "./tinted.js";

export function Surprise() {
  const [asked, setAt] = saved("at", "");
  const ids = tokens.value.ids;
  const ask = { path: "/api/surprise", body: { model: modelId.value, tokens: ids } };
  const found = useAnswer("surprise", ids.length > 1 && ask);
  const scale = Math.log(model.value.vocab_size);
  const texts = tokens.value.texts;
  const at = (found && placeOf(asked, ids.length)) ?? -1;
  const i = at - 1; // the first token is given: nothing is expected of it
  const rank = (n) => (n === 0 ? "the likeliest" : n === 1 ? "1 was likelier" : `${n} were likelier`);
  const tinted = found && texts.map((text, t) => (t ? { text, share: Math.min(1, found.loss[t - 1] / scale), says: `${number(bits(found.loss[t - 1]))} bits, ${rank(found.rank[t - 1])}` } : { text, share: 0, says: "given" }));
  const expected = (t) => html`<${Likely} rows=${found.top[t].slice(0, 5).map((id, n) => [named(id), probability(found.probability[t][n])])} />`;
  return html`
    <${Prompt} rows="4" />
    ${ids.length === 1 && html`<p class="hint">${model.value.context === 1 ? "This model looks at one token at a time: there is no text to be surprised by." : "The first token is given: surprise begins with the second."}</p>`}
    ${found && html`
      <${Picture} name="surprise" ask=${ask}><${Tinted} name="The text, tinted by surprise" tokens=${tinted} at=${at} pick=${setAt} /><//>
      <p class="hint">The full tint is ${number(bits(scale))} bits: the cost of a token for a model that knows nothing, with ${model.value.vocab_size.toLocaleString("en")} tokens to choose from. Point at a token to see what was expected.</p>
      <p class="numbers"><b>${number(bits(sum(found.loss)))}</b> bits in all, <b>${number(bits(mean(found.loss)))}</b> per token, <b>${number(bits(sum(found.loss)) / bytesOf(texts.slice(1)))}</b> per byte</p>
      ${i >= 0 && html`<div class="card"><p>After <${Said} token=${texts[i]} /> came <${Said} token=${texts[at]} />: ${probability(Math.exp(-found.loss[i]))}, ${number(bits(found.loss[i]))} bits, ${rank(found.rank[i])}; unsure by ${number(bits(found.entropy[i]))} bits before.</p>
        <p>expected: ${expected(i)}</p></div>`}
      <${Behind} columns=${["token", "probability", "bits", "likelier ones", "expected"]} rows=${() => found.loss.map((loss, t) => [placed(texts[t + 1], t + 1), probability(Math.exp(-loss)), number(bits(loss)), found.rank[t], expected(t)])} />`}
    <p class="hint">Paste your own text: what does the model find strange?</p>`;
}
