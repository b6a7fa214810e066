// Where the heads look: on the text, as matrices, all of them at a glance.
import { html } from "./html.js";
import { useAnswer } from "./answer.js";
import { bytes, get } from "./api.js";
import { placeOf, placed, probability } from "./format.js";
import { model, modelId, saved, tokens } from "./state.js";
import { Behind } from "./behind.js";
import { Cell } from "./cell.js";
import { Heatmap } from "./heatmap.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";
import { Tinted } from "./tinted.js";

/** Heads per layer of which all pictures have room beside the large one. */
const BESIDE = 10;

/** Weights of every layer: {steps: Uint16Array (H, T, T) in parts of 65535, lengths: Float32Array (H, T)} each; null at first. */
function useAttention() {
  const ids = tokens.value.ids;
  const work = async (signal) => {
    const found = [];
    const size = model.value.n_head * ids.length ** 2;
    for (let layer = 0; layer < model.value.n_layer; layer++) {
      const raw = await bytes("/api/attention", { model: modelId.value, tokens: ids, layer }, signal);
      found.push({ steps: new Uint16Array(raw, 0, size), lengths: new Float32Array(raw.slice(2 * size)) });
    }
    return found;
  };
  return useAnswer("attention", ids.length && model.value.n_layer && [modelId.value, ids], { work });
}

/** "2.7" as [2, 7], where both are below their bounds. @returns {[number, number] | null} */
function pair(written, rows, columns) {
  const found = /^(\d+)\.(\d+)$/.exec(written);
  return found && Number(found[1]) < rows && Number(found[2]) < columns ? [Number(found[1]), Number(found[2])] : null;
}

function useSwitch(name) {
  const [value, set] = saved(name, "");
  return { on: value === "1", flip: () => set(value === "1" ? "" : "1") };
}

const Switch = ({ of, children }) => html`<label><input type="checkbox" checked=${of.on} onChange=${of.flip} /> ${children}</label>`;

/** The cell that is explained, by the names of its tokens: of a long text a cell is too small to touch. */
function Choice({ shown, cell, pick }) {
  const options = (names) => [html`<option value="" disabled>a token</option>`, ...names.map((name, i) => html`<option value=${i}>${name}</option>`)];
  const [row, column] = cell ?? ["", ""];
  return html`<div class="buttons"><label>what <select aria-label="row" value=${row} onChange=${(e) => pick(Number(e.target.value), Math.min(column || 0, Number(e.target.value)))}>${options(shown)}</select></label>
    <label>takes from <select aria-label="column" value=${column} onChange=${(e) => pick(cell ? row : shown.length - 1, Number(e.target.value))}>${options(cell ? shown.slice(0, row + 1) : shown)}</select></label></div>`;
}

