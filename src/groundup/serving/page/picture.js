// Pictures as files. What is on the screen is read from the page and written as SVG; PNG is that SVG, painted.
import { useRef } from "./vendor/hooks.js";
import { html } from "./html.js";
import { Copy } from "./share.js";
import { tell } from "./state.js";

const NS = "http://www.w3.org/2000/svg";
const CLEAR = /^(transparent|rgba\(0, 0, 0, 0\))$/;
const MARGIN = 12;
const SHAPE = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-family", "font-size", "font-weight", "text-anchor", "vector-effect", "opacity"];
/** How a canvas is drawn with lines and areas instead of pixels, where its owner says so. */
const vectors = new WeakMap();

/** @param {HTMLCanvasElement} canvas @param {() => {width: number, height: number, shapes: Element[]}} draw */
export const drawnAs = (canvas, draw) => vectors.set(canvas, draw);

/** One element of SVG. @param {string} name @param {Record<string, string | number>} attributes @param {string} [content] */
export function shape(name, attributes, content) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (content !== undefined) made.textContent = content;
  return made;
}

const round = (x) => Math.round(100 * x) / 100;

/** The lines of a text node, each with its place: a text may wrap. */
function lines(node) {
  const range = document.createRange();
  const found = [];
  range.selectNodeContents(node);
  if (range.getClientRects().length === 1) return [{ words: node.data, box: range.getBoundingClientRect() }];
  for (let i = 0; i < node.length; i++) {
    range.setStart(node, i);
    range.setEnd(node, i + 1);
    const box = range.getClientRects()[0];
    if (!box || !box.width) continue;
    const last = found.at(-1);
    if (last && Math.abs(last.box.top - box.top) < 2) last.words += node.data[i];
    else found.push({ words: node.data[i], box });
  }
  return found;
}

/** The border of an element: a box, or a line at each side that has one. */
function borders(style, { x, y, width, height }) {
  const [top, right, bottom, left] = ["Top", "Right", "Bottom", "Left"].map((side) => {
    const [kind, color, thick] = ["Style", "Color", "Width"].map((name) => style[`border${side}${name}`]);
    const seen = kind !== "none" && !CLEAR.test(color) ? parseFloat(thick) : 0;
    return seen && { stroke: color, "stroke-width": seen, "stroke-dasharray": { dashed: `${3 * seen}`, dotted: `${seen}` }[kind] ?? "" };
  });
  if (top && right && bottom && left) {
    const half = top["stroke-width"] / 2;
    return [shape("rect", { x: x + half, y: y + half, width: Math.max(0, width - 2 * half), height: Math.max(0, height - 2 * half), rx: parseFloat(style.borderRadius) || 0, fill: "none", ...top })];
  }
  const line = (side, x1, y1, x2, y2) => (side ? [shape("line", { x1, y1, x2, y2, ...side })] : []);
  const [beyond, below] = [x + width, y + height];
  return [...line(top, x, y, beyond, y), ...line(right, beyond, y, beyond, below), ...line(bottom, x, below, beyond, below), ...line(left, x, y, x, below)];
}

/** Everything below an element that can be seen, in the order it is painted. */
function shapesOf(element, left, top, into) {
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  if (style.display === "none" || style.visibility === "hidden" || element.matches(".hidden, details, figcaption, button.quiet, .no-picture")) return;
  const place = { x: round(box.left - left), y: round(box.top - top), width: round(box.width), height: round(box.height) };
  if (element instanceof SVGSVGElement) return void into.push(copied(element, place));
  if (element instanceof HTMLCanvasElement) return void into.push(...pixels(element, place));
  if (!CLEAR.test(style.backgroundColor) && box.width) into.push(shape("rect", { ...place, fill: style.backgroundColor, rx: parseFloat(style.borderRadius) || 0 }));
  into.push(...borders(style, place));
  const outline = style.outlineStyle !== "none" && !element.matches(":focus") ? parseFloat(style.outlineWidth) : 0;
  if (outline) into.push(shape("rect", { ...place, fill: "none", stroke: style.outlineColor, "stroke-width": outline }));
  for (const node of element.childNodes) {
    if (node instanceof Element) shapesOf(node, left, top, into);
    else if (node instanceof Text && node.data.trim()) {
      const size = parseFloat(style.fontSize);
      for (const { words, box } of lines(node)) {
        const y = round((box.top + box.bottom) / 2 - top + 0.35 * size);
        into.push(shape("text", { x: round(box.left - left), y, fill: style.color, "font-family": style.fontFamily, "font-size": size, "font-weight": style.fontWeight, "xml:space": "preserve" }, words.replace(/\s/g, " ")));
      }
    }
  }
}

