// Start a small run, watch it, stop it: it saves first, and can go on later.
import { useEffect, useState } from "./vendor/hooks.js";
import { able, html } from "./html.js";
import { get, post } from "./api.js";
import { useLook } from "./answer.js";
import { attempt } from "./state.js";

const EVERY = 1000;
const RECIPES = { same: "text and settings of the served run", shakespeare: "Shakespeare’s plays" };
const STARTS = "is starting: it reads its text, and where many steps are asked for it compiles the model first, which can take minutes";
const UNSAVED = "was stopped before there was anything to save";
const SAYS = { running: "is being trained", stopping: "is saving, then it stops", stopped: "was stopped and is saved", finished: "is trained", failed: "failed" };

/** @param {{names: string[], changed: () => void}} props names: of the runs there are; changed: called when one begins or ends */
export function Starter({ names, changed }) {
  const [known, setKnown] = useState(null);
  const [wish, setWish] = useState({ recipe: "same", size: "tiny", steps: 200, seed: 1337 });
  const look = () => attempt("train", () => get("/api/train")).then((x) => x && setKnown(x));
  const training = known?.training;
  const busy = training && (training.state === "running" || training.state === "stopping");
  useLook(look, busy ? EVERY : 0);
  useEffect(() => void (training && changed()), [training?.name, training?.state]);
  if (!known) return null;
  if (!known.possible) return html`<h2>train one here</h2><p class="hint">Runs are started beside a served run, and none is served.</p>`;
  const says = () => {
    const begun = names.includes(training.name);
    if (!begun && training.state === "running") return STARTS;
    return !begun && training.state === "stopped" ? UNSAVED : SAYS[training.state];
  };
  const told = (x) => x && setKnown({ ...known, training: x });
  const begin = (event) => {
    event.preventDefault();
    if (busy) return;
    attempt("train", () => post("/api/train", wish), { once: true }).then(told);
  };
  const stop = () => attempt("train", () => post("/api/train/stop", {}), { once: true }).then(told);
  const set = (name, value) => setWish({ ...wish, [name]: value });
  return html`<section class="card starter"><h2>train one here</h2>
    <form class="buttons" onSubmit=${begin}>
      <label>on <select value=${wish.recipe} onChange=${(e) => set("recipe", e.target.value)}>${Object.entries(RECIPES).map(([id, says]) => html`<option value=${id}>${says}</option>`)}</select></label>
      <label>size <select value=${wish.size} onChange=${(e) => set("size", e.target.value)}>${Object.entries(known.sizes).map(([id, s]) => html`<option value=${id}>${id}: ${s.n_layer} layers, ${s.n_head} heads, ${s.n_embd} wide</option>`)}</select></label>
      <label>steps <input type="number" min="10" max="5000" required value=${wish.steps} onInput=${(e) => set("steps", Number(e.target.value))} /></label>
      <label>seed <input type="number" min="0" max="2147483647" required value=${wish.seed} onInput=${(e) => set("seed", Number(e.target.value))} /></label>
      <div class="buttons"><button class="main" aria-disabled=${String(Boolean(busy))}>Start</button>
        <button type="button" ...${able(training?.state === "running", stop)}>Stop and save</button></div>
    </form>
    <p role="status">${training ? html`<b>${training.name}</b> ${says()}${training.said ? `: ${training.said}` : ""}` : "Its curve and samples appear above while it learns; stopping saves it."}</p></section>`;
}
