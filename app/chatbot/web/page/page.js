// The page: verifies first, then lets its reader ask; shows each answer with what proves it.

import { ask, begin, stop, verify } from "./server.js";
import { disclose, find, make } from "./elements.js";
import { showProof, showReceipt } from "./proof.js";
import { showSight } from "./sight.js";

const page = { id: null, ready: false, running: null, shown: null };

async function start() {
  setState("busy", "Verifying the enclave");
  setReady(false);
  find("exchanges").replaceChildren();
  find("refusal").hidden = true;
  find("empty").hidden = true;
  showNothing();
  try {
    greet(await verify());
  } catch (error) {
    greet(ended(error));
  }
}

function greet(found) {
  page.id = found.page ?? null;
  if (found.proof) showProof(found.proof);
  setState(found.verified ? "good" : "bad", found.state);
  find("empty").hidden = !found.verified;
  find("refusal").hidden = found.verified;
  if (!found.verified) {
    find("refusal").replaceChildren(...explain(found.failure, "h2"));
    setView("conversation");
    find("refusal").focus();
    return;
  }
  suggest(found.suggestions);
  setReady(true);
  find("text").focus();
}

function suggest(suggestions) {
  find("suggestions").replaceChildren(...suggestions.map((text) => {
    const button = make("button", { type: "button", class: "plain" }, text);
    button.addEventListener("click", () => converse(text));
    return make("li", {}, button);
  }));
}

async function converse(question) {
  if (!page.ready || page.running || !question.trim()) return;
  const exchange = { question, answer: "", pieces: [], frames: [], sight: null, receipt: null };
  find("empty").hidden = true;
  find("refusal").hidden = true;
  const view = makeExchange(exchange);
  setRunning(exchange);
  select(exchange, view);
  try {
    for await (const event of ask(page.id, question)) take(event, exchange, view);
    if (!view.done) finish(exchange, view, { failure: gone() });
  } catch (error) {
    finish(exchange, view, { failure: gone(error) });
  }
  setRunning(null);
}

function take(event, exchange, view) {
  if (event.sight) exchange.sight = event.sight;
  if (event.type === "news") {
    view.outcome.textContent = progress(event);
    const { first, seen } = event.frames;
    exchange.frames.splice(first, Infinity, ...seen);
    for (const [at, text] of event.pieces) {
      exchange.answer += text;
      exchange.pieces.push([at, text.length]);
      view.answer.append(text);
    }
    if (event.pieces.length) keepInSight();
  } else {
    finish(exchange, view, event);
  }
  if (page.shown !== exchange) return;
  if (event.sight && event.type === "news") {
    showSight(exchange);
    turnToSight();
  }
  drawSoon(exchange);
}

function progress({ state, place, seconds }) {
  const queue = place ? `number ${place} of those that wait` : "the model is reading it";
  const words = {
    sealing: "Sealing the question",
    sent: "Sealed and sent; the enclave has not opened it yet",
    waiting: `Opened inside the enclave; ${queue}`,
    answering: "Answering",
    whole: "Checking the receipt",
  };
  return `${words[state]} · ${seconds.toFixed(1)} s`;
}

function finish(exchange, view, event) {
  view.done = true;
  view.answer.removeAttribute("data-streaming");
  exchange.seconds = event.seconds ?? null;
  exchange.receipt = event.receipt ?? null;
  view.outcome.textContent = event.outcome ?? "Not whole; not in the conversation";
  view.outcome.dataset.state = event.type === "whole" ? "good" : "plain";
  if (event.found) {
    showProof(event.found.proof);
    setState(event.found.verified ? "good" : "bad", event.found.state);
  }
  if (event.failure) {
    const failure = make("div", { class: "failure", role: "alert" });
    failure.append(...explain(event.failure, "h3"));
    view.item.append(failure);
  }
  if (event.type === "whole") speak(`Answer: ${exchange.answer} ${event.outcome}`);
  if (event.type === "stopped") speak(event.outcome);
  if (page.shown === exchange) showReceipt(exchange.receipt);
  keepInSight();
}