/** A drawing of the page with its styles written into it. */
function copied(element, place) {
  const clone = element.cloneNode(true);
  const [from, to] = [element.querySelectorAll("*"), clone.querySelectorAll("*")];
  from.forEach((each, i) => {
    const style = getComputedStyle(each);
    for (const name of SHAPE) to[i].setAttribute(name, style.getPropertyValue(name));
  });
  for (const [name, value] of Object.entries(place)) clone.setAttribute(name, String(value));
  return clone;
}

function pixels(canvas, place) {
  const vector = vectors.get(canvas)?.();
  if (!vector) return [shape("image", { ...place, href: canvas.toDataURL(), preserveAspectRatio: "none" })];
  const group = shape("svg", { ...place, viewBox: `0 0 ${vector.width} ${vector.height}`, preserveAspectRatio: "none" });
  group.append(...vector.shapes);
  return [group];
}

/** @param {HTMLElement} element @returns {{source: string, width: number, height: number}} */
function svgOf(element) {
  const box = element.getBoundingClientRect();
  const scrolled = [...element.querySelectorAll(".scroll, .grid")];
  for (const each of scrolled) each.scrollLeft = 0;
  const width = Math.ceil(Math.max(box.width, ...scrolled.map((each) => each.scrollWidth))) + 2 * MARGIN;
  const height = Math.ceil(box.height) + 2 * MARGIN;
  const root = shape("svg", { xmlns: NS, width, height, viewBox: `0 0 ${width} ${height}` });
  const shapes = [shape("rect", { width, height, fill: getComputedStyle(document.documentElement).backgroundColor })];
  shapesOf(element, box.left - MARGIN, box.top - MARGIN, shapes);
  root.append(...shapes);
  return { source: new XMLSerializer().serializeToString(root), width, height };
}

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.@-]+/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const asAddress = (source) => `data:image/svg+xml;charset=utf-8,${encodeURIComponent(source)}`;

/** @param {HTMLElement} element @param {string} name */
const saveSvg = (element, name) => save(new Blob([svgOf(element).source], { type: "image/svg+xml" }), `${name}.svg`);

/** In twice the pixels of the page, so that it can be printed. @param {HTMLElement} element @param {string} name */
async function savePng(element, name) {
  const { source, width, height } = svgOf(element);
  const image = new Image();
  image.src = asAddress(source);
  try {
    await image.decode();
  } catch {
    return void tell("picture", "the browser cannot paint this picture; save it as SVG");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * width, 2 * height];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => save(blob, `${name}.png`));
}

/**
 * Something to look at, with buttons that save it, and that copy the request behind it.
 * @param {{name: string, ask?: {path: string, body?: object}, children: unknown}} props
 */
export function Picture({ name, ask, children }) {
  const place = useRef(null);
  return html`<div class="picture"><div ref=${place}>${children}</div><p class="files">
    <button class="quiet" aria-label=${`${name} as PNG`} onClick=${() => savePng(place.current, name)}>PNG</button>
    <button class="quiet" aria-label=${`${name} as SVG`} onClick=${() => saveSvg(place.current, name)}>SVG</button>${ask && html`<${Copy} ...${ask} quiet=${true} />`}</p></div>`;
}
