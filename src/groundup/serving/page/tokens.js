// How the text is cut, by each of the models that are served.
import { useEffect, useState } from "./vendor/hooks.js";
import { html } from "./html.js";
import { count, visible } from "./format.js";
import { attempt, cut, facts, text } from "./state.js";
import { Picture } from "./picture.js";
import { Prompt } from "./prompt.js";

export function Tokens() {
  const [found, setFound] = useState({});
  useEffect(() => {
    for (const { id } of facts.value.models) {
      const says = (error) => {
        if (error.name === "AbortError") throw error;
        return { tokens: [], token_strs: [], says: error.message }; // of this model alone
      };
      attempt(`cut ${id}`, (signal) => cut(id, text.value, signal).catch(says)).then((x) => x && setFound((all) => ({ ...all, [id]: x })));
    }
  }, [text.value]);
  return html`<${Prompt} rows="4" />
    ${facts.value.models.map(({ id }) => found[id]?.says ? html`<section><h2>${id}</h2><p class="hint">${found[id].says}</p></section>` : found[id] && html`<section><h2>${id}: ${count(found[id].tokens.length, "token")}</h2>
      <${Picture} name=${`tokens of ${id}`} ask=${{ path: "/tokenize", body: { model: id, prompt: text.value, return_token_strs: true } }}><p class="cut">${found[id].token_strs.map((t, i) => html`<span class=${`c${i % 4}${visible(t).startsWith("\\x") ? " bytes" : ""}`} title=${`id ${found[id].tokens[i]}`}>${visible(t)}<small>${found[id].tokens[i]}</small></span>`)}</p><//></section>`)}`;
}
