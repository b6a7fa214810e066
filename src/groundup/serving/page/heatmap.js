// A matrix as a picture: one canvas, a cursor for mouse and arrow keys, and a line that says what is under it.
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { savePng } from "./share.js";

/** One hue from the paper to the ink, so that dark means much in light and in dark mode. */
export function tint(share) {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).match(/[\d.]+/g).map(Number);
  const [paper, ink] = [read("--paper-rgb"), read("--ink-rgb")];
  const s = Math.max(0, Math.min(1, share));
  return paper.map((low, i) => Math.round(low + s * (ink[i] - low)));
}

/**
 * @param {{rows: number, columns: number, at: (row: number, column: number) => number, name: string,
 *   says: (row: number, column: number) => string, size?: number, pick?: (row: number, column: number) => void}} props
 */
export function Heatmap({ rows, columns, at, name, says, size = 320, pick, quiet = false, mark }) {
  const canvas = useRef(null);
  const [cursor, setCursor] = useState(null);
  useEffect(() => {
    const context = canvas.current.getContext("2d");
    const image = context.createImageData(columns, rows);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) image.data.set([...tint(at(r, c)), 255], 4 * (r * columns + c));
    }
    context.putImageData(image, 0, 0);
  });
  const over = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const row = Math.min(rows - 1, Math.floor(((event.clientY - box.top) / box.height) * rows));
    const column = Math.min(columns - 1, Math.floor(((event.clientX - box.left) / box.width) * columns));
    if (row >= 0 && column >= 0) setCursor([row, column]);
  };
  const key = (event) => {
    const [dr, dc] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (event.key === "Enter" && cursor && pick) pick(...cursor);
    if (dr === undefined) return;
    event.preventDefault();
    const [r, c] = cursor ?? [0, 0];
    setCursor([Math.max(0, Math.min(rows - 1, r + dr)), Math.max(0, Math.min(columns - 1, c + dc))]);
  };
  return html`<figure class="heatmap" style=${`max-width:${size}px`}>
    <canvas ref=${canvas} width=${columns} height=${rows} tabindex="0" role="img" aria-label=${name} class=${mark ? "marked" : ""}
      onMouseMove=${quiet ? undefined : over} onKeyDown=${key} onClick=${() => pick && pick(...(cursor ?? [0, 0]))}></canvas>
    ${!quiet && html`<figcaption aria-live="polite">${cursor ? says(...cursor) : name}</figcaption>
      <button class="quiet" onClick=${() => savePng(canvas.current, name)}>PNG</button>`}
  </figure>`;
}
