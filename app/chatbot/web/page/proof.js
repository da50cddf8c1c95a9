// The proof: each step of verification with its outcome, and the values behind it.

import { count, disclose, draw, find, make, refill, write } from "./elements.js";
import { canAsk } from "./state.js";

const MARKS = {
  passed: ["passed", "m6 10.2 2.8 2.8 5.2-5.6"],
  failed: ["failed", "m7 7 6 6m0-6-6 6"],
  open: ["not reached", "M6.5 10h7"],
};
const BEFORE = "What this machine checks before a word of yours leaves it.";
const AFTER = "As it was when this page was closed. It says nothing of who answers at its address now.";

/** Show what the last verification came to, and the receipt of the exchange that is shown. */
export function showProof(state) {
  const proof = state.finding?.proof;
  write(find("proof-lead"), proof ? (state.why ? AFTER : proof.lead) : BEFORE);
  write(find("notice"), proof?.notice ?? "");
  find("notice").hidden = !proof?.notice;
  find("checks").hidden = !proof;
  if (proof) showChecks(proof);
  const receipt = state.shown?.receipt ?? null;
  find("receipt").hidden = !receipt;
  refill(find("receipt-steps"), receipt, (steps) => (steps ?? []).map(step));
  find("again").hidden = !proof || Boolean(state.why);
  find("again").disabled = state.session && !canAsk(state);
  write(find("again"), state.exchanges.length ? "Verify again, in a new conversation" : "Verify again");
}

function showChecks({ steps }) {
  if (!refill(find("steps"), steps, () => steps.map(step))) return;
  const passed = steps.filter(({ outcome }) => outcome === "passed").length;
  const outcome = passed === steps.length ? "passed" : "failed";
  find("checks").open = outcome === "failed";
  find("checks-passed").dataset.outcome = outcome;
  find("checks-passed").replaceChildren(mark(outcome),
    make("span", { class: "what" }, `${passed} of ${count(steps.length, "check")} passed`));
}

function step({ name, says, values, outcome }) {
  const said = [
    make("span", { class: "what" }, name[0].toUpperCase() + name.slice(1),
      make("span", { class: "hidden" }, `, ${MARKS[outcome][0]}.`)),
    make("span", { class: "says" }, says),
  ];
  const body = values.length ? disclose(said, values) : make("div", {}, ...said);
  return make("li", { "data-outcome": outcome }, mark(outcome), body);
}

function mark(outcome) {
  return draw("svg", { class: "mark", viewBox: "0 0 20 20", "aria-hidden": "true" },
    draw("circle", { cx: 10, cy: 10, r: 10 }), draw("path", { d: MARKS[outcome][1] }));
}
