// A request of the page as a command for others. Pure functions: tests run them without a browser.

const quoted = (text) => `'${text.replace(/'/g, "'\\''")}'`;

/** A value of JSON as Python writes it. @param {unknown} value @returns {string} */
export function python(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/**
 * @param {{origin: string, keyed: boolean}} server keyed: it asks for a key, which the command reads from the environment
 * @param {string} path @param {object} [body]
 */
export function asCurl({ origin, keyed }, path, body) {
  const key = keyed ? ` -H "Authorization: Bearer $GROUNDUP_API_KEY"` : "";
  const data = body ? ` -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body))}` : "";
  const into = path === "/api/attention" ? " --output attention.bin" : ""; // bytes, which a terminal refuses
  return `curl ${quoted(origin + path)}${key}${into}${data}`;
}

/** Any request, by the standard library; of a completion, by the official client. */
export function asPython({ origin, keyed }, path, body) {
  if (path === "/v1/completions") return asClient({ origin, keyed }, body);
  const headers = [...(body ? [`"Content-Type": "application/json"`] : []), ...(keyed ? [`"Authorization": f"Bearer {os.environ['GROUNDUP_API_KEY']}"`] : [])];
  const given = [JSON.stringify(origin + path), ...(body ? ["json.dumps(body).encode()"] : []), ...(headers.length ? [`headers={${headers.join(", ")}}`] : [])];
  return [
    "import json",
    ...(keyed ? ["import os"] : []),
    "from urllib.request import Request, urlopen",
    "",
    ...(body ? [`body = ${python(body)}`] : []),
    `request = Request(${given.join(", ")})`,
    ...(path === "/api/attention"
      ? ["raw = urlopen(request).read()  # uint16 (H, T, T) in steps of 1 / 65535, then float32 (H, T)", `n_tokens = ${body.tokens.length}`, "n_heads = len(raw) // (2 * n_tokens**2 + 4 * n_tokens)", "", "import numpy as np", "", `weights = np.frombuffer(raw, "<u2", n_heads * n_tokens**2).reshape(n_heads, n_tokens, n_tokens) / 65535`, "print(weights)"]
      : ["answer = json.load(urlopen(request))", "print(answer)"]),
  ].join("\n");
}

function asClient({ origin, keyed }, body) {
  const known = ["model", "prompt", "max_tokens", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty"];
  const extra = { top_k: body.top_k, min_p: body.min_p, repetition_penalty: body.repetition_penalty };
  return [
    ...(keyed ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${origin}/v1`)}, api_key=${keyed ? `os.environ["GROUNDUP_API_KEY"]` : `"none"`})`,
    "answer = client.completions.create(",
    ...known.map((name) => `    ${name}=${python(body[name])},`),
    `    extra_body=${python(extra)},`,
    ")",
    "print(answer.choices[0].text)",
  ].join("\n");
}
