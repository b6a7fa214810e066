// One template tag for all files.
import { h } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);

/** What a button needs that is off for a while and keeps the focus. @param {unknown} on @param {() => unknown} act */
export const able = (on, act) => ({ "aria-disabled": String(!on), onClick: () => on && act() });

/** Move the focus once the page is drawn again: what had it is gone by then. @param {string} selector */
export const focusOn = (selector) => requestAnimationFrame(() => document.querySelector(selector)?.focus());
