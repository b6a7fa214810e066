// The numbers behind a picture. They are written when somebody opens the table: there may be thousands.
import { useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { spoken } from "./format.js";

/** @param {{says?: string, columns: string[], rows: () => string[][]}} props the first column heads its row */
export function Behind({ says = "as a table", columns, rows }) {
  const [open, setOpen] = useState(false);
  return html`<details onToggle=${(event) => setOpen(event.currentTarget.open)}><summary>${says}</summary>${open && html`<div class="scroll" role="region" aria-label=${says} tabindex="0"><table aria-label=${says}>
    <thead><tr>${columns.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
    <tbody>${rows().map(([head, ...cells]) => html`<tr><th scope="row" aria-label=${spoken(head)}>${head}</th>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`)}</tbody></table></div>`}</details>`;
}
