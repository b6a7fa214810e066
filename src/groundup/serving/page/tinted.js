// A text whose tokens are tinted: one stop of the Tab key, arrow keys go from token to token.
import { html } from "./html.js";
import { spoken, visible } from "./format.js";

const STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };

/**
 * @param {{name: string, tokens: {text: string, share: number, kind?: string, says: string}[], at: number, pick: (at: number) => void}} props
 *   share: how much of the tint, 0 to 1; says: its numbers in words; at: the one that is asked about, -1 for none
 */
export function Tinted({ name, tokens, at, pick }) {
  const move = (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    event.currentTarget.children[Math.max(0, Math.min(tokens.length - 1, at + step))].focus();
  };
  return html`<div class="looked" role="listbox" aria-orientation="horizontal" aria-label=${name} onKeyDown=${move}>${tokens.map(({ text, share, kind = "", says }, i) => html`<span role="option" aria-selected=${i === at} aria-label=${`${spoken(visible(text))}: ${says}`} tabindex=${i === Math.max(0, at) ? 0 : -1}
    class=${i === at ? `${kind} asked` : kind} style=${`--share:${share}`} title=${says} onMouseEnter=${() => pick(i)} onFocus=${() => pick(i)}>${visible(text)}</span>`)}</div>`;
}
