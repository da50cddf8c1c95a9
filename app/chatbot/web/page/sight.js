// Sight: what crossed the server for one answer, beside what the asker wrote and read. Every number
// here is counted from one list of pieces and one of frames, so all agree at any moment.

import { count, draw, find, list, refill, write } from "./elements.js";

const WIDTH = 1000;
const TALL = 24;
const MARK = 5;

/** Show the sight of the exchange that is shown, as far as it has come. */
export function showSight({ shown }) {
  const sight = shown?.sight;
  write(find("sight-lead"), lead(shown));
  find("sight-body").hidden = !sight;
  if (!sight) return;
  const frames = shown.frames.filter(([, , kind]) => kind === "frame");
  showLanes(shown, frames);
  write(find("wrote"), shown.question);
  write(find("read"), shown.answer || "…");
  write(find("request-size"), `carried ${count(sight.request_bytes, "byte")}`);
  write(find("request-bytes"), sight.request_start);
  write(find("answer-size"), `carried ${count(sum(shown.frames), "byte")} back`);
  write(find("answer-bytes"), sight.answer_start || "…");
  showNumbers(shown, frames);
}

function lead(shown) {
  const carries = "The server carries your question to the enclave, and its answer back.";
  if (!shown) return `${carries} Ask, and this shows what it saw of them.`;
  const { sight, type, words } = shown;
  if (!sight) return `Nothing of this question ${type === "news" ? "has reached" : "reached"} the server.`;
  if (type === "news") return `${carries} So far it saw this of them.`;
  if (!words) return `${carries} This is what it had seen of them when this page was closed.`;
  const found = words.found ? count(words.found) : "none";
  return `The server carried your question, and what came back. Of the ${count(words.sought, "word")} of `
    + `four letters or more that you wrote and read, it saw ${found}.`;
}

function showLanes({ pieces, sight, seconds }, frames) {
  const end = Math.max(0.1, seconds);
  const most = Math.max(1, ...pieces.map(([, text]) => text.length));
  drawLane("yours", end, pieces.map(([at, text]) => [at, 0.2 + 0.8 * (text.length / most)]));
  drawLane("theirs", end, frames.map(([at]) => [at, 1]));
  write(find("lanes-words"), `${seconds.toFixed(1)} s from left to right. The text came to you in `
    + `${count(pieces.length, "piece")}; the server carried ${count(frames.length, "frame")}`
    + `${beat(frames, sight)}.`);
}

function beat(frames, { padding }) {
  const sizes = new Set(frames.map(([, bytes]) => bytes));
  if (sizes.size !== 1) return "";
  const size = `, ${count([...sizes][0], "byte")} each`;
  return padding === "constant" ? `${size}, sent on a steady beat, full or empty` : size;
}

function drawLane(kind, end, marks) {
  const line = draw("line", { class: "axis", x1: 0, x2: WIDTH, y1: TALL, y2: TALL });
  const rects = marks.map(([at, part]) => draw("rect", {
    class: kind, x: Math.min(1, at / end) * (WIDTH - MARK), y: TALL * (1 - part), width: MARK,
    height: TALL * part,
  }));
  find(`lane-${kind}`).replaceChildren(line, ...rects);
}

function showNumbers({ sight, pieces, frames: messages, seconds, type }, frames) {
  const rows = [
    ["Your question, in letters", count(sight.question_characters)],
    ["…as the server saw it, in bytes", count(sight.request_bytes)],
    ["Frames of the answer", count(frames.length)],
    ["…with text in them, which it cannot tell", count(pieces.length)],
    ["Bytes of the answer, as the server saw it", count(sum(messages))],
  ];
  if (type !== "news") rows.push(["Time from question to end", `${seconds.toFixed(1)} s`]);
  refill(find("numbers"), JSON.stringify(rows), () => [...list(rows, "").children]);
}

const sum = (messages) => messages.reduce((total, [, bytes]) => total + bytes, 0);
