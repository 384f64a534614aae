// The list of rules with the score of each alone, the lowest first; and the request as a command.
// Not: asking (judge.js).

import { makeMeter, setMeter, share, verdictOf } from "./meter.js";

const MOST = 200; // rows; a config may have 10,000 rules
const list = document.getElementById("rules");
const state = document.getElementById("rules-state");
const command = document.getElementById("request");

/** Dims the list: it is of an earlier text. */
export function showRulesWaiting() {
  list.setAttribute("aria-busy", "true");
}

/** Shows the answer with `rules` that `explain` brings. `texts`: the rules of the policy, in order. */
export function showRules(answer, texts) {
  const order = [...answer.rules].sort((a, b) => a.compliance - b.compliance || a.index - b.index);
  list.removeAttribute("aria-busy");
  list.replaceChildren(
    ...order.slice(0, MOST).map((rule) => row(rule, texts[rule.index], answer.threshold)),
  );
  const left = order.length - MOST;
  state.className = "state";
  state.title = "";
  state.textContent = left > 0 ? `${left.toLocaleString("en")} more rules are not shown` : "";
}

/** Shows why there is no attribution. */
export function showNoRules(refusal) {
  list.removeAttribute("aria-busy");
  list.replaceChildren();
  state.className = "state bad";
  state.textContent = `unknown: ${refusal.code}`;
  state.title = refusal.message;
}

/** Takes the command away: there is no request to show. */
export function showNoRequest() {
  command.textContent = "";
}

/** Shows `body` of POST /v1/score as a command line. */
export function showRequest(body) {
  const json = JSON.stringify(body, null, 1).replaceAll("'", "'\\''");
  const url = new URL("v1/score", document.baseURI).href;
  command.textContent = `curl -s ${url} \\\n  -H "Authorization: Bearer $KEY" -d '${json}'`;
}

function row(rule, stated, threshold) {
  const verdict = verdictOf(rule);
  const item = document.createElement("li");
  item.dataset.verdict = verdict;
  const name = document.createElement("span");
  name.className = "rule-name";
  name.textContent = rule.name || `Rule ${rule.index + 1}`;
  const number = document.createElement("span");
  number.className = "rule-value";
  number.textContent = verdict === "unknown" ? "unknown" : share(rule.compliance);
  const meter = makeMeter(`Compliance with rule ${rule.index + 1} alone`);
  setMeter(meter, verdict, rule, threshold);
  const text = document.createElement("p");
  text.className = "rule-text";
  text.textContent = stated?.text ?? "";
  item.append(name, number, meter, text);
  return item;
}
