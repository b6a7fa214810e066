// What answers to the pointer in a report: the curve, the samples, the text. Without it the page still says everything.
const data = JSON.parse(document.getElementById("data").textContent);
const plot = document.querySelector(".plot");

/** The point of a line that is nearest to a share of the width. */
function nearest(points, share) {
  return points.reduce((best, point) => (Math.abs(point[0] - share) < Math.abs(best[0] - share) ? point : best));
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

/** Tint a text by how much one of its tokens takes from each, and say which one it is. */
const looks = document.querySelector(".looks");
if (looks) {
  const tokens = [...looks.children];
  const choose = (chosen) =>
    tokens.forEach((token, i) => {
      token.classList.toggle("chosen", i === chosen);
      token.style.background = `rgb(var(--look) / ${0.85 * Math.sqrt(data.attention[chosen][i] ?? 0)})`;
    });
  tokens.forEach((token, i) => ["pointerenter", "click"].forEach((kind) => token.addEventListener(kind, () => choose(i))));
  choose(tokens.length - 1);
}
