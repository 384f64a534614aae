// From a change to what is shown: waits for the typing to pause, asks, drops what came too late.
// Not: showing (verdict.js, rules.js, turn.js). Three requests: the score of the last turn alone,
// whose time is the latency shown; then the rules one by one, and the turns before it.

import { Refusal, ask, isPassing } from "./ask.js";
import { cards, messages, setTurnsBusy } from "./conversation.js";
import { forget, policyNow } from "./policy.js";
import { showNoRequest, showNoRules, showRequest, showRules, showRulesWaiting } from "./rules.js";
import { showAnswer, showStale, showUnknown, showWaiting } from "./verdict.js";

const PAUSE_MS = 200;
const PATIENCE_MS = 600; // as long as a score may be shown, dimmed, that is of the text before
const MOST_TURNS = 64; // before the last one, judged in one request
const raise = document.getElementById("raise");

let timer = 0;
let patience = 0;
let running = new AbortController();
let turns = { under: "", scores: new Map() }; // answers for turns before, under one policy and model

/** Judges soon: what was asked before is withdrawn, and its answers are dropped. */
export function judgeSoon() {
  running.abort();
  running = new AbortController();
  showStale();
  showRulesWaiting();
  setTurnsBusy(true);
  clearTimeout(timer);
  if (!patience) patience = setTimeout(showPatience, PATIENCE_MS);
  const { signal } = running;
  timer = setTimeout(() => judge(signal), PAUSE_MS);
}

function showPatience() {
  patience = 0;
  showWaiting();
  for (const card of cards) card.show(null);
}

function settle() {
  clearTimeout(patience);
  patience = 0;
}

async function judge(signal) {
  const stated = messages();
  const shown = [...cards];
  showNoRequest();
  try {
    const policy = await policyNow(signal);
    const request = requestOf(policy);
    const body = { ...request, messages: stated };
    showRequest(body);
    const { answer, ms } = await ask("POST", "v1/score", body, signal);
    if (body.config !== undefined && answer.config_digest !== policy.digest) {
      forget(body.config); // the server has loaded another one meanwhile
      judgeSoon();
      return;
    }
    settle();
    showAnswer(answer, ms);
    shown.at(-1)?.show(answer, answer.threshold);
    await Promise.all([
      explain(body, policy.rules, signal),
      judgeEarlier(request, stated, shown, answer, signal),
    ]);
    if (!signal.aborted) setTurnsBusy(false);
  } catch (error) {
    if (signal.aborted) return;
    const isRefusal = error instanceof Refusal;
    const refusal = isRefusal ? error : new Refusal("PageFailed", "see the browser's console");
    showFailure(refusal, shown);
    if (!isRefusal) throw error;
    if (isPassing(refusal)) timer = setTimeout(() => judge(signal), 1000 * (refusal.retryAfterS ?? 2));
  }
}

function showFailure(refusal, shown) {
  settle();
  setTurnsBusy(false);
  showUnknown(refusal);
  showNoRules(refusal);
  for (const card of shown) card.show({ error: refusal });
}

/** The fields of a request that say by what is judged. */
function requestOf(policy) {
  const raised = Number(raise.value);
  if (policy.request.config !== undefined) {
    return raised > policy.threshold ? { ...policy.request, threshold: raised } : policy.request;
  }
  return { ...policy.request, threshold: Math.max(policy.threshold, raised) };
}

async function explain(body, rules, signal) {
  try {
    const { answer } = await ask("POST", "v1/score", { ...body, explain: true }, signal);
    showRules(answer, rules);
  } catch (refusal) {
    if (!signal.aborted) showNoRules(refusal);
  }
}

/** Each turn before the last, with what stands before it, as if it were the last. */
async function judgeEarlier(request, stated, shown, last, signal) {
  const under = JSON.stringify([last.config_digest, last.threshold, last.artifact_digest]);
  if (turns.under !== under) turns = { under, scores: new Map() };
  const { scores } = turns;
  const places = [];
  stated.slice(0, -1).forEach(({ role }, index) => {
    if (role === "user" || role === "assistant") places.push(index);
    else shown[index].showUnjudged("context");
  });
  const keys = new Map(places.map((index) => [index, JSON.stringify(stated.slice(0, index + 1))]));
  const missing = places.filter((index) => !scores.has(keys.get(index))).slice(-MOST_TURNS);
  const found = new Map();
  if (missing.length) {
    const conversations = missing.map((index) => stated.slice(0, index + 1));
    const answers = await resultsOf({ ...request, conversations }, signal);
    missing.forEach((index, i) => found.set(index, answers[i]));
  }
  for (const index of places) {
    const answer = found.get(index) ?? scores.get(keys.get(index));
    if (answer === undefined) {
      shown[index].showUnjudged("not asked yet"); // beyond MOST_TURNS: the next time
      continue;
    }
    if (!answer.error) scores.set(keys.get(index), answer);
    shown[index].show(answer, last.threshold);
  }
}

/** The results of a batch; if the whole of it failed, its failure for each. */
async function resultsOf(body, signal) {
  try {
    return (await ask("POST", "v1/score", body, signal)).answer.results;
  } catch (refusal) {
    if (signal.aborted) throw refusal;
    return body.conversations.map(() => ({ error: refusal }));
  }
}
