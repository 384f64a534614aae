// The policy pane: a loaded config as it is, or a text of the user's own that the server reads.
// Not: scoring. Data comes from GET /v1/configs, /v1/configs/ID and POST /v1/configs/check;
// `policyNow` gives judge.js what a request states, and the rules' texts for the list.

import { ask, isPassing } from "./ask.js";

const OWN = "";
const select = document.getElementById("config");
const text = document.getElementById("policy");
const state = document.getElementById("policy-state");
const note = document.getElementById("policy-note");

const loaded = new Map(); // answers of GET /v1/configs/ID, by id
let origin = OWN; // id of the config that the text is, as long as nobody edits it
let checked = null; // {text, policy}: the last text that the server read
let changed = () => {};

/** Calls `listener` whenever another policy is meant. */
export function onPolicyChange(listener) {
  changed = listener;
  select.addEventListener("change", () => choose(select.value));
  text.addEventListener("input", () => {
    origin = OWN;
    select.value = OWN;
    delete text.dataset.shows;
    changed();
  });
}

/** Lists the server's configs, and gives the id of the default or the first. Errors: Refusal. */
export async function listConfigs() {
  const { answer } = await ask("GET", "v1/configs");
  const { configs } = answer;
  loaded.clear();
  checked = null;
  const own = new Option("Own text", OWN);
  const group = document.createElement("optgroup");
  group.label = "Loaded configs";
  group.append(...configs.map(({ id, version }) => new Option(version ? `${id} ${version}` : id, id)));
  select.replaceChildren(own, ...(configs.length ? [group] : []));
  if (!configs.some(({ id }) => id === origin)) origin = OWN;
  select.value = origin;
  return answer.default || (configs[0]?.id ?? OWN);
}

/** Shows `own` as the user's own text. */
export function setText(own) {
  origin = OWN;
  select.value = OWN;
  text.value = own;
  delete text.dataset.shows;
  changed();
}

/** Means the loaded config `id`; "" leaves the text and calls it the user's own. */
export function choose(id) {
  origin = id;
  select.value = id;
  changed();
}

/** Reads the config `id` anew the next time: the server has another one by now. */
export function forget(id) {
  loaded.delete(id);
}

/**
 * The policy that is meant now: `request` = fields for /v1/score, and `rules`, `threshold` and
 * `digest`. Shows what it was read as, or why not. Errors: Refusal, AbortError.
 */
export async function policyNow(signal) {
  try {
    return origin === OWN ? await ownPolicy(signal) : await loadedPolicy(origin, signal);
  } catch (refusal) {
    if (!signal.aborted) showPolicyFailure(refusal);
    throw refusal;
  }
}

async function ownPolicy(signal) {
  const asked = text.value;
  if (checked?.text !== asked) {
    const { answer } = await ask("POST", "v1/configs/check", asked, signal);
    checked = { text: asked, policy: answer };
  }
  const { policy } = checked;
  showRead(`Read as ${policy.format}: ${counted(policy.n_rules)}`,
    "Goes along with these requests only; the server keeps nothing of it.");
  return { ...policy, request: { rules: policy.rules } };
}

async function loadedPolicy(id, signal) {
  if (!loaded.has(id)) {
    const { answer } = await ask("GET", `v1/configs/${encodeURIComponent(id)}`, undefined, signal);
    loaded.set(id, answer);
    text.value = yamlOf(answer);
  } else if (text.dataset.shows !== id) text.value = yamlOf(loaded.get(id));
  text.dataset.shows = id;
  const config = loaded.get(id);
  showRead(`Loaded config: ${counted(config.n_rules)}`,
    "Edit the text to try a copy; the server's config stays as it is.");
  return { ...config, request: { config: id } };
}

function counted(n) {
  return `${n.toLocaleString("en")} rule${n === 1 ? "" : "s"}`;
}

function showRead(words, hint) {
  state.className = "state good";
  state.textContent = words;
  note.textContent = hint;
}

/** Shows why there is no policy to judge by. */
export function showPolicyFailure(refusal) {
  state.className = "state bad";
  state.textContent = `${refusal.code}: ${refusal.message}`;
  note.textContent = isPassing(refusal) ? "Asking again." : "";
}

/** A config as the YAML that csrm reads back: strings are quoted as in JSON. */
function yamlOf(config) {
  const lines = [`id: ${quoted(config.id)}`, `version: ${quoted(config.version)}`];
  lines.push(`threshold: ${config.threshold}`);
  if (config.description) lines.push(`description: ${quoted(config.description)}`);
  lines.push("rules:");
  for (const rule of config.rules) {
    const keys = Object.entries(rule).map(([name, value]) => `${name}: ${quoted(value)}`);
    lines.push(`  - ${keys.join("\n    ")}`);
  }
  return `${lines.join("\n")}\n`;
}

function quoted(value) {
  if (/^[A-Za-z][A-Za-z0-9 ,.;'()/-]*[A-Za-z0-9.)]$/.test(value) && !isYamlWord(value)) return value;
  return JSON.stringify(value).replace(
    /[\u007f-\u009f\u2028\u2029\ufeff]/g,
    (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function isYamlWord(value) {
  return /^(?:y|n|yes|no|on|off|true|false|null)$/i.test(value);
}
