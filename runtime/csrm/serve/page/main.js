// Start of the playground: connects the panes, the examples, the key and the theme.
// Not: any of their work. An example is a link (#name), so that it can be sent to somebody.

import { isPassing, setKey } from "./ask.js";
import { onConversationChange, setMessages } from "./conversation.js";
import { EXAMPLES } from "./examples.js";
import { judgeSoon } from "./judge.js";
import { choose, listConfigs, onPolicyChange, setText, showPolicyFailure } from "./policy.js";
import { showUnknown } from "./verdict.js";

const THEMES = ["auto", "light", "dark"];
const byId = (id) => document.getElementById(id);
let start = 0;

/** Shows the example that the address names; whether there is one. */
function showExample() {
  const example = EXAMPLES.find(({ name }) => `#${name}` === location.hash);
  for (const link of byId("examples").querySelectorAll("a")) {
    if (link.hash === location.hash) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  if (!example) return false;
  setMessages(example.messages);
  setText(example.policy);
  return true;
}

/** Lists the configs; means the default, or an example, unless there is a policy already. */
async function connect() {
  clearTimeout(start);
  try {
    const id = await listConfigs();
    if (byId("policy").value !== "") judgeSoon();
    else if (id) choose(id);
    else location.hash = EXAMPLES[0].name;
  } catch (refusal) {
    showPolicyFailure(refusal);
    showUnknown(refusal);
    if (isPassing(refusal)) start = setTimeout(connect, 1000 * (refusal.retryAfterS ?? 2));
  }
}

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[theme];
  byId("theme").dataset.theme = theme;
  byId("theme").setAttribute("aria-label", `Colours: ${theme}`);
}

function listExamples() {
  byId("examples").append(...EXAMPLES.map(({ name, title }) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `#${name}`;
    link.textContent = title;
    link.addEventListener("click", () => {
      if (location.hash === link.hash) showExample(); // back to how it was
    });
    item.append(link);
    return item;
  }));
}

function showRaise() {
  const value = Number(byId("raise").value);
  byId("raise-value").textContent = value > 0 ? `to ${value.toFixed(2)}` : "as stated";
}

listExamples();
setTheme("auto");
showRaise();
onPolicyChange(judgeSoon);
if (!showExample()) setMessages(EXAMPLES[0].messages);
onConversationChange(judgeSoon); // from here on: the first turns wait for a policy
byId("theme").addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(byId("theme").dataset.theme) + 1) % THEMES.length]);
});
byId("raise").addEventListener("input", () => {
  showRaise();
  judgeSoon();
});
byId("key").addEventListener("input", (event) => {
  setKey(event.target.value);
  clearTimeout(start);
  start = setTimeout(connect, 300);
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("conversation").focus();
});
addEventListener("hashchange", showExample);
connect();
