// What is on the screen, as a command for others.
import { useState } from "./vendor/hooks.js";
import { html } from "./html.js";

const quoted = (text) => `'${text.replace(/'/g, "'\\''")}'`;

export function asCurl(body) {
  return `curl ${location.origin}/v1/completions -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body))}`;
}

export function asPython(body) {
  const known = ["model", "prompt", "max_tokens", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"];
  const lines = known.map((name) => `    ${name}=${JSON.stringify(body[name])},`);
  const extra = { top_k: body.top_k, min_p: body.min_p, repetition_penalty: body.repetition_penalty };
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${location.origin}/v1", api_key="none")`,
    "answer = client.completions.create(",
    ...lines,
    `    extra_body=${JSON.stringify(extra)},`,
    ")",
    "print(answer.choices[0].text)",
  ].join("\n");
}

export function Copy({ body }) {
  const [told, setTold] = useState("");
  const copy = async (name, value) => {
    await navigator.clipboard.writeText(value);
    setTold(`${name} copied`);
    setTimeout(() => setTold(""), 2000);
  };
  return html`<span class="copy"><button onClick=${() => copy("Python", asPython(body))}>Copy as Python</button>
    <button onClick=${() => copy("curl", asCurl(body))}>Copy as curl</button><span role="status">${told}</span></span>`;
}
