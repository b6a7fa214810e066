// Explain one attention weight: query times key, scaled, masked, softmax, and the value it takes. The model's numbers.
import { focusOn, html } from "./html.js";
import { useAnswer } from "./answer.js";
import { count, number, placed, probability, spoken, sum, visible } from "./format.js";
import { modelId, tokens } from "./state.js";
import { Picture } from "./picture.js";
import { Bar } from "./bars.js";
import { Behind } from "./behind.js";

/** @param {{layer: number, head: number, row: number, column: number, close: () => void}} props */
export function Cell({ layer, head, row, column, close }) {
  const { ids, texts } = tokens.value;
  const ask = { path: "/api/cell", body: { model: modelId.value, tokens: ids, layer, head, row, column } };
  const found = useAnswer("cell", ask);
  if (!found) return html`<section class="explained card"><p role="status">computing this cell ...</p></section>`;
  const [from, to] = [placed(texts[row], row), placed(texts[column], column)];
  const product = sum(found.products);
  const most = Math.max(...found.scores);
  const total = sum(found.exponentials);
  return html`<section class="explained card" aria-label="This cell, explained">
    <div class="buttons"><h2>layer ${layer}, head ${head}: what <b>${from}</b> takes from <b>${to}</b></h2><button class="quiet" onClick=${() => (close(), focusOn(".matrix canvas"))}>Close</button></div>
    <${Picture} name=${`layer ${layer} head ${head} cell ${row} ${column}`} ask=${ask}><ol>
      <li><h3>query · key</h3><p>What ${from} asks for, times what ${to} offers, number by number, and added up.</p>
        <${Strips} rows=${[["query of " + from, found.query], ["key of " + to, found.key], ["product", found.products]]} />
        <p class="sum">sum of ${found.width} products = <b>${number(product)}</b></p></li>
      <li><h3>scale</h3><p class="sum">${number(product)} ÷ √${found.width} = <b>${number(found.score)}</b></p></li>
      <li><h3>mask</h3><p>${found.masked ? html`The ${found.masked} position${found.masked === 1 ? "" : "s"} after ${from} ${found.masked === 1 ? "is" : "are"} set to −∞: no token looks into its future.` : html`${from} is the last token: nothing comes after it that would have to be masked.`}</p></li>
      <li><h3>softmax</h3><p class="sum">e<sup>${number(found.score)} − ${number(most)}</sup> = ${number(found.exponentials[column])}, of ${number(total)} in the whole row: <b>${probability(found.weight)}</b></p>
        <${Row} found=${found} texts=${texts} column=${column} /></li>
      <li><h3>weight × value</h3><p>So much of ${to}'s value goes into this head's output at ${from}.</p>
        <${Strips} rows=${[["value of " + to, found.value], [`× ${number(found.weight)}`, found.taken]]} /></li>
    </ol><//></section>`;
}

/** Vectors as strips of one scale each: warm is negative, cool positive; behind them a table. */
function Strips({ rows }) {
  const scale = rows.map(([, values]) => Math.max(1e-9, ...values.map(Math.abs)));
  return html`<div class="strips">${rows.map(([name, values], r) => html`<div><span>${name}</span><div class="strip" role="img" aria-label=${`${name}: ${values.length} numbers, in the table below`}>
      ${values.map((x, i) => html`<i class=${x < 0 ? "worse" : "better"} style=${`--share:${Math.abs(x) / scale[r]}`} title=${`${i}: ${number(x)}`}></i>`)}</div></div>`)}
    <${Behind} says="the numbers" columns=${["component", ...rows[0][1].map((_, i) => String(i))]} rows=${() => rows.map(([name, values]) => [name, ...values.map(number)])} /></div>`;
}

/** The row of scores that the softmax is over: the largest ones, and always the column asked for. */
function Row({ found, texts, column }) {
  const total = sum(found.exponentials);
  const order = found.scores.map((_, j) => j).sort((a, b) => found.scores[b] - found.scores[a]);
  const shown = new Set([...order.slice(0, 8), column]);
  const rest = order.filter((j) => !shown.has(j));
  const others = sum(rest.map((j) => found.exponentials[j]));
  return html`<div class="scroll"><table class="wider" aria-label="the scores that the softmax is over"><thead><tr><th scope="col">looks at</th><th scope="col">score</th><th scope="col" class="step">e^(score − largest)</th><th scope="col">weight</th><th scope="col" class="wide"><span class="hidden">bar</span></th></tr></thead>
    <tbody>${[...shown].map((j) => html`<tr class=${j === column ? "chosen" : ""}><th scope="row" aria-label=${`${spoken(visible(texts[j]))} ${j}`}><span class="token">${visible(texts[j])}</span> ${j}</th><td>${number(found.scores[j])}</td><td class="step">${number(found.exponentials[j])}</td>
      <td>${probability(found.exponentials[j] / total)}</td><td class="wide"><${Bar} value=${found.exponentials[j] / total} /></td></tr>`)}
    ${rest.length > 0 && html`<tr class="rest"><th scope="row">${count(rest.length, "other")}</th><td></td><td class="step">${number(others)}</td>
      <td>${probability(others / total)}</td><td></td></tr>`}</tbody></table></div>`;
}
