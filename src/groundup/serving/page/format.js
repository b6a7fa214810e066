// How numbers and tokens are written. Pure functions: tests run them without a browser.

/**
 * A probability that is never rounded to a lie: what is below the last digit is said as 1 in N.
 * @param {number} p between 0 and 1
 * @returns {string}
 */
export function probability(p) {
  if (!(p > 0)) return "0";
  if (p >= 0.9995) return p === 1 ? "100%" : "> 99.9%";
  if (p >= 0.0005) return `${(100 * p).toFixed(p < 0.0995 ? 2 : 1)}%`;
  const n = 1 / p;
  return n < 1e6 ? `1 in ${Math.round(n).toLocaleString("en")}` : `1 in 10^${Math.round(Math.log10(n))}`;
}

/** Control characters, and those that turn the direction of writing, which would reorder what stands beside them. */
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** A token that is no whole characters: its bytes, as the server writes them. */
const BYTES = /^bytes:(\\x[0-9a-f]{2})+$/;

/** Whether a token is no whole characters. @param {string} text @returns {boolean} */
export const isPart = (text) => BYTES.test(text);

/** How many bytes some tokens are as text. @param {string[]} texts @returns {number} */
export const bytesOf = (texts) => texts.reduce((sum, text) => sum + (isPart(text) ? (text.length - 6) / 4 : utf8(text)), 0);

/** Bytes of a text in UTF-8. @param {string} text */
const utf8 = (text) => [...text].map((each) => each.codePointAt(0)).reduce((sum, code) => sum + (code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4), 0);

/**
 * A token with its white space and control characters made visible.
 * @param {string} text
 * @returns {string}
 */
export function visible(text) {
  if (isPart(text)) return text.slice(6);
  const shown = text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "→").replace(/\r/g, "␍");
  return shown === "" ? "∅" : shown.replace(CONTROL, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

const WORDS = { "·": "space", "↵": "line break", "→": "tab", "␍": "carriage return", "∅": "nothing" };

/**
 * What `visible` made of a token, for those who hear it.
 * @param {string} shown
 * @returns {string}
 */
export const spoken = (shown) => shown.replace(/[·↵→␍∅]/g, (each) => ` ${WORDS[each]} `).replace(/ +/g, " ").trim();

/**
 * Four significant digits, with a true minus.
 * @param {number} x
 * @returns {string}
 */
export function number(x) {
  if (x === -Infinity) return "−∞";
  if (!Number.isFinite(x)) return String(x);
  const text = Math.abs(x) >= 1000 ? x.toFixed(0) : String(Number(x.toPrecision(4)));
  return text.replace("-", "−");
}

/**
 * A number of a column, in which decimal points stand below each other; what would be rounded to zero has its digits.
 * @param {number} x @param {number} digits behind the point
 * @returns {string}
 */
export function aligned(x, digits) {
  if (!Number.isFinite(x) || (x !== 0 && Math.abs(x) < 0.5 * 10 ** -digits)) return number(x);
  return x.toFixed(digits).replace("-", "−");
}

/** How many there are of something. @param {number} n @param {string} one @param {string} [more] */
export const count = (n, one, more = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;

/** A token with its place in the text. @param {string} text @param {number} place @returns {string} */
export const placed = (text, place) => `${visible(text)} (${place})`;

/** A number below n as the address has it; null where it has none. @param {string} written @param {number} n */
export const placeOf = (written, n) => (/^\d+$/.test(written) && Number(written) < n ? Number(written) : null);

/** @param {number[]} values @returns {number} */
export const sum = (values) => values.reduce((a, b) => a + b, 0);

/** @param {number[]} values @returns {number} */
export const mean = (values) => sum(values) / values.length;

/** Nats as bits. @param {number} nats @returns {number} */
export const bits = (nats) => nats / Math.LN2;
