// Curves against steps: uPlot on the screen, lines in the saved picture.
import { useEffect, useRef } from "./vendor/hooks.js";
import { html } from "./html.js";
import uPlot from "./vendor/uplot.js";
import { Picture, drawnAs, shape } from "./picture.js";
import { shade } from "./state.js";

/** @typedef {{name: string, color: string, width: number, dash?: number[], points?: boolean, rows: [number, number][],
 *   beside?: boolean}} Curve color: a property of the style sheet; beside: another curve of its color stands in the legend */

/** The columns of uPlot: all steps, and for each curve its value there. @param {Curve[]} curves @param {boolean} log */
function columns(curves, log) {
  const steps = [...new Set(curves.flatMap(({ rows }) => rows.map(([step]) => step)))].filter((step) => step > 0 || !log).sort((a, b) => a - b);
  return [steps, ...curves.map(({ rows }) => {
    const known = new Map(rows);
    return steps.map((step) => known.get(step) ?? null);
  })];
}

/** What a logarithmic axis shows: the steps there are, and not up to the next power of ten. */
const whole = (_, low, high) => (low < high ? [low, high] : [low / 2, low * 2]);

const read = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** What is on the canvas of a chart as lines, in the pixels of the page. */
function lines(chart, curves) {
  const scale = devicePixelRatio;
  const [width, height] = [chart.ctx.canvas.width / scale, chart.ctx.canvas.height / scale];
  const { left, top, width: w, height: h } = Object.fromEntries(Object.entries(chart.bbox).map(([name, x]) => [name, x / scale]));
  const ink = { fill: read("--ink"), "font-family": "system-ui, sans-serif", "font-size": 12 };
  const shapes = [shape("text", { ...ink, x: left + w / 2, y: height - 4, "text-anchor": "middle" }, chart.axes[0].label), shape("text", { ...ink, x: 12, y: top + h / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${top + h / 2})` }, chart.axes[1].label)];
  for (const [axis, scaleName] of [[0, "x"], [1, "y"]]) {
    (chart.axes[axis]._splits ?? []).forEach((value, i) => {
      const at = chart.valToPos(value, scaleName) + (axis ? top : left);
      const ends = axis ? { x1: left, x2: left + w, y1: at, y2: at } : { x1: at, x2: at, y1: top, y2: top + h };
      shapes.push(shape("line", { ...ends, stroke: read("--card") }));
      const place = axis ? { x: left - 8, y: at + 4, "text-anchor": "end" } : { x: at, y: top + h + 18, "text-anchor": "middle" };
      shapes.push(shape("text", { ...ink, ...place }, String(chart.axes[axis]._values?.[i] ?? "")));
    });
  }
  curves.forEach(({ color, width: stroke, dash, points }, i) => {
    const [values, dot] = [chart.data[i + 1], chart.series[i + 1].points];
    const places = chart.data[0].flatMap((step, k) => (values[k] === null ? [] : [[left + chart.valToPos(step, "x"), top + chart.valToPos(values[k], "y")].map((x) => x.toFixed(1))]));
    shapes.push(shape("polyline", { points: places.join(" "), fill: "none", stroke: read(color), "stroke-width": stroke, "stroke-dasharray": (dash ?? []).join(" ") }));
    if (points) shapes.push(...places.map(([cx, cy]) => shape("circle", { cx, cy, r: (dot.size - dot.width) / 2, fill: read("--paper"), stroke: read(color), "stroke-width": dot.width })));
  });
  return { width, height, shapes };
}

/** @param {{curves: Curve[], log: boolean, name: string, label: string, ask?: object}} props */
export function Chart({ curves, log, name, label, ask }) {
  const place = useRef(null);
  const chart = useRef(null);
  const kind = JSON.stringify([log, shade.value, curves.map(({ name, color, points, beside }) => [name, color, points, beside])]);
  useEffect(() => {
    const axis = { stroke: read("--ink"), grid: { stroke: read("--card"), width: 1 }, ticks: { stroke: read("--card") } };
    const series = [{ label: "step" }, ...curves.map(({ name, color, width, dash, points, beside }) => ({ label: name, class: beside ? "beside" : null, stroke: read(color), width, dash, spanGaps: true, points: { show: Boolean(points), fill: read("--paper") } }))];
    const size = () => ({ width: place.current.clientWidth, height: Math.min(380, Math.max(240, place.current.clientWidth * 0.6)) });
    const made = new uPlot({ ...size(), scales: { x: { time: false, distr: log ? 3 : 1, ...(log && { range: whole }) } }, axes: [{ ...axis, label: "step" }, { ...axis, label }], series }, columns(curves, log), place.current);
    chart.current = made;
    made.root.querySelector(".u-legend")?.setAttribute("aria-hidden", "true"); // the tables below tell more
    drawnAs(made.ctx.canvas, () => lines(made, curves));
    const watch = new ResizeObserver(() => place.current && made.setSize(size()));
    watch.observe(place.current);
    return () => (watch.disconnect(), made.destroy(), (chart.current = null));
  }, [kind]);
  useEffect(() => chart.current?.setData(columns(curves, log)), [curves]);
  return html`<${Picture} name=${name} ask=${ask}><div ref=${place} class="chart" role="img" aria-label=${`${name}: ${label} against steps; the tables below have the numbers`}></div><//>`;
}