export function Attention() {
  const layers = useAttention();
  const labels = useAnswer("labels", model.value.n_layer && modelId.value, { work: () => get("/api/heads", { model: modelId.value }) });
  const [chosen, setChosen] = saved("head", "0.0");
  const [picked, setPicked] = saved("cell", "");
  const [looker, setLooker] = saved("looker", "");
  const turned = useSwitch("turned");
  const withoutFirst = useSwitch("nofirst");
  const byValues = useSwitch("values");
  const texts = tokens.value.texts;
  const T = texts.length;
  const [layer, head] = pair(chosen, model.value.n_layer, model.value.n_head) ?? [0, 0];
  const cell = pair(picked, T, T);

  /** The weight that row i gives to column j in a head, after the switches. */
  const weight = (l, h) => {
    const { steps, lengths } = layers[l];
    const longest = lengths.subarray(h * T, (h + 1) * T).reduce((a, b) => Math.max(a, b), 1e-9);
    return (i, j) => {
      if (withoutFirst.on && j === 0) return 0;
      let w = steps[(h * T + i) * T + j] / 65535;
      if (withoutFirst.on) w /= Math.max(1e-6, 1 - steps[(h * T + i) * T] / 65535);
      return byValues.on ? (w * lengths[h * T + j]) / longest : w;
    };
  };
  if (!model.value.n_layer) return html`<p>This model is a table of pairs: it has no attention.</p>`;
  const at = layers && weight(layer, head);
  const asked = placeOf(looker, T) ?? T - 1;
  const seen = [layers, withoutFirst.on, byValues.on];
  const shown = texts.map(placed);
  /** What stands at a position of the text: what the asked token takes from it, or it from the asked token. */
  const share = (j) => (turned.on ? (j >= asked ? at(j, asked) : 0) : j <= asked ? at(asked, j) : 0);
  const most = at ? Math.max(1e-9, ...texts.map((_, j) => share(j))) : 1;
  const pick = (i, j) => j <= i && setPicked(`${i}.${j}`);
  const all = at && html`<h2>all heads</h2>
      <${Picture} name="all heads"><div class="grid" style=${`--columns:${model.value.n_head}`}>
        ${layers.flatMap((_, l) => Array.from({ length: model.value.n_head }, (_, h) => html`
          <button class=${l === layer && h === head ? "cell chosen" : "cell"} aria-label=${`layer ${l} head ${h} ${labels?.labels[l][h] ?? ""}`.trim()} aria-pressed=${l === layer && h === head} onClick=${() => setChosen(`${l}.${h}`)}>
            <${Heatmap} rows=${T} columns=${T} at=${weight(l, h)} seen=${seen} name=${`layer ${l} head ${h}`} size=${96} quiet=${true} />
            <small>${l}.${h} ${labels?.labels[l][h] ?? ""}</small></button>`))}
      </div><//>
      ${labels && html`<${Behind} says="what the detectors say of each head" columns=${["head", "kind", ...Object.keys(labels.scores)]}
        rows=${() => labels.labels.flatMap((row, l) => row.map((kind, h) => [`${l}.${h}`, kind, ...Object.values(labels.scores).map((score) => probability(score[l][h]))]))} />`}`;
  return html`
    <${Prompt} rows="2" />
    <div class="buttons">
      <${Switch} of=${turned}>ask what looks at it<//>
      <${Switch} of=${withoutFirst}>leave the first token out<//>
      <${Switch} of=${byValues}>times the length of the value<//>
    </div>
    ${at && html`
      <h2>layer ${layer}, head ${head}${labels?.labels[layer][head] ? `: ${labels.labels[layer][head]}` : ""}</h2>
      <${Picture} name=${`attention of layer ${layer} head ${head} on the text`} ask=${{ path: "/api/attention", body: { model: modelId.value, tokens: tokens.value.ids, layer } }}><${Tinted} name="The text, tinted by attention" tokens=${texts.map((text, j) => ({ text, share: share(j) / most, says: probability(share(j)) }))} at=${asked} pick=${setLooker} /><//>
      <p class="hint">${turned.on ? "What looks at the outlined token" : "What the outlined token looks at"}: the full tint is ${probability(most)}. Point at another to ask it.</p>
      <${Behind} says=${`${turned.on ? "what looks at" : "what is looked at by"} ${shown[asked]}, as a table`} columns=${["token", byValues.on ? "weight × length, of the longest" : "weight"]} rows=${() => shown.map((name, j) => [name, probability(share(j))])} />
      <div class="columns matrix"><div><${Heatmap} rows=${T} columns=${T} at=${at} seen=${[...seen, layer, head]} size=${420} pick=${pick} spot=${cell} name=${`layer ${layer} head ${head}`} tokens=${shown}
        says=${(i, j) => (byValues.on ? `${shown[i]} from ${shown[j]}: weight times length, as a share of the longest value, ${probability(at(i, j))}` : `${shown[i]} takes ${probability(Math.max(0, at(i, j)))} from ${shown[j]}`)} />
      <p class="hint">Rows look at columns; the shade is the square root of the weight. Click a cell, or move with the arrow keys and press Enter, to see the numbers behind it.</p><${Choice} shown=${shown} cell=${cell} pick=${pick} /></div>
      <div>${cell && cell[1] <= cell[0] && html`<${Cell} layer=${layer} head=${head} row=${cell[0]} column=${cell[1]} close=${() => setPicked("")} />`}
      ${model.value.n_head <= BESIDE && all}</div></div>
      ${model.value.n_head > BESIDE && all}`}`;
}
