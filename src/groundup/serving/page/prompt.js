// The text that every view looks at.
import { html } from "./html.js";
import { change, text, tokens } from "./state.js";

export function Prompt({ rows = 3 }) {
  const typed = (event) => change(event.target.value, "typed", Infinity);
  const { ids, all } = tokens.value;
  return html`<div class="prompt"><label>text <textarea rows=${rows} value=${text.value} onInput=${typed} spellcheck=${false} aria-describedby="length"></textarea></label>
    <small id="length">${!all.length ? "" : all.length === 1 ? "1 token" : `${all.length} tokens`}${ids.length < all.length ? `; the last ${ids.length === 1 ? "one is" : `${ids.length} are`} looked at` : ""}</small></div>`;
}
