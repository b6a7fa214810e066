// Two models side by side: two kept steps of a run, two runs, or two that are served. One text, one seed.
import { html } from "./html.js";
import { useAnswer } from "./answer.js";
import { bytes, post } from "./api.js";
import { mean, number, placeOf, placed, probability, spoken, visible } from "./format.js";
import { largest, softmax } from "./sampling.js";
import { completion, model, modelId, named, onwardBy, parts, saved, text, tokens } from "./state.js";
import { Bar } from "./bars.js";
import { Behind } from "./behind.js";
import { Heatmap } from "./heatmap.js";
import { Said } from "./likely.js";
import { Picker, useSteps } from "./picker.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";
import { Tinted } from "./tinted.js";

const ROWS = 10;
const LENGTH = 120;
/** Nats of difference that are tinted in full. */
const FULL = 3;

export function Compare() {
  const { run, step } = parts(modelId.value);
  const steps = useSteps(run) ?? [];
  const [asked, pick] = saved("other", "");
  const earlier = steps.filter((each) => String(each) !== step);
  const other = asked || (earlier.length ? `${run}@${earlier[0]}` : "");
  return html`
    <${Prompt} rows="2" />
    <div class="buttons"><b>${modelId.value}</b> beside <${Picker} id=${other || modelId.value} pick=${pick} label="other model" /></div>
    ${!other || other === modelId.value ? html`<p class="hint">Choose another model, or another step of this one. A run keeps steps with <code>--checkpoint.growth</code>.</p>`
      : tokens.value.ids.length > 0 && html`<${Beside} left=${modelId.value} right=${other} />`}`;
}

function Beside({ left, right }) {
  const { ids, texts } = tokens.value;
  const [at, setAt] = saved("at", "");
  const ask = { path: "/api/compare", body: { model: left, other: right, tokens: ids } };
  const found = useAnswer("compare", ids.length > 1 && ask);
  const place = placeOf(at, ids.length) ?? ids.length - 1;
  const widest = found ? Math.max(1e-9, ...found.divergence) : 1;
  return html`
    ${found && html`
      <p class="numbers"><b>${number(mean(found.loss))}</b> nats per token: ${left} · <b>${number(mean(found.other_loss))}</b>: ${right}</p>
      <${Picture} name=${`${left} beside ${right}`} ask=${ask}>
      <${Tinted} name="The text, tinted by the difference of the losses" at=${place} pick=${setAt} tokens=${texts.map((text, i) => {
        const change = i ? found.difference[i - 1] : 0;
        return { text, kind: change > 0 ? "better" : "worse", share: Math.min(1, Math.abs(change) / FULL), says: i ? `${number(found.loss[i - 1])} and ${number(found.other_loss[i - 1])} nats` : "given" };
      })} />
      <${Tinted} name="The text, tinted by how far the two distributions are apart" at=${place} pick=${setAt} tokens=${texts.map((text, i) => ({ text, share: found.divergence[i] / widest, says: `${number(found.divergence[i])} nats apart` }))} />
      <//>
      <p class="hint">Above: cool tokens were more expected by ${left}, warm ones by ${right}. Below: how far their next-token distributions are apart after each token (Kullback–Leibler, at most ${number(widest)} nats). Point at a token to see both.</p>
      <${Behind} columns=${["token", `loss: ${left}`, right, "difference", "apart after it"]} rows=${() => texts.map((t, i) => [placed(t, i), ...(i ? [found.loss, found.other_loss, found.difference].map((values) => number(values[i - 1])) : ["", "", ""]), number(found.divergence[i])])} />`}
    <${Expected} left=${left} right=${right} place=${place} />
    <div class="columns even"><${Written} id=${left} side="left" /><${Written} id=${right} side="right" /></div>
    ${found && model.value.n_layer > 0 && html`<${Heads} left=${left} right=${right} />`}`;
}

/** What both expect after a token. */
function Expected({ left, right, place }) {
  const { ids, texts } = tokens.value;
  const before = ids.slice(0, place + 1);
  const ask = (id, signal) => bytes("/api/logits", { model: id, tokens: before }, signal).then((raw) => softmax(new Float32Array(raw)));
  const both = useAnswer("expected", before.length > 0 && [left, right, before], { work: async (signal) => [await ask(left, signal), await ask(right, signal)] });
  if (!both || both[0].length !== both[1].length) return null;
  const rows = largest(both[0].map((p, id) => Math.max(p, both[1][id])), ROWS);
  const most = Math.max(...rows.map((id) => Math.max(both[0][id], both[1][id])));
  return html`<h2>after <${Said} token=${texts[place]} /> (${place}) they expect</h2>
    <div class="scroll"><table class="wider" aria-label="probability of the next token under both"><thead><tr><th scope="col">token</th><th scope="col">${left}</th><th scope="col" class="half"><span class="hidden">bar</span></th><th scope="col">${right}</th><th scope="col" class="half"><span class="hidden">bar</span></th></tr></thead>
      <tbody>${rows.map((id) => html`<tr key=${id}><th scope="row" aria-label=${spoken(visible(named(id)))}><span class="token">${visible(named(id))}</span></th>${both.map((p) => html`<td class="figure">${probability(p[id])}</td><td class="half"><${Bar} value=${p[id] / most} /></td>`)}</tr>`)}</tbody></table></div>`;
}

function Written({ id, side }) {
  const body = completion({ model: id });
  const found = useAnswer(`written ${side}`, body, { work: async (signal) => post("/v1/completions", { ...body, ...(await onwardBy(id, LENGTH, signal)) }, signal) });
  return html`<section><h2>${id} writes</h2><pre class="sample growing"><span class="given">${text.value}</span>${found ? found.choices[0].text : " ..."}</pre></section>`;
}

/** One head, left and right. */
function Heads({ left, right }) {
  const [asked, pick] = saved("head", "0.0");
  const { ids, texts } = tokens.value;
  const [layer, head] = asked.split(".").map((x) => Number(x) || 0);
  const heads = Array.from({ length: model.value.n_layer * model.value.n_head }, (_, i) => `${Math.floor(i / model.value.n_head)}.${i % model.value.n_head}`);
  const T = ids.length;
  const ask = async (id, signal) => {
    const raw = await bytes("/api/attention", { model: id, tokens: ids, layer }, signal);
    const n = raw.byteLength / (2 * T * T + 4 * T); // heads: uint16 (H, T, T), then float32 (H, T)
    if (head >= n) throw new Error(`${id} has heads 0 to ${n - 1}, asked for ${head}`);
    return new Uint16Array(raw, 2 * head * T * T, T * T);
  };
  const both = useAnswer("both heads", T > 0 && [left, right, ids, layer, head], { work: async (signal) => [await ask(left, signal), await ask(right, signal)] });
  return html`<h2><label>head <select value=${asked} onChange=${(e) => pick(e.target.value)}>${heads.map((name) => html`<option>${name}</option>`)}</select></label> of both</h2>
    ${both && html`<p class="hint">Rows look at columns; the shade is the square root of the weight.</p><div class="columns even">${[left, right].map((id, i) => html`<${Heatmap} rows=${T} columns=${T} at=${(r, c) => both[i][r * T + c] / 65535} seen=${[both]} size=${420} name=${`${id}, layer ${layer} head ${head}`} tokens=${texts.map(placed)}
      says=${(r, c) => `${placed(texts[r], r)} takes ${probability(both[i][r * T + c] / 65535)} from ${placed(texts[c], c)}`} />`)}</div>`}`;
}
