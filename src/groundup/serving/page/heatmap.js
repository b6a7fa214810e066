// A matrix as a picture: one canvas, a cursor for mouse and arrow keys, and a line that says what is under it.
import { useEffect, useRef, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { Behind } from "./behind.js";
import { probability } from "./format.js";
import { Picture, drawnAs, shape } from "./picture.js";
import { shade } from "./state.js";

/** One hue from the paper to the ink in 256 steps, by their square roots: most weights are small, and are to be seen. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).match(/[\d.]+/g).map(Number);
  const [paper, ink] = [read("--paper-rgb"), read("--ink-rgb")];
  return Array.from({ length: 256 }, (_, i) => [...paper.map((low, k) => Math.round(low + Math.sqrt(i / 255) * (ink[k] - low))), 255]);
}

/** Pixels as areas: neighbors of one color in a row are one. @param {ImageData} image @returns {Element[]} */
function areas({ data, width, height }) {
  const found = [];
  const color = (x, y) => `rgb(${data[4 * (y * width + x)]} ${data[4 * (y * width + x) + 1]} ${data[4 * (y * width + x) + 2]})`;
  for (let y = 0; y < height; y++) {
    for (let x = 0, end; x < width; x = end) {
      const fill = color(x, y);
      for (end = x + 1; end < width && color(end, y) === fill; ) end++;
      found.push(shape("rect", { x, y, width: end - x, height: 1, fill }));
    }
  }
  return found;
}

/**
 * @param {{rows: number, columns: number, at: (row: number, column: number) => number, name: string, seen: unknown[],
 *   says: (row: number, column: number) => string, tokens: string[], size?: number, pick?: (row: number, column: number) => void,
 *   spot?: [number, number] | null, quiet?: boolean}} props seen: what `at` depends on; tokens: names of rows and columns;
 *   spot: the cell that is chosen; quiet: only to look at
 */
export function Heatmap({ rows, columns, at, name, says, seen, tokens, size = 320, pick, spot, quiet = false }) {
  const canvas = useRef(null);
  const [cursor, setCursor] = useState(null);
  useEffect(() => {
    const context = canvas.current.getContext("2d");
    const image = context.createImageData(columns, rows);
    const colors = new Uint32Array(Uint8Array.from(palette().flat()).buffer); // a pixel at a time: there may be millions
    const pixels = new Uint32Array(image.data.buffer);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) pixels[r * columns + c] = colors[Math.round(255 * Math.max(0, Math.min(1, at(r, c))))];
    }
    context.putImageData(image, 0, 0);
    drawnAs(canvas.current, () => ({ width: columns, height: rows, shapes: areas(image) }));
  }, [rows, columns, shade.value, ...seen]);
  const under = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const row = Math.min(rows - 1, Math.floor(((event.clientY - box.top) / box.height) * rows));
    const column = Math.min(columns - 1, Math.floor(((event.clientX - box.left) / box.width) * columns));
    return [Math.max(0, row), Math.max(0, column)];
  };
  const key = (event) => {
    const [dr, dc] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (event.key === "Enter" && cursor && pick) pick(...cursor);
    if (dr === undefined) return;
    event.preventDefault();
    const [r, c] = cursor ?? spot ?? [0, 0];
    setCursor([Math.max(0, Math.min(rows - 1, r + dr)), Math.max(0, Math.min(columns - 1, c + dc))]);
  };
  const box = (place, kind) => place && place[0] < rows && place[1] < columns && html`<i class=${kind} style=${`top:${(100 * place[0]) / rows}%;left:${(100 * place[1]) / columns}%;width:${100 / columns}%;height:${100 / rows}%`}></i>`;
  const cells = html`<div class="cells"><canvas ref=${canvas} width=${columns} height=${rows} tabindex=${quiet ? undefined : 0} role="img" aria-label=${name} class=${pick ? "pickable" : ""}
      onMouseMove=${quiet ? undefined : (event) => setCursor(under(event))} onKeyDown=${quiet ? undefined : key} onClick=${pick && ((event) => pick(...under(event)))}></canvas>
      ${box(spot, "spot")}${!quiet && box(cursor, "cursor no-picture")}</div>`;
  if (quiet) return html`<figure class="heatmap" style=${`max-width:${size}px`}>${cells}</figure>`;
  return html`<figure class="heatmap" style=${`max-width:${size}px`}>
    <${Picture} name=${name}>${cells}<//>
    <figcaption aria-live="polite">${cursor && cursor[0] < rows && cursor[1] < columns ? says(...cursor) : name}</figcaption>
    <${Behind} columns=${["looks at", ...tokens]} rows=${() => tokens.map((token, r) => [token, ...tokens.map((_, c) => (c > r ? "" : probability(at(r, c))))])} />
  </figure>`;
}
