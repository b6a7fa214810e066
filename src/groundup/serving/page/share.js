// Buttons that copy a request of the page as a command.
import { useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { keyed } from "./api.js";
import { asCurl, asPython } from "./commands.js";

/** @param {{path: string, body?: object, quiet?: boolean}} props */
export function Copy({ path, body, quiet = false }) {
  const [told, setTold] = useState("");
  const copy = async (name, write) => {
    const written = write({ origin: location.origin, keyed }, path, body);
    try {
      await navigator.clipboard.writeText(written);
      setTold(`${name} copied`);
      setTimeout(() => setTold(""), 2000);
    } catch {
      setTold(written); // no clipboard: on plain HTTP from another machine
    }
  };
  const kind = quiet ? "quiet" : "";
  return html`<span class="copy no-picture"><button class=${kind} onClick=${() => copy("Python", asPython)}>Copy as Python</button>
    <button class=${kind} onClick=${() => copy("curl", asCurl)}>Copy as curl</button><span role="status">${told.includes("copied") ? told : told && html`<code>${told}</code>`}</span></span>`;
}
