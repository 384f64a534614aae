// A compliance bar from 0 to 1 with the threshold marked; and the names of the three verdicts.
// Not: the decision. A verdict is shown as the server said it, and never worked out here.

export const GLYPHS = { compliant: "✓", violation: "✕", unknown: "?", waiting: "…" };
export const WORDS = {
  compliant: "Compliant", violation: "Violation", unknown: "Unknown", waiting: "Judging",
};

/** `verdict` if it is one that a score can have, else "unknown". */
export function verdictOf(answer) {
  const isScored = Number.isFinite(answer?.compliance) && Number.isFinite(answer?.reward);
  const isKnown = answer?.verdict === "compliant" || answer?.verdict === "violation";
  return isScored && isKnown ? answer.verdict : "unknown";
}

/** A number in [0, 1] as people read it; never rounded to the other side of 0 or 1. */
export function share(value) {
  if (value > 0 && value < 0.001) return "<0.001";
  if (value < 1 && value > 0.999) return ">0.999";
  return value.toFixed(3);
}

/** A new bar. `name` is what a screen reader calls it. */
export function makeMeter(name, isLarge = false) {
  const meter = document.createElement("div");
  meter.className = isLarge ? "meter large" : "meter";
  meter.setAttribute("role", "meter");
  meter.setAttribute("aria-label", name);
  meter.setAttribute("aria-valuemin", "0");
  meter.setAttribute("aria-valuemax", "1");
  for (const part of ["fill", "mark"]) {
    const element = document.createElement("span");
    element.className = part;
    meter.append(element);
  }
  return meter;
}

/** Shows `answer` (compliance, threshold) under `verdict`; without a score the bar is hatched. */
export function setMeter(meter, verdict, answer, threshold) {
  const hasScore = verdict === "compliant" || verdict === "violation";
  meter.dataset.verdict = verdict;
  meter.setAttribute("aria-valuetext", hasScore ? `${share(answer.compliance)}, ${verdict}` : verdict);
  if (hasScore) meter.setAttribute("aria-valuenow", String(answer.compliance));
  else meter.removeAttribute("aria-valuenow");
  meter.style.setProperty("--value", hasScore ? String(answer.compliance) : "0");
  const isMarked = Number.isFinite(threshold);
  meter.classList.toggle("marked", isMarked);
  if (isMarked) meter.style.setProperty("--threshold", String(threshold));
}
