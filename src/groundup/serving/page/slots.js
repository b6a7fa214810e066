// Slots as lanes: which text each slot reads or writes, tick by tick of the engine.
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { get, post } from "./api.js";
import { count, number, sum } from "./format.js";
import { attempt, completion, model, modelId, shade, tokens } from "./state.js";
import { useLook } from "./answer.js";
import { Bar } from "./bars.js";
import { Picture, drawnAs, shape } from "./picture.js";
import { Prompt } from "./prompt.js";

const EVERY = 300;
const [TICK, LANE, BESIDE] = [5, 18, 26];
const COLORS = 6;
const KEPT = 512;
const TEXTS = 6;
/** Ticks that the speed is measured over. */
const RECENT = 24;

/**
 * A tick of the engine: number, start and length in seconds, and a lane for every slot that was busy:
 * slot, request, choice, first position that was read, tokens read.
 * @typedef {[number, number, number, [number, number, number, number, number][]]} Round
 */

/** Of a model; for another one the view is drawn anew. @returns {{n_slots: number, waiting: number, rounds: Round[]} | null} */
function useRounds(id) {
  const [found, setFound] = useState(null);
  const last = useRef(0);
  const look = async () => {
    const told = await attempt("slots", () => get("/api/slots", { model: id, after: last.current }));
    if (!told) return;
    last.current = told.rounds.at(-1)?.[0] ?? last.current;
    setFound((all) => ({ ...told, rounds: [...(all?.rounds ?? []), ...told.rounds].slice(-KEPT) }));
  };
  useLook(look, EVERY);
  return found;
}

/** Areas of the picture: a lane per slot, a column per tick. @param {Round[]} rounds */
function areas(rounds, width) {
  const shown = rounds.slice(-Math.floor((width - BESIDE) / TICK));
  return shown.flatMap(([, , , lanes], i) => lanes.map(([slot, request, , , n]) => {
    const height = n > 1 ? LANE - 4 : n === 1 ? 7 : 2; // a piece of a prompt, one token, waiting
    return { x: BESIDE + i * TICK, y: slot * LANE + (LANE - height) / 2, width: TICK - 1, height, color: `--run-${request % COLORS}` };
  }));
}

function Lanes({ rounds, n }) {
  const canvas = useRef(null);
  const [width, setWidth] = useState(600);
  const height = n * LANE;
  useEffect(() => {
    const watch = new ResizeObserver(() => setWidth(Math.max(200, canvas.current.parentElement.clientWidth)));
    watch.observe(canvas.current.parentElement);
    return () => watch.disconnect();
  }, []);
  useEffect(() => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    const found = areas(rounds, width).map((area) => ({ ...area, fill: read(area.color) }));
    const rules = Array.from({ length: n }, (_, slot) => ({ x: BESIDE, y: (slot + 1) * LANE - 1, width: width - BESIDE, height: 1, fill: read("--card") }));
    const words = Array.from({ length: n }, (_, slot) => [String(slot), 4, slot * LANE + 13]);
    const context = canvas.current.getContext("2d");
    const scale = devicePixelRatio;
    [canvas.current.width, canvas.current.height] = [width * scale, height * scale];
    context.scale(scale, scale);
    for (const { x, y, width, height, fill } of [...rules, ...found]) {
      context.fillStyle = fill;
      context.fillRect(x, y, width, height);
    }
    context.fillStyle = read("--soft");
    context.font = "12px system-ui, sans-serif";
    for (const [text, x, y] of words) context.fillText(text, x, y);
    const shapes = () => [
      ...[...rules, ...found].map(({ x, y, width, height, fill }) => shape("rect", { x, y, width, height, fill })),
      ...words.map(([text, x, y]) => shape("text", { x, y, fill: read("--soft"), "font-family": "system-ui, sans-serif", "font-size": 12 }, text)),
    ];
    drawnAs(canvas.current, () => ({ width, height, shapes: shapes() }));
  }, [rounds, width, n, shade.value]);
  return html`<div class="lanes"><canvas ref=${canvas} style=${`height:${height}px`} role="img" aria-label="Lanes of the slots; the table below tells what each did last"></canvas><small>one column per tick, the newest on the right</small></div>`;
}

export function Slots() {
  const found = useRounds(modelId.value);
  const ids = tokens.value.ids;
  const send = () => {
    for (let i = 0; i < TEXTS; i++) {
      const prompt = ids.slice(0, Math.max(1, Math.ceil((ids.length * (TEXTS - i)) / TEXTS)));
      const room = Math.max(1, model.value.context - prompt.length);
      attempt(`text ${i}`, () => post("/v1/completions", completion({ prompt, max_tokens: Math.min(room, 16 + 12 * i), seed: i })), { once: true });
    }
  };
  if (!found) return html`<p>Looking at the slots ...</p>`;
  const recent = found.rounds.slice(-RECENT);
  const read = sum(recent.flatMap(([, , , lanes]) => lanes.map((lane) => lane[4])));
  const seconds = sum(recent.map((round) => round[2]));
  const last = new Map(found.rounds.flatMap(([n, , , lanes]) => lanes.map((lane) => [lane[0], { n, lane }])));
  return html`
    <${Prompt} rows="2" />
    <p>A slot holds the keys and values of one text. All texts that are written share each pass through the model.</p>
    <div class="buttons"><button class="main" disabled=${!ids.length} onClick=${send}>Send ${TEXTS} texts of different lengths</button>
      <span class="numbers">${seconds > 0 ? html`<b>${number(Math.round(read / seconds))}</b> tokens per second in the last ${count(recent.length, "tick")}` : ""}${found.waiting ? ` · ${found.waiting} waiting for a slot` : ""}</span></div>
    <${Picture} name=${`slots of ${modelId.value}`} ask=${{ path: `/api/slots?model=${encodeURIComponent(modelId.value)}` }}><${Lanes} rounds=${found.rounds} n=${found.n_slots} /><//>
    <p class="hint">Tall: a piece of a prompt is read at once. Low: one token of a text that is being written. A color is a request; what a prompt shares with an earlier text is not read again.</p>
    ${last.size === 0 ? html`<p class="hint">Nothing was read since the server started.</p>` : html`<div class="scroll"><table class="slots"><caption>What each slot did last.</caption><thead><tr><th scope="col">slot</th><th scope="col">request</th><th scope="col">read</th><th scope="col">filled</th><th scope="col" class="wide"><span class="hidden">bar</span></th></tr></thead>
      <tbody>${[...last].sort((a, b) => a[0] - b[0]).map(([slot, { lane }]) => html`<tr><th scope="row">${slot}</th><td>${lane[1]}.${lane[2]}</td><td>${count(lane[4], "token")}</td>
        <td>${lane[3] + lane[4]} of ${model.value.context}</td><td class="wide"><${Bar} value=${(lane[3] + lane[4]) / model.value.context} /></td></tr>`)}</tbody></table></div>`}`;
}
