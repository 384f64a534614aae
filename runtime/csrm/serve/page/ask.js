// ask: one request to the server that this page came from, and its answer or a Refusal.
// Not: what is asked (judge.js, policy.js). The key lives in a variable here and nowhere else.

let key = "";

/** The key that goes along with every request from now on; "" = none. */
export function setKey(given) {
  key = given.trim();
}

/** Why there is no answer. `code` is the server's, or Unreachable or BadAnswer from here. */
export class Refusal extends Error {
  constructor(code, message, retryAfterS = null) {
    super(message);
    this.code = code;
    this.retryAfterS = retryAfterS;
  }
}

/** What may pass by itself, so that asking again is of use. */
export function isPassing(refusal) {
  return ["NotReady", "Draining", "Unreachable", "Overloaded"].includes(refusal.code);
}

/**
 * The JSON that `path` (relative to the page) answers, and the milliseconds it took.
 * `body`: undefined, an object to send as JSON, or a string to send as text.
 * Errors: Refusal; the AbortError of `signal`.
 */
export async function ask(method, path, body, signal) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const isText = typeof body === "string";
  if (body !== undefined) headers["content-type"] = isText ? "text/plain" : "application/json";
  const sent = isText || body === undefined ? body : JSON.stringify(body);
  const start = performance.now();
  let response;
  let text;
  try {
    response = await fetch(path, {
      method, headers, body: sent, signal, cache: "no-store", redirect: "error",
    });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal("Unreachable", "the server does not answer", 2);
  }
  const ms = performance.now() - start;
  signal?.throwIfAborted(); // an answer that nobody waits for any more is never shown
  const answer = parsed(text);
  if (response.ok && answer !== null) return { answer, ms };
  const stated = answer?.error;
  const wait = Number.parseInt(response.headers.get("retry-after") ?? "", 10);
  throw new Refusal(
    typeof stated?.code === "string" ? stated.code : "BadAnswer",
    typeof stated?.message === "string" ? stated.message : `status ${response.status}, not csrm's JSON`,
    Number.isFinite(wait) ? wait : null,
  );
}

function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}
