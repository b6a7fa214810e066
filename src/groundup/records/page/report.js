// What answers to the pointer and to keys in a report: the curve, the samples, the text, and the numbers behind them.
const data = JSON.parse(document.getElementById("data").textContent);
const plot = document.querySelector(".plot");

/** The point of a line that is nearest to a share of the width. */
function nearest(points, share) {
  return points.reduce((best, point) => (Math.abs(point[0] - share) < Math.abs(best[0] - share) ? point : best));
}

/** A token in letters that are seen, and heard. */
function named(text) {
  return { " ": "space", "\n": "line break", "\t": "tab" }[text] ?? text.replace(/ /g, "␣").replace(/\n/g, "↵");
}

/** The numbers behind a figure, written when somebody opens them: there may be hundreds. Returns what writes them anew. */
function behind(figure, columns, rows) {
  const details = document.createElement("details"), scroll = document.createElement("div");
  details.innerHTML = "<summary>as a table</summary>";
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  const line = (cells, head) => {
    const row = document.createElement("tr");
    for (const [i, cell] of cells.entries()) {
      const place = row.appendChild(document.createElement(head || !i ? "th" : "td"));
      if (head || !i) place.scope = head ? "col" : "row";
      place.textContent = cell;
    }
    return row;
  };
  const write = () => {
    if (!details.open) return;
    const table = document.createElement("table");
    table.append(line(columns(), true), ...rows().map((cells) => line(cells, false)));
    scroll.replaceChildren(table);
  };
  details.append(scroll);
  details.addEventListener("toggle", write);
  figure.after(details);
  return write;
}

/** Mark a place on the curve, and say what was measured there. */
function mark(share) {
  const here = plot.querySelector(".here"), says = plot.querySelector(".says");
  const shown = data.lines.map((line) => [line.name, nearest(line.points, share)]);
  const place = shown.reduce((best, point) => (Math.abs(point[1][0] - share) < Math.abs(best[1][0] - share) ? point : best))[1][0];
  here.hidden = says.hidden = false;
  here.style.left = says.style.left = `${100 * place}%`;
  says.style.transform = place > 0.6 ? "translateX(calc(-100% - .5rem))" : "translateX(.5rem)";
  says.textContent = shown
    .filter(([, point]) => Math.abs(point[0] - place) < 0.03)
    .map(([name, point]) => `${name} ${point[3].toFixed(3)}`)
    .join("\n");
}

function unmark() {
  plot.querySelector(".here").hidden = plot.querySelector(".says").hidden = true;
}

if (plot) {
  const point = (event) => {
    const box = plot.getBoundingClientRect();
    mark(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointermove", point);
  // A finger that is lifted leaves, too; what it asked for stays to be read.
  plot.addEventListener("pointerleave", (event) => event.pointerType === "touch" || unmark());
  const values = data.lines.map((line) => new Map(line.points.map((point) => [point[2], point[3].toFixed(3)])));
  const places = [...new Set(values.flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
  behind(
    plot.parentElement,
    () => ["tokens learned from", ...data.lines.map((line) => line.name)],
    () => places.map((x) => [x.toLocaleString("en"), ...values.map((line) => line.get(x) ?? "")]),
  );
}

/** What explains a word lies over the page, over the next "?" perhaps: a press beside it or Escape closes it. */
function closeTerms(event) {
  document.querySelectorAll(".term[open]").forEach((term) => (term.open = term.contains(event.target)));
}
document.addEventListener("click", closeTerms);
document.addEventListener("keydown", (event) => event.key === "Escape" && closeTerms({ target: null }));

const slider = document.querySelector("input[type=range]");
if (slider) {
  const samples = [...document.querySelectorAll(".sample")];
  slider.hidden = false;
  slider.addEventListener("input", () => {
    samples.forEach((sample, i) => (sample.hidden = i !== Number(slider.value)));
    const share = samples[slider.value].dataset.share;
    if (plot && share) mark(Number(share));
  });
}

const read = document.querySelector(".text:not(.looks)");
if (read) behind(read, () => ["token", "surprise"], () => [...read.children].map((token) => [named(token.textContent), token.title]));

const STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

/** Tint a text by how much one of its tokens takes from each, and say which one it is. One stop of the Tab key. */
const looks = document.querySelector(".looks");
if (looks) {
  const tokens = [...looks.children], last = tokens.length - 1;
  const weight = (i) => `${(100 * (data.attention[asked][i] ?? 0)).toFixed(1)}%`;
  let asked = last;
  const write = behind(
    looks,
    () => ["token", `what ${named(tokens[asked].textContent)} (${asked + 1}) takes from it`],
    () => tokens.slice(0, asked + 1).map((token, i) => [`${named(token.textContent)} (${i + 1})`, weight(i)]),
  );
  const choose = (chosen) => {
    asked = chosen;
    tokens.forEach((token, i) => {
      token.classList.toggle("chosen", i === chosen);
      token.style.background = `rgb(var(--look) / ${0.85 * Math.sqrt(data.attention[chosen][i] ?? 0)})`;
      token.tabIndex = i === chosen ? 0 : -1;
      token.setAttribute("aria-selected", i === chosen);
      token.setAttribute("aria-label", `${named(token.textContent)}: ${weight(i)}`);
    });
    write();
  };
  looks.setAttribute("role", "listbox");
  looks.setAttribute("aria-orientation", "horizontal");
  looks.setAttribute("aria-label", "The text, tinted by attention");
  tokens.forEach((token, i) => {
    token.setAttribute("role", "option");
    ["pointerenter", "click", "focus"].forEach((kind) => token.addEventListener(kind, () => choose(i)));
  });
  looks.addEventListener("keydown", (event) => {
    if (!STEPS[event.key]) return;
    event.preventDefault();
    tokens[Math.max(0, Math.min(last, asked + STEPS[event.key]))].focus();
  });
  choose(last);
}
