// Sight: what crossed the parent for one answer, beside what the asker wrote and read.

import { draw, find, make } from "./elements.js";

const WIDTH = 1000;
const TALL = 24;

/** Show the sight of one exchange; again whenever more of it has come. */
export function showSight(exchange) {
  const { sight } = exchange;
  find("sight-body").hidden = !sight;
  if (!sight) return;
  const words = sight.words_found || "none";
  find("sight-lead").textContent = "The parent is the server between you and the enclave. "
    + `It carried your question and its answer, and saw this of them: ${words} of your words.`;
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
  const blocks = frames.filter(([, , kind]) => kind === "frame");
  const end = Math.max(0.5, ...frames.map(([at]) => at), ...pieces.map(([at]) => at));
  const most = Math.max(1, ...pieces.map(([, length]) => length));
  drawLane("yours", end, pieces.map(([at, length]) => [at, 0.2 + 0.8 * (length / most)]));
  drawLane("theirs", end, blocks.map(([at]) => [at, 1]));
  find("lanes-words").textContent = `${end.toFixed(1)} s from left to right. The text came to you in `
    + `${pieces.length} pieces; the parent carried ${blocks.length} `
    + `${blocks.length === 1 ? "frame" : "frames"}, ${beat(blocks, sight)}.`;
}

function beat(frames, sight) {
  const sizes = new Set(frames.map(([, bytes]) => bytes));
  if (sizes.size !== 1) return "none yet";
  const size = `${count([...sizes][0])} bytes each`;
  return sight.padding === "constant" ? `${size}, sent on a steady beat, full or empty` : size;
}

function drawLane(kind, end, marks) {
  const line = draw("line", { class: "axis", x1: 0, x2: WIDTH, y1: TALL, y2: TALL });
  const rects = marks.map(([at, part]) => draw("rect", {
    class: kind, x: Math.max(0, (at / end) * WIDTH - 6), y: TALL * (1 - part), width: 5,
    height: TALL * part,
  }));
  find(`lane-${kind}`).replaceChildren(line, ...rects);
}

function showNumbers({ sight, pieces, seconds }) {
  const rows = [
    ["Your question, in letters", count(sight.question_characters)],
    ["…as the parent sees it, in bytes", count(sight.request_bytes)],
    ["Frames of the answer", count(sight.frames)],
    ["…with text in them, which it cannot tell", count(pieces.length)],
  ];
  if (seconds) rows.push(["Time from question to end", `${seconds.toFixed(1)} s`]);
  find("numbers").replaceChildren(
    ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

const count = (number) => number.toLocaleString("en");
