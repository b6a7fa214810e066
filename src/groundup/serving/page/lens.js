// What the model would say if it stopped after each layer.
import { html } from "./html.js";
import { useAnswer } from "./answer.js";
import { bits, number, probability, spoken, visible } from "./format.js";
import { model, modelId, named, saved, tokens } from "./state.js";
import { Likely, Said } from "./likely.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";

const TINTS = { probability: "probability of its first choice", entropy: "how sure it is", rank: "rank of what really came" };

export function Lens() {
  const [asked, setBy] = saved("tint", "probability");
  const by = TINTS[asked] ? asked : "probability";
  const [pointed, setPointed] = saved("point", "");
  const cell = /^\d+\.\d+$/.test(pointed) ? pointed.split(".").map(Number) : null;
  const ids = tokens.value.ids;
  const ask = { path: "/api/lens", body: { model: modelId.value, tokens: ids } };
  const found = useAnswer("lens", ids.length && model.value.n_layer && ask);
  if (!model.value.n_layer) return html`<p>This model is a table of pairs: it has no layers.</p>`;
  const share = (l, t) => {
    if (by === "probability") return found.probability[l][t][0];
    if (by === "entropy") return 1 - found.entropy[l][t] / Math.log(model.value.vocab_size);
    const rank = found.rank[l][t];
    return rank === undefined ? 0 : 1 / (1 + rank);
  };
  const rows = found ? [...found.top.keys()].reverse() : [];
  const shown = found && cell && found.top[cell[0]]?.[cell[1]];
  /** Arrow keys go from cell to cell: the table is one stop of the Tab key. */
  const move = (event) => {
    const [up, right] = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (up === undefined) return;
    event.preventDefault();
    const [l, t] = event.target.dataset.at.split(".").map(Number);
    event.currentTarget.querySelector(`[data-at="${l + up}.${t + right}"]`)?.focus();
  };
  const rowName = (l) => (l === 0 ? "embedding" : l === found.top.length - 1 ? `layer ${l - 1} = output` : `after layer ${l - 1}`);
  return html`
    <${Prompt} rows="2" />
    <fieldset class="inline"><legend>tint</legend>${Object.entries(TINTS).map(([id, label]) => html`
      <label><input type="radio" name="tint" checked=${by === id} onChange=${() => setBy(id)} /> ${label}</label>`)}</fieldset>
    ${found && html`
      <p class="hint">Read upward: where does the answer appear, which layer changes its mind? Early rows are read with a norm and a head trained for the last one: a hint, not a measurement.</p>
      <${Picture} name="layers" ask=${ask}><div class="scroll" role="region" aria-label="layers" tabindex="0"><table class="lens" aria-label="the likeliest token after each layer">
        <tbody onKeyDown=${move}>${rows.map((l) => html`<tr><th scope="row">${rowName(l)}</th>
          ${ids.map((_, t) => html`<td style=${`--share:${share(l, t)}`}><button class=${`token ${pointed === `${l}.${t}` ? "pointed" : ""}`} aria-label=${`${spoken(visible(named(found.top[l][t][0])))} ${probability(found.probability[l][t][0])}`} tabindex=${pointed === `${l}.${t}` || (!shown && l === rows[0] && t === 0) ? 0 : -1}
            data-at=${`${l}.${t}`} onFocus=${() => setPointed(`${l}.${t}`)} onMouseEnter=${() => setPointed(`${l}.${t}`)}>${visible(named(found.top[l][t][0]))}</button></td>`)}</tr>`)}
        <tr><th scope="row">text</th>${tokens.value.texts.map((t) => html`<td class="given">${visible(t)}</td>`)}</tr></tbody></table></div><//>
      <p class="hint" aria-live="polite">${shown ? html`${rowName(cell[0])}, after <${Said} token=${tokens.value.texts[cell[1]]} />: <${Likely} rows=${found.top[cell[0]][cell[1]].map((id, i) => [named(id), probability(found.probability[cell[0]][cell[1]][i])])} /> unsure by ${number(bits(found.entropy[cell[0]][cell[1]]))} bits` : "Point at a cell, or move with the arrow keys, to see its five likeliest tokens."}</p>`}`;
}
