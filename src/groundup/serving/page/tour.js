// A tour of eight stops, each "do this, look there"; it notices when it was done.
import { useEffect, useState } from "./vendor/hooks.js";
import { focusOn, html } from "./html.js";
import { saved, seed, settings, tab, text } from "./state.js";

/** What to do, the view where it is done, and what of the page changes by it. @type {[string, string, () => unknown][]} */
const STOPS = [
  ["Press “One token” a few times. The model says how likely every token is; one is drawn.", "write", () => text.value],
  ["Press “Draw again”: only the needle on the ruler moves. The model has not changed its mind.", "write", () => seed.value],
  ["Pull the temperature to 0. Now the likeliest token is always taken, and the text soon goes in circles.", "write", () => settings.value.temperature],
  ["Open “Surprise” and paste a line of your own. Dark tokens cost many bits.", "surprise", () => text.value],
  ["Open “Attention” and click a cell of the matrix: query, key, softmax and value, in the model’s own numbers.", "attention", () => saved("cell", "")[0]],
  ["Open “Layers”, point at a cell and read its column upward: when does the answer appear?", "lens", () => saved("point", "")[0]],
  ["Open “Switch off” and press heads: whose absence hurts the loss most?", "heads", () => saved("off", "")[0]],
  ["Open “Growth” and pull the slider: one prompt from noise to words, while the model learns.", "growth", () => saved("step", "")[0]],
];

/** The stop, from 0 on; null when no tour goes on. */
function useStop() {
  const [asked, set] = saved("tour", "");
  const at = /^\d+$/.test(asked) ? Math.min(Number(asked), STOPS.length) : null;
  return [at, set];
}

/** Begins the tour, and is gone while it goes on. */
export function TourButton() {
  const [at, set] = useStop();
  return at === null && html`<button class="begin" onClick=${() => (set(0), (tab.value = "write"), focusOn(".tour"))}>Take the tour</button>`;
}

export function Tour() {
  const [at, set] = useStop();
  const [before, setBefore] = useState(null);
  const [says, where, what] = STOPS[at ?? STOPS.length] ?? [];
  const now = what?.();
  useEffect(() => setBefore({ at, value: now }), [at]);
  if (at === null) return null;
  const close = () => (set(""), focusOn(".begin"));
  if (!says) return html`<aside class="tour" aria-label="Tour" tabindex="-1"><p role="status">That was the tour. The notebooks build all of this by hand.</p><div><button onClick=${close}>Close</button></div></aside>`;
  const done = before?.at === at && tab.value === where && now !== before.value;
  return html`<aside class="tour" aria-label="Tour" tabindex="-1"><p role="status"><b>${at + 1} of ${STOPS.length}</b> ${says}${done && html` <b>✓ done</b>`}</p>
    <div><button class=${done ? "main" : ""} onClick=${() => set(at + 1)}>Next</button> <button onClick=${close}>Close</button></div></aside>`;
}
