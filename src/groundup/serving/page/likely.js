// Tokens among words: a box around each, as a token may be a space, a dot or a comma.
import { html } from "./html.js";
import { visible } from "./format.js";

export const Said = ({ token }) => html`<b class="said">${visible(token)}</b>`;

/** Some tokens with what is said of each. @param {{rows: [string, string][]}} props */
export const Likely = ({ rows }) => html`<span class="likely">${rows.map(([token, says]) => html`<span><${Said} token=${token} /> ${says}</span> `)}</span>`;
