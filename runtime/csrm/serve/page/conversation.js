// The conversation pane: turns that are added, removed, typed, pasted and copied.
// Not: scoring. `messages` gives what a request states; `cards` are where judge.js shows scores.

import { TurnCard } from "./turn.js";

const PASTED_ROLES = {
  system: "system", developer: "system", user: "user", assistant: "assistant",
  tool: "tool", function: "tool",
};
const list = document.getElementById("turns");
const byId = (id) => document.getElementById(id);

/** The cards, in order. */
export const cards = [];
let changed = () => {};

/** Calls `listener` whenever a turn is another. */
export function onConversationChange(listener) {
  changed = listener;
  byId("add").addEventListener("click", () => addAfter(cards.length - 1));
  byId("paste-open").addEventListener("click", () => showPaste(byId("paste").hidden));
  byId("paste-cancel").addEventListener("click", () => showPaste(false));
  byId("paste-use").addEventListener("click", usePasted);
  byId("paste").addEventListener("keydown", (event) => {
    if (event.key === "Escape") showPaste(false);
  });
  byId("copy").addEventListener("click", copy);
  addEventListener("resize", () => cards.forEach((card) => card.fit()));
}

/** The conversation as a request states it. */
export function messages() {
  return cards.map(({ role, content }) => ({ role, content }));
}

/** Says whether the scores of the turns may be of an earlier text. */
export function setTurnsBusy(isBusy) {
  list.setAttribute("aria-busy", String(isBusy));
}

/** Replaces all turns. */
export function setMessages(given) {
  cards.length = 0;
  list.replaceChildren();
  for (const { role, content } of given) insert(cards.length, role, content);
  renumber();
  changed();
}

function insert(index, role, content) {
  const card = new TurnCard(role, content, () => changed());
  card.removeButton.addEventListener("click", () => remove(card));
  card.text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    addAfter(cards.indexOf(card));
  });
  cards.splice(index, 0, card);
  list.insertBefore(card.element, list.children[index] ?? null);
  card.fit();
}

function addAfter(index) {
  insert(index + 1, cards[index]?.role === "user" ? "assistant" : "user", "");
  renumber();
  cards[index + 1].focus();
  changed();
}

function remove(card) {
  const index = cards.indexOf(card);
  cards.splice(index, 1);
  card.element.remove();
  renumber();
  if (cards.length) cards[Math.max(0, index - 1)].focus();
  else byId("add").focus();
  changed();
}

function renumber() {
  cards.forEach((card, index) => {
    card.number = index + 1;
  });
}

function showPaste(isShown) {
  byId("paste").hidden = !isShown;
  byId("paste-open").setAttribute("aria-expanded", String(isShown));
  byId("paste-error").textContent = "";
  (isShown ? byId("paste-text") : byId("paste-open")).focus();
}

function usePasted() {
  try {
    setMessages(readMessages(byId("paste-text").value));
    byId("paste-text").value = "";
    showPaste(false);
    cards.at(-1)?.focus();
  } catch (error) {
    byId("paste-error").textContent = error.message;
  }
}

/** The turns in `text`, by the rules of docs/config.md. Errors: Error, whose message names the place. */
export function readMessages(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("this is not JSON");
  }
  const found = Array.isArray(value) ? value : value?.messages ?? value?.conversation;
  if (!Array.isArray(found) || !found.length) throw new Error("there is no list of messages in it");
  return found.map((message, index) => {
    const place = `message ${index + 1}`;
    const role = Object.hasOwn(PASTED_ROLES, message?.role ?? "") ? PASTED_ROLES[message.role] : null;
    if (role === null) throw new Error(`${place}: the role must be system, user, assistant or tool`);
    return { role, content: contentOf(message, place) };
  });
}

function contentOf(message, place) {
  const { content } = message;
  if (typeof content === "string") return content;
  if (content === null && message.tool_calls) return "";
  const isText = (part) => part?.type === "text" && typeof part.text === "string";
  if (Array.isArray(content) && content.length && content.every(isText)) {
    return content.map((part) => part.text).join("\n");
  }
  throw new Error(`${place}: the content must be text; csrm reads nothing else`);
}

async function copy() {
  const button = byId("copy");
  const text = JSON.stringify(messages(), null, 2);
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch { // no clipboard on plain HTTP of another host: show it, to be copied by hand
    showPaste(true);
    byId("paste-text").value = text;
    byId("paste-text").select();
  }
  setTimeout(() => {
    button.textContent = "Copy JSON";
  }, 1500);
}
