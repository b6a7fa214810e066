// The only file that talks to the server.

const key = new URLSearchParams(location.hash.slice(1)).get("key");

/** Whether the server asks for a key. */
export const keyed = Boolean(key);

export const GONE = "the server does not answer: is groundup serve still running?";
const NO_KEY = key ? "this is not the key of the server" : "this server asks for a key";

/** @param {Error} error of the network, or of who gave up waiting @returns {never} */
function gone(error) {
  throw error.name === "AbortError" ? error : Object.assign(new Error(GONE), { gone: true });
}

/** @param {string} path @param {object} [body] @param {AbortSignal} [signal] @returns {Promise<Response>} */
async function ask(path, body, signal) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal }).catch(gone);
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  if (answer.status === 401) throw Object.assign(new Error(NO_KEY), { locked: true });
  throw new Error(told?.error?.message ?? `the server answered ${answer.status}`);
}

/** @param {string} path @param {Record<string, string | number>} [query] */
export const get = async (path, query) => (await ask(query ? `${path}?${new URLSearchParams(query)}` : path)).json();
export const post = async (path, body, signal) => (await ask(path, body, signal)).json();
export const bytes = async (path, body, signal) => (await ask(path, body, signal)).arrayBuffer();

/**
 * Cuts a stream of text into events, wherever the pieces were cut.
 * @returns {(piece: string) => string[]} takes the next piece, returns the data of the events it completes
 */
export function eventReader() {
  let rest = "";
  return (piece) => {
    const events = (rest + piece).split("\n\n");
    rest = events.pop() ?? "";
    return events.filter((event) => event.startsWith("data: ")).map((event) => event.slice(6));
  };
}

/**
 * Stream a completion.
 * @param {object} body
 * @param {(chunk: object) => void} each
 * @param {AbortSignal} signal
 */
export async function complete(body, each, signal) {
  const answer = await ask("/v1/completions", { ...body, stream: true }, signal);
  const read = eventReader();
  const decoder = new TextDecoder();
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch(gone);
    if (done) return;
    for (const data of read(decoder.decode(value, { stream: true }))) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      each(chunk);
    }
  }
}
