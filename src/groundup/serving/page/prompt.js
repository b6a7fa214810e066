// The text that every view looks at.
import { html } from "./html.js";
import { count, visible } from "./format.js";
import { change, text, tokens } from "./state.js";

export function Prompt({ rows = 3 }) {
  const typed = (event) => change(event.target.value, "typed", Infinity);
  const { ids, all, texts } = tokens.value;
  const empty = text.value === "" && all.length === 1; // a model is never asked about nothing
  return html`<div class="prompt"><label>text <textarea rows=${rows} value=${text.value} onInput=${typed} spellcheck=${false} aria-describedby="length"></textarea></label>
    <small id="length">${!all.length ? "" : empty ? `nothing is written: it begins after ${visible(texts[0])}` : count(all.length, "token")}${ids.length < all.length ? `; the last ${ids.length === 1 ? "one is" : `${ids.length} are`} looked at` : ""}</small></div>`;
}
