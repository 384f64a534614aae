// The verdict pane: what the server answered for the last turn, or why there is no answer.
// Not: asking (judge.js). While an answer is on its way the last one is dimmed, then taken away.

import { GLYPHS, WORDS, makeMeter, setMeter, share, verdictOf } from "./meter.js";

const byId = (id) => document.getElementById(id);
const pane = byId("verdict");
const meter = makeMeter("Compliance of the last turn", true);
byId("meter").append(meter);

/** Dims what is shown: it belongs to an earlier text. */
export function showStale() {
  pane.setAttribute("aria-busy", "true");
}

/** Takes it away: the answer takes its time. */
export function showWaiting() {
  fill("waiting", {}, NaN);
}

/** Shows a score and how long it took. */
export function showAnswer(answer, ms) {
  pane.removeAttribute("aria-busy");
  const verdict = verdictOf(answer);
  fill(verdict, answer, answer.threshold);
  if (verdict === "unknown") {
    showError("BadAnswer", "the server's answer has no score");
    return;
  }
  byId("latency").textContent = `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  byId("identity").textContent = [
    `config ${answer.config_id}`, answer.config_version && `version ${answer.config_version}`,
    `rules ${short(answer.config_digest)}`, `model ${short(answer.artifact_digest)}`,
  ].filter(Boolean).join(" · ");
}

/** Shows that there is no verdict, and why. */
export function showUnknown(refusal) {
  pane.removeAttribute("aria-busy");
  fill("unknown", {}, NaN);
  showError(refusal.code, refusal.message);
}

function fill(verdict, answer, threshold) {
  const hasScore = verdict === "compliant" || verdict === "violation";
  pane.dataset.verdict = verdict;
  byId("glyph").textContent = GLYPHS[verdict];
  if (byId("word").textContent !== WORDS[verdict]) byId("word").textContent = WORDS[verdict];
  byId("compliance").textContent = hasScore ? share(answer.compliance) : "–";
  byId("reward").textContent = hasScore ? signed(answer.reward) : "–";
  byId("threshold").textContent = Number.isFinite(threshold) ? threshold.toFixed(2) : "–";
  byId("tokens").textContent = hasScore ? answer.scored_tokens.toLocaleString("en") : "–";
  byId("latency").textContent = "–";
  byId("identity").textContent = "";
  byId("error").hidden = true;
  byId("error").replaceChildren();
  setMeter(meter, verdict, answer, threshold);
}

function showError(code, message) {
  const name = document.createElement("strong");
  name.textContent = code;
  byId("error").replaceChildren(name, ` ${message}`);
  byId("error").hidden = false;
}

function signed(reward) {
  return `${reward < 0 ? "−" : "+"}${Math.abs(reward).toFixed(3)}`;
}

function short(digest) {
  return typeof digest === "string" ? digest.slice(0, 8) : "?";
}
