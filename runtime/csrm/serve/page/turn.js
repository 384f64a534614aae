// One turn of the conversation as a card: role, text, and the bar of its compliance.
// Not: the list of turns (conversation.js). `changed` is told of every edit.

import { makeMeter, setMeter, share, verdictOf } from "./meter.js";

const ROLES = ["user", "assistant", "system", "tool"];

/** The card of a turn. It has `role`, `content`, `element`, `number` and ways to show a score. */
export class TurnCard {
  constructor(role, content, changed) {
    this.element = document.createElement("li");
    this.element.className = "turn";
    this.select = document.createElement("select");
    this.select.append(...ROLES.map((name) => new Option(name, name)));
    this.select.value = role;
    this.text = document.createElement("textarea");
    this.text.rows = 1;
    this.text.value = content;
    this.meter = makeMeter("");
    this.word = document.createElement("span");
    this.word.className = "turn-word";
    this.removeButton = document.createElement("button");
    this.removeButton.type = "button";
    this.removeButton.className = "quiet remove";
    this.removeButton.textContent = "×";
    const head = document.createElement("div");
    head.className = "turn-head";
    head.append(this.select, this.meter, this.word, this.removeButton);
    this.element.append(head, this.text);
    this.select.addEventListener("change", () => this.#edited(changed));
    this.text.addEventListener("input", () => this.#edited(changed));
    this.#edited(() => {});
  }

  get role() {
    return this.select.value;
  }

  get content() {
    return this.text.value;
  }

  /** The names by which a screen reader calls the parts: the place of the turn. */
  set number(n) {
    this.select.setAttribute("aria-label", `Role of turn ${n}`);
    this.text.setAttribute("aria-label", `Text of turn ${n}`);
    this.removeButton.setAttribute("aria-label", `Remove turn ${n}`);
    this.meter.setAttribute("aria-label", `Compliance of turn ${n}`);
  }

  focus() {
    this.text.focus();
  }

  /** Makes the text's box as high as the text. */
  fit() {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight + 2}px`;
  }

  /** `answer` of the server for the conversation up to this turn; null = not judged yet. */
  show(answer, threshold) {
    if (answer === null) {
      setMeter(this.meter, "waiting", {}, NaN);
      this.word.textContent = "";
      return;
    }
    const verdict = verdictOf(answer);
    setMeter(this.meter, verdict, answer, threshold);
    this.word.dataset.verdict = verdict;
    this.word.textContent = verdict === "unknown"
      ? `unknown: ${answer.error?.code ?? "no score"}` : `${share(answer.compliance)} ${verdict}`;
    this.word.title = answer.error?.message ?? "";
  }

  /** Says why this turn has no score of its own. */
  showUnjudged(why) {
    setMeter(this.meter, "none", {}, NaN);
    this.word.textContent = why;
    delete this.word.dataset.verdict;
  }

  #edited(changed) {
    this.element.dataset.role = this.role;
    this.fit();
    changed();
  }
}
