// Where the heads look: on the text, as matrices, all of them at a glance.
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { bytes, get } from "./api.js";
import { probability, visible } from "./format.js";
import { attempt, model, modelId, tokens } from "./state.js";
import { Heatmap } from "./heatmap.js";
import { Prompt } from "./prompt.js";

/** Weights of every layer: {weights: Float32Array (H, T, T), lengths: Float32Array (H, T)} each. */
function useAttention() {
  const [layers, setLayers] = useState([]);
  const ids = tokens.value.ids;
  useEffect(() => {
    if (!ids.length || !model.value.n_layer) return;
    attempt("attention", async (signal) => {
      const found = [];
      for (let layer = 0; layer < model.value.n_layer; layer++) {
        const raw = await bytes("/api/attention", { model: modelId.value, tokens: ids, layer }, signal);
        const [H, T] = [model.value.n_head, ids.length];
        const size = H * T * T;
        const steps = new Uint16Array(raw, 0, size);
        const lengths = new Float32Array(raw.slice(2 * size));
        found.push({ T, weights: Float32Array.from(steps, (x) => x / 65535), lengths });
      }
      return found;
    }).then((found) => found && setLayers(found));
  }, [ids, modelId.value]);
  return layers.length && layers[0].T === ids.length ? layers : [];
}

export function Attention() {
  const layers = useAttention();
  const [labels, setLabels] = useState(null);
  const [chosen, setChosen] = useState([0, 0]);
  const [looker, setLooker] = useState(null);
  const [turned, setTurned] = useState(false);
  const [withoutFirst, setWithoutFirst] = useState(false);
  const [byValues, setByValues] = useState(false);
  useEffect(() => {
    attempt("labels", () => get(`/api/heads?model=${encodeURIComponent(modelId.value)}`)).then((found) => found && setLabels(found));
  }, [modelId.value]);
  const texts = tokens.value.texts;
  const T = texts.length;
  const [layer, head] = chosen;

  /** The weight that row i gives to column j in a head, after the switches. */
  const weight = (l, h) => {
    const { weights, lengths } = layers[l];
    return (i, j) => {
      if (withoutFirst && j === 0) return 0;
      let w = weights[(h * T + i) * T + j];
      if (withoutFirst) w /= Math.max(1e-6, 1 - weights[(h * T + i) * T]);
      return byValues ? (w * lengths[h * T + j]) / Math.max(...lengths.subarray(h * T, (h + 1) * T)) : w;
    };
  };
  if (!model.value.n_layer) return html`<p>This model is a table of pairs: it has no attention.</p>`;
  const at = layers.length ? weight(layer, head) : null;
  const asked = looker ?? T - 1;
  return html`
    <${Prompt} rows="2" />
    <div class="buttons">
      <label><input type="checkbox" checked=${turned} onChange=${() => setTurned(!turned)} /> ask who looks at it</label>
      <label><input type="checkbox" checked=${withoutFirst} onChange=${() => setWithoutFirst(!withoutFirst)} /> leave the first token out</label>
      <label><input type="checkbox" checked=${byValues} onChange=${() => setByValues(!byValues)} /> times the length of the value</label>
    </div>
    ${at && html`
      <h2>layer ${layer}, head ${head}${labels?.labels[layer][head] ? `: ${labels.labels[layer][head]}` : ""}</h2>
      <p class="looked" aria-label="The text, tinted by attention">${texts.map((t, j) => {
        const w = turned ? (j >= asked ? at(j, asked) : 0) : j <= asked ? at(asked, j) : 0;
        return html`<span class=${j === asked ? "asked" : ""} tabindex="0" style=${`--share:${w}`} title=${probability(w)}
          onMouseEnter=${() => setLooker(j)} onFocus=${() => setLooker(j)}>${visible(t)}</span>`;
      })}</p>
      <p class="hint">${turned ? "Who looks at the outlined token, and how much." : "What the outlined token looks at. Move over the text to ask another."}</p>
      <${Heatmap} rows=${T} columns=${T} at=${at} size=${420} name=${`layer ${layer} head ${head}`}
        says=${(i, j) => `${visible(texts[i])} (${i}) takes ${probability(Math.max(0, at(i, j)))} from ${visible(texts[j])} (${j})`} />
      <details><summary>as a table</summary><table><thead><tr><th scope="col">from</th><th scope="col">weight</th></tr></thead>
        <tbody>${texts.slice(0, asked + 1).map((t, j) => html`<tr><th scope="row">${visible(t)} (${j})</th><td>${probability(at(asked, j))}</td></tr>`)}</tbody></table></details>
      <h2>all heads</h2>
      <div class="grid" style=${`--columns:${model.value.n_head}`}>
        ${layers.flatMap((_, l) => Array.from({ length: model.value.n_head }, (_, h) => html`
          <button class=${l === layer && h === head ? "cell chosen" : "cell"} aria-label=${`layer ${l} head ${h}`} onClick=${() => setChosen([l, h])}>
            <${Heatmap} rows=${T} columns=${T} at=${weight(l, h)} name=${`layer ${l} head ${h}`} size=${96} quiet=${true} />
            <small>${l}.${h} ${labels?.labels[l][h] ?? ""}</small></button>`))}
      </div>`}`;
}
