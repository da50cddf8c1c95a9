// Sight: what crossed the parent for one answer, beside what the asker wrote and read.

import { draw, find, make } from "./elements.js";

const WIDTH = 1000;
const LANES = { yours: 14, theirs: 66 };
const TALL = 26;

/** Show the sight of one exchange; again whenever more of it has come. */
export function showSight(exchange) {
  const { sight } = exchange;
  find("sight-body").hidden = !sight;
  if (!sight) return;
  find("sight-lead").textContent = "The parent is the server between you and the enclave. "
    + "It carried your question and its answer, and this is all it could see of them.";
  showLanes(exchange);
  find("wrote").textContent = exchange.question;
  find("read").textContent = exchange.answer || "…";
  find("request-size").textContent = `carried ${count(sight.request_bytes)} bytes`;
  find("request-bytes").textContent = sight.request_start;
  find("answer-size").textContent = `carried ${count(sight.answer_bytes)} bytes back`;
  find("answer-bytes").textContent = sight.answer_start;
  showNumbers(exchange);
}

function showLanes({ pieces, sight, frames }) {
  const end = Math.max(0.5, ...frames.map(([at]) => at), ...pieces.map(([at]) => at));
  const x = (at) => (at / end) * WIDTH;
  const most = Math.max(1, ...pieces.map(([, length]) => length));
  const svg = find("lanes");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} 100`);
  svg.replaceChildren(
    ...lane("theirs", frames.map(([at]) => [x(at), TALL])),
    ...lane("yours", pieces.map(([at, length]) => [x(at), TALL * (0.2 + 0.8 * (length / most))])),
  );
  find("lanes-words").textContent = `Above, text as you read it: ${pieces.length} pieces. Below, `
    + `frames as the parent saw them: ${frames.length}, ${beat(frames, sight)}. `
    + `${end.toFixed(1)} s from left to right.`;
}

function beat(frames, sight) {
  const sizes = new Set(frames.map(([, bytes]) => bytes));
  if (sizes.size !== 1) return "of several sizes";
  const size = `${count([...sizes][0])} bytes each`;
  return sight.padding === "constant" ? `${size}, on a steady beat, full or empty` : size;
}

function lane(kind, marks) {
  const base = LANES[kind] + TALL;
  const line = draw("line", { class: "axis", x1: 0, x2: WIDTH, y1: base + 1, y2: base + 1 });
  return [line, ...marks.map(([x, tall]) => draw("rect", {
    class: kind, x: Math.max(0, x - 6), y: base - tall, width: 5, height: tall,
  }))];
}

function showNumbers({ sight, seconds }) {
  const rows = [
    ["Words of yours in what it carried", String(sight.words_found)],
    ["Your question, in letters", count(sight.question_characters)],
    ["…as the parent sees it, in bytes", count(sight.request_bytes)],
    ["Frames of the answer", count(sight.frames)],
    ["…of these with text in them", sight.frames_with_text === null ? "known to you alone"
      : `${count(sight.frames_with_text)}, which it cannot tell`],
  ];
  if (seconds) rows.push(["Time from question to end", `${seconds.toFixed(1)} s`]);
  find("numbers").replaceChildren(
    ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

const count = (number) => number.toLocaleString("en");