function makeExchange(exchange) {
  const answer = make("div", { class: "answer", "data-streaming": "" });
  const outcome = make("button", { type: "button", class: "outcome", "aria-pressed": "false" },
    "Sealing the question");
  const item = make("li", {},
    make("p", { class: "question" }, make("span", { class: "hidden" }, "You asked: "), exchange.question),
    answer, outcome);
  const view = { item, answer, outcome, done: false };
  outcome.addEventListener("click", () => {
    select(exchange, view);
    if (exchange.sight) setView("sight");
  });
  find("exchanges").append(item);
  return view;
}

function select(exchange, view) {
  page.shown = exchange;
  for (const button of document.querySelectorAll(".outcome")) {
    button.setAttribute("aria-pressed", String(button === view.outcome));
  }
  showReceipt(exchange.receipt);
  showSight(exchange);
  turnToSight();
}

/** Where proof and sight are one column, bring the sight up. */
function turnToSight() {
  if (!page.shown.sight) return;
  document.querySelector(".evidence").scrollTop = find("sight").offsetTop - find("proof").offsetTop;
}

function showNothing() {
  page.shown = null;
  showReceipt(null);
  find("sight-body").hidden = true;
}

/** What happened, what it means, what to do; and the program's own words. */
function explain(failure, heading) {
  const { title, happened, means, next, words } = failure;
  const list = make("dl", {});
  for (const [name, text] of [["What happened", happened], ["What it means", means],
    ["What to do", next]]) list.append(make("dt", {}, name), make("dd", {}, text));
  const parts = [make(heading, {}, title), list];
  if (words) parts.push(disclose("In the program's words", [["Message", words]]));
  return parts;
}

function gone(error) {
  return {
    title: "The program behind this page has gone",
    happened: "This page lost the program on your machine that verifies and seals.",
    means: "The page itself holds no keys. An answer that was under way is not whole.",
    next: "Start it again in your terminal and open the link that it prints.",
    words: error ? String(error.message) : "",
  };
}

const ended = (error) => (
  { verified: false, state: "The program has ended", failure: gone(error) });

function setState(state, text) {
  find("state").dataset.state = state;
  find("state").textContent = text;
}

function setReady(ready) {
  page.ready = ready;
  const text = find("text");
  text.disabled = !ready;
  text.placeholder = ready ? "Ask the enclave" : "Nothing can be sent until the enclave is verified";
  find("send").disabled = !ready;
  find("new").disabled = !ready;
}

function setRunning(exchange) {
  const had = document.activeElement === find("stop");
  page.running = exchange;
  find("send").hidden = Boolean(exchange);
  find("stop").hidden = !exchange;
  find("stop").disabled = false;
  find("new").disabled = Boolean(exchange) || !page.ready;
  find("again").disabled = Boolean(exchange);
  if (had || !exchange) find("text").focus({ preventScroll: true });
}

function setView(view) {
  document.body.dataset.view = view;
  for (const button of document.querySelectorAll(".views button")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  document.querySelector(".evidence").scrollTop = 0;
}

function speak(text) {
  find("spoken").textContent = text;
}

function keepInSight() {
  const log = find("log");
  log.scrollTop = log.scrollHeight;
}

/** Draw at most once a picture, however many frames come. */
function drawSoon(exchange) {
  if (page.drawing) return;
  page.drawing = requestAnimationFrame(() => {
    page.drawing = null;
    if (page.shown === exchange) showSight(exchange);
  });
}

async function startAnother() {
  try {
    await begin(page.id);
  } catch (error) {
    setReady(false);
    greet(ended(error));
    return;
  }
  find("exchanges").replaceChildren();
  find("empty").hidden = false;
  showNothing();
  speak("New conversation, new keys");
  find("text").focus();
}

function halt() {
  if (!page.running) return;
  find("stop").disabled = true;
  stop(page.id).catch(() => {}); // if the program has gone, the answer's own stream tells so
}

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text");
  if (page.running || !text.value.trim()) return;
  converse(text.value);
  text.value = "";
});
find("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  find("ask").requestSubmit();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") halt(); });
find("stop").addEventListener("click", halt);
find("new").addEventListener("click", startAnother);
find("again").addEventListener("click", start);
for (const button of document.querySelectorAll(".views button")) {
  button.addEventListener("click", () => setView(button.dataset.view));
}

start();
