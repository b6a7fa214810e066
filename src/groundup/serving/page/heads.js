// Switch heads and MLPs off, and see what the model can no longer do.
import { useEffect, useState } from "./vendor/hooks.js";
import { able, html } from "./html.js";
import { useAnswer } from "./answer.js";
import { post } from "./api.js";
import { mean, number, placeOf, placed, probability, spoken, visible } from "./format.js";
import { attempt, model, modelId, named, problems, saved, seed, settings, tokens } from "./state.js";
import { Behind } from "./behind.js";
import { Said } from "./likely.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";
import { Tinted } from "./tinted.js";

/** Nats of change that are tinted in full. */
const FULL = 3;

export function Heads() {
  const [asked, setAsked] = saved("off", "");
  const [instead, setInstead] = saved("instead", "mean");
  const [pointed, setAt] = saved("at", "");
  const [growth, setGrowth] = useState(null);
  const [writing, setWriting] = saved("writing", "");
  const ids = tokens.value.ids;
  const m = model.value;
  const known = (part) => {
    const [layer, which] = part.split(".");
    return Number(layer) < m.n_layer && (which === "mlp" || Number(which) < m.n_head);
  };
  const off = new Set(asked.split(",").filter(known));
  const setOff = (parts) => setAsked([...parts].join(","));
  const body = {
    model: modelId.value,
    tokens: ids,
    heads: [...off].filter((x) => !x.endsWith("mlp")).map((x) => x.split(".").map(Number)),
    mlps: [...off].filter((x) => x.endsWith("mlp")).map((x) => Number(x.split(".")[0])),
    instead,
  };
  const askLoss = { path: "/api/ablation", body };
  const found = useAnswer("ablation", ids.length > 1 && m.n_layer && askLoss, { of: ids });
  useEffect(() => setGrowth(null), [ids, instead]);
  const askText = { path: "/api/writing", body: { ...body, seed: seed.value, temperature: settings.value.temperature } };
  const writes = Boolean(writing && off.size && ids.length && m.n_layer);
  const written = useAnswer("writing", writes && askText);
  if (!m.n_layer) return html`<p>This model is a table of pairs: there is nothing to switch off.</p>`;
  const headsOf = (l) => Array.from({ length: m.n_head }, (_, h) => `${l}.${h}`);
  const heads = Array.from({ length: m.n_layer }, (_, l) => headsOf(l)).flat();
  /** Switch parts off, or on where all of them are off. */
  const toggle = (...names) => {
    const on = names.every((name) => off.has(name));
    setOff([...[...off].filter((name) => !names.includes(name)), ...(on ? [] : names)]);
  };
  const others = () => setOff([...[...off].filter((x) => x.endsWith("mlp")), ...heads.filter((x) => !off.has(x))]);
  const measure = () => attempt("importance", async (signal) => {
    const rows = [];
    for (let layer = 0; layer < m.n_layer; layer++) {
      rows.push(...(await post("/api/importance", { model: modelId.value, tokens: ids, instead, layer }, signal)).growth);
      if (!signal.aborted) setGrowth([...rows]);
    }
  }, { once: true });
  const texts = tokens.value.texts;
  const at = (found && placeOf(pointed, ids.length)) ?? -1;
  const changes = found ? found.whole.loss.map((loss, i) => found.without.loss[i] - loss) : [];
  const most = growth ? Math.max(1e-9, ...growth.flat().map(Math.abs)) : 1;
  return html`
    <${Prompt} rows="2" />
    <div class="buttons">
      <button ...${able(off.size, () => setOff([]))}>All on</button>
      <button ...${able(heads.some((x) => off.has(x)), others)}>The other heads off</button>
      <button ...${able(ids.length > 1, measure)}>Which heads matter?</button>
      <button ...${able(off.size, () => setWriting(writing ? "" : "1"))}>${writing ? "Write no more" : "Write on without them"}</button>
      <span role="status">${growth && growth.length < m.n_layer ? `layer ${growth.length} of ${m.n_layer}` : writes && !written && !problems.value.writing ? "writing ..." : ""}</span>
      <label>instead of its output <select value=${instead} onChange=${(e) => setInstead(e.target.value)}><option value="mean">its mean over the text</option><option value="zero">nothing</option></select></label>
    </div>
    <${Picture} name="heads and their loss" ask=${{ path: "/api/importance", body: { model: modelId.value, tokens: ids, instead } }}><div class="grid switches" style=${`--columns:${m.n_head + 1}`}>
      ${Array.from({ length: m.n_layer }, (_, l) => [
        html`<button aria-pressed=${![...headsOf(l), `${l}.mlp`].every((x) => off.has(x))} class="layer" onClick=${() => toggle(...headsOf(l), `${l}.mlp`)}>layer ${l}</button>`,
        ...Array.from({ length: m.n_head }, (_, h) => {
          const name = `${l}.${h}`;
          return html`<button aria-pressed=${!off.has(name)} class=${off.has(name) ? "off" : ""} style=${growth?.[l] ? `--share:${Math.max(0, growth[l][h] / most)}` : ""} onClick=${() => toggle(name)}>head ${name}${growth?.[l] ? html` <small title=${number(growth[l][h])}>${growth[l][h] >= 0 ? "+" : "−"}${Math.abs(growth[l][h]).toFixed(3)}</small>` : ""}</button>`;
        }),
        html`<button aria-pressed=${!off.has(`${l}.mlp`)} class=${off.has(`${l}.mlp`) ? "off mlp" : "mlp"} onClick=${() => toggle(`${l}.mlp`)}>MLP ${l}</button>`,
      ])}
    </div><//>
    ${ids.length < 2 && html`<p class="hint">The loss needs a text of two tokens or more.</p>`}
    ${written && html`<${Picture} name="text without these parts" ask=${askText}><div class="samples">
      <section><h3>all parts</h3><pre>${written.whole}</pre></section><section><h3>without these parts</h3><pre>${written.without}</pre></section></div><//>`}
    ${found && html`
      <p class="numbers">loss <b>${number(mean(found.whole.loss))}</b> with all parts${off.size ? html`, <b>${number(mean(found.without.loss))}</b> without ${off.size} of them (${mean(changes) > 0 ? "+" : ""}${number(mean(changes))} nats per token)` : html`. Press a head or an MLP to switch it off.`}</p>
      <${Picture} name="loss without these parts" ask=${askLoss}><${Tinted} name="The text, tinted by the change of its loss" at=${at} pick=${setAt} tokens=${texts.map((text, t) => {
        const change = t ? changes[t - 1] : 0;
        return { text, kind: change > 0 ? "worse" : "better", share: Math.min(1, Math.abs(change) / FULL), says: t ? `${number(found.whole.loss[t - 1])} nats, without these parts ${number(found.without.loss[t - 1])}` : "given" };
      })} /><//>
      ${at > 0 && html`<p class="hint"><${Said} token=${texts[at]} /> (${at}): ${number(found.whole.loss[at - 1])} nats, without these parts ${number(found.without.loss[at - 1])}</p>`}
      <${Behind} columns=${["token", "loss", "without these parts", "change"]} rows=${() => changes.map((change, t) => [placed(texts[t + 1], t + 1), number(found.whole.loss[t]), number(found.without.loss[t]), number(change)])} />
      <div class="scroll"><table class="next"><caption>what comes next</caption><thead><tr><th scope="col">all parts</th><th scope="col">probability</th><th scope="col">without</th><th scope="col">probability</th></tr></thead>
        <tbody>${found.whole.top.slice(0, 6).map((id, i) => html`<tr><th scope="row" aria-label=${spoken(visible(named(id)))}>${visible(named(id))}</th><td>${probability(found.whole.probability[i])}</td>
          <th scope="row" aria-label=${spoken(visible(named(found.without.top[i])))}>${visible(named(found.without.top[i]))}</th><td>${probability(found.without.probability[i])}</td></tr>`)}</tbody></table></div>`}`;
}
