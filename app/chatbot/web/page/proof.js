// The proof: each step of verification with its outcome, and the values behind it.

import { disclose, draw, find, make } from "./elements.js";

const MARKS = {
  passed: ["passed", "m6 10.2 2.8 2.8 5.2-5.6"],
  failed: ["failed", "m7 7 6 6m0-6-6 6"],
  open: ["not reached", "M6.5 10h7"],
};

/** Show the steps of one verification. */
export function showProof(proof) {
  find("proof-lead").textContent = proof.lead;
  find("notice").textContent = proof.notice;
  find("notice").hidden = !proof.notice;
  find("steps").replaceChildren(...proof.steps.map(step));
  find("again").hidden = false;
}

/** Show what the receipt of one answer proves, or nothing. */
export function showReceipt(steps) {
  find("receipt").hidden = !steps;
  find("receipt-steps").replaceChildren(...(steps ?? []).map(step));
}

function step({ name, says, values, outcome }) {
  const [word, path] = MARKS[outcome];
  const mark = draw("svg", { class: "mark", viewBox: "0 0 20 20", "aria-hidden": "true" },
    draw("circle", { cx: 10, cy: 10, r: 10 }), draw("path", { d: path }));
  const said = [
    make("span", { class: "what" }, name[0].toUpperCase() + name.slice(1), make("span", { class: "hidden" }, `, ${word}.`)),
    make("span", { class: "says" }, says),
  ];
  const body = values.length ? disclose(said, values) : make("div", {}, ...said);
  return make("li", { "data-outcome": outcome }, mark, body);
}
