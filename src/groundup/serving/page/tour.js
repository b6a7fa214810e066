// A tour of eight stops, each "do this, look there"; it notices when it was done.
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { saved, seed, settings, tab, text } from "./state.js";

const STOPS = [
  ["Press “One token” a few times. The model says how likely every token is; one is drawn.", () => text.value, "write"],
  ["Press “Draw again”: only the needle on the ruler moves. The model has not changed its mind.", () => seed.value, "write"],
  ["Pull the temperature to 0. Now the likeliest token is always taken, and the text soon goes in circles.", () => settings.value.temperature, "write"],
  ["Open “Surprise” and paste a line of your own. Dark tokens cost many bits.", () => (tab.value === "surprise" ? text.value : ""), "surprise"],
  ["Open “Attention” and click a cell of the matrix: query, key, softmax and value, in the model’s own numbers.", () => tab.value === "attention" && saved("cell", "")[0], "attention"],
  ["Open “Layers” and read a column upward: when does the answer appear?", () => tab.value === "lens", "lens"],
  ["Open “Switch off”, and find a head whose loss hurts most.", () => tab.value === "heads", "heads"],
  ["Open “Growth” and pull the slider: one prompt from noise to words, while the model learns.", () => tab.value === "growth" && saved("step", "")[0], "growth"],
];

export function Tour() {
  const [at, setAt] = useState(-1);
  const [before, setBefore] = useState(null);
  const stop = STOPS[at];
  const now = stop && stop[1]();
  useEffect(() => setBefore(now), [at]);
  const done = stop && before !== null && now !== before && now !== false && now !== "";
  if (at < 0) return html`<aside class="tour"><button onClick=${() => { setAt(0); tab.value = "write"; }}>Take the tour: eight stops</button></aside>`;
  if (!stop) return html`<aside class="tour"><p>That was the tour. The notebooks build all of this by hand.</p><button onClick=${() => setAt(-1)}>Close</button></aside>`;
  return html`<aside class="tour" aria-live="polite"><p><b>${at + 1} of ${STOPS.length}</b> ${stop[0]} ${done ? "✓" : ""}</p>
    <button class=${done ? "main" : ""} onClick=${() => setAt(at + 1)}>Next</button> <button onClick=${() => setAt(-1)}>Close</button></aside>`;
}
