// The frame of the page: model, tabs, what goes wrong.
import { render } from "./vendor/preact.js";
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { count } from "./format.js";
import { choose, facts, model, modelId, problem, start, tab, waiting } from "./state.js";
import { Picker } from "./picker.js";
import { Compare } from "./compare.js";
import { Growth } from "./growth.js";
import { Write } from "./write.js";
import { Surprise } from "./surprise.js";
import { Attention } from "./attention.js";
import { Lens } from "./lens.js";
import { Heads } from "./heads.js";
import { Push } from "./push.js";
import { Slots } from "./slots.js";
import { Tokens } from "./tokens.js";
import { Training } from "./training.js";
import { Tour, TourButton } from "./tour.js";

const TABS = [
  ["write", "Write", Write],
  ["surprise", "Surprise", Surprise],
  ["attention", "Attention", Attention],
  ["lens", "Layers", Lens],
  ["heads", "Switch off", Heads],
  ["growth", "Growth", Growth],
  ["compare", "Side by side", Compare],
  ["push", "What pushed", Push],
  ["tokens", "Tokens", Tokens],
  ["slots", "Slots", Slots],
  ["training", "Training", Training],
];

/** Seen after a moment, where an answer takes long. */
function Waiting() {
  const [long, setLong] = useState(false);
  const busy = waiting.value > 0;
  useEffect(() => {
    if (!busy) return setLong(false);
    const timer = setTimeout(() => setLong(true), 500);
    return () => clearTimeout(timer);
  }, [busy]);
  return busy && long && html`<p class="waiting" aria-hidden="true">computing ...</p>`;
}

function Page() {
  const shown = TABS.find(([id]) => id === tab.value) ?? TABS[0];
  const move = (event) => {
    const [at, last] = [TABS.indexOf(shown), TABS.length - 1];
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tab.value = TABS[to][0];
    document.getElementById(`tab-${tab.value}`).focus();
  };
  useEffect(() => document.getElementById(`tab-${shown[0]}`).scrollIntoView({ block: "nearest", inline: "nearest" }), [shown]);
  useEffect(() => void (document.title = `${shown[1]} · ${modelId.value} · groundup`), [shown, modelId.value]);
  const m = model.value;
  return html`
    <header>
      <h1>groundup</h1>
      <${Picker} id=${modelId.value} pick=${choose} label="model" />
      <p class="shape">${m.n_layer ? `${count(m.n_layer, "layer")} · ${count(m.n_head, "head")} · ${m.n_embd} wide · ` : ""}context ${m.context} · ${m.vocab_size.toLocaleString("en")} tokens${m.info.step !== undefined ? ` · step ${m.info.step}` : ""}</p>
      <${TourButton} />
    </header>
    <nav aria-label="Views"><div role="tablist" aria-label="Views">
      ${TABS.map(([id, name]) => html`
        <button role="tab" id=${`tab-${id}`} aria-selected=${id === shown[0]} aria-controls="view"
          tabindex=${id === shown[0] ? 0 : -1} onKeyDown=${move} onClick=${() => (tab.value = id)}>${name}</button>`)}
    </div></nav>
    <${Tour} />
    <main>
      <p class="problem" role="status">${problem.value}</p>
      <div id="view" role="tabpanel" aria-labelledby=${`tab-${shown[0]}`}><${shown[2]} key=${modelId.value} /></div>
    </main>
    <${Waiting} />
    <footer>groundup ${facts.value.version} · computed on this machine, nothing leaves it</footer>`;
}

/** Asks for the key. The address carries it until the page has read it. @param {{says: string}} props */
function Key({ says }) {
  const enter = (event) => {
    event.preventDefault();
    const state = new URLSearchParams(location.hash.slice(1));
    state.set("key", event.currentTarget.elements.key.value);
    location.hash = String(state);
    location.reload();
  };
  return html`<form class="loading" onSubmit=${enter}><p role="status">${says}: it is what --api-key or GROUNDUP_API_KEY was when the server was started.</p>
    <label>key <input name="key" type="password" autocomplete="off" required /></label> <button class="main">Open</button></form>`;
}

const root = document.getElementById("app");
start().then(
  () => (root.replaceChildren(), render(html`<${Page} />`, root)),
  (error) => (root.replaceChildren(), render(error.locked ? html`<${Key} says=${error.message} />` : html`<p class="loading" role="status">The page cannot start: ${error.message}</p>`, root)),
);
