// Probabilities as bars.
import { html } from "./html.js";

/** @param {{value: number, outline?: number}} props both between 0 and 1 */
export function Bar({ value, outline }) {
  return html`<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
    <rect class="fill" x="0" y="1" width=${100 * value} height="8" />
    ${outline !== undefined && html`<rect class="outline" x="0" y="1" width=${100 * outline} height="8" />`}</svg>`;
}
