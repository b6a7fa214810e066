// What the model would say if it stopped after each layer.
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { post } from "./api.js";
import { bits, number, probability, visible } from "./format.js";
import { attempt, model, modelId, named, saved, tokens } from "./state.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";

const TINTS = { probability: "probability of its first choice", entropy: "how sure it is", rank: "rank of what really came" };

export function Lens() {
  const [found, setFound] = useState(null);
  const [asked, setBy] = saved("tint", "probability");
  const by = TINTS[asked] ? asked : "probability";
  const [cell, setCell] = useState(null);
  const ids = tokens.value.ids;
  useEffect(() => {
    if (!ids.length || !model.value.n_layer) return;
    attempt("lens", (signal) => post("/api/lens", { model: modelId.value, tokens: ids }, signal)).then((x) => x && setFound(x));
  }, [ids, modelId.value]);
  if (!model.value.n_layer) return html`<p>This model is a table of pairs: it has no layers.</p>`;
  const fresh = found && found.top[0].length === ids.length;
  const share = (l, t) => {
    if (by === "probability") return found.probability[l][t][0];
    if (by === "entropy") return 1 - found.entropy[l][t] / Math.log(model.value.vocab_size);
    const rank = found.rank[l][t];
    return rank === undefined ? 0 : 1 / (1 + rank);
  };
  const rows = fresh ? [...found.top.keys()].reverse() : [];
  const rowName = (l) => (l === 0 ? "embedding" : l === found.top.length - 1 ? `layer ${l - 1} = output` : `after layer ${l - 1}`);
  return html`
    <${Prompt} rows="2" />
    <fieldset class="inline"><legend>tint</legend>${Object.entries(TINTS).map(([id, label]) => html`
      <label><input type="radio" name="tint" checked=${by === id} onChange=${() => setBy(id)} /> ${label}</label>`)}</fieldset>
    ${fresh && html`
      <p class="hint">Read upward: where does the answer appear, which layer changes its mind? Early rows are read with a norm and a head trained for the last one: a hint, not a measurement.</p>
      <${Picture} name="layers" ask=${{ path: "/api/lens", body: { model: modelId.value, tokens: ids } }}><div class="scroll" tabindex="0"><table class="lens" aria-label="the likeliest token after each layer">
        <tbody>${rows.map((l) => html`<tr><th scope="row">${rowName(l)}</th>
          ${ids.map((_, t) => html`<td style=${`--share:${share(l, t)}`}><button class="token" onFocus=${() => setCell([l, t])} onMouseEnter=${() => setCell([l, t])}>${visible(named(found.top[l][t][0]))}</button></td>`)}</tr>`)}
        <tr><th scope="row">text</th>${tokens.value.texts.map((t) => html`<td class="given">${visible(t)}</td>`)}</tr></tbody></table></div><//>
      <p class="hint" aria-live="polite">${cell && found.top[cell[0]]?.[cell[1]] ? html`${rowName(cell[0])}, after ${visible(tokens.value.texts[cell[1]])}: ${found.top[cell[0]][cell[1]].map((id, i) => `${visible(named(id))} ${probability(found.probability[cell[0]][cell[1]][i])}`).join(" · ")} · unsure by ${number(bits(found.entropy[cell[0]][cell[1]]))} bits` : "Point at a cell to see its five likeliest tokens."}</p>`}`;
}
