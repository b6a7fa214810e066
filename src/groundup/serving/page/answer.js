// What the server answers to a question of a view.
import { useEffect, useState } from "./vendor/hooks.js";
import { post } from "./api.js";
import { attempt } from "./state.js";

/**
 * Asks when a view is drawn, and again when the question changes; null until it is answered.
 * @param {string} kind one per place: of a kind the newest question wins
 * @param {unknown} asked a request as `Picture` has it, or what `work` depends on; falsy where there is nothing to ask
 * @param {{work?: (signal: AbortSignal) => Promise<unknown>, of?: unknown}} [how] of: while it is the same, the answer before
 *   stays until the next is there
 */
export function useAnswer(kind, asked, { work = (signal) => post(asked.path, asked.body, signal), of = asked } = {}) {
  const [question, place] = [JSON.stringify(asked), JSON.stringify(of)];
  const [found, setFound] = useState({ place: "", value: null });
  useEffect(() => {
    if (asked) attempt(kind, work).then((value) => value && setFound({ place, value }));
  }, [question]);
  return asked && found.place === place ? found.value : null;
}

/**
 * Asks when a view is drawn, and again and again while somebody looks at it: `every` milliseconds after the answer before,
 * however long that took.
 * @param {() => Promise<unknown>} ask shows the answer @param {number} every 0: once
 */
export function useLook(ask, every) {
  useEffect(() => {
    let [open, due] = [true, 0];
    const later = () => (due = setTimeout(() => (document.hidden ? later() : look()), every));
    const look = () => ask().then(() => open && every && later());
    look();
    return () => {
      open = false;
      clearTimeout(due);
    };
  }, [every]);
}
