// The conversation: what is asked and answered, and where the next question is typed.

import { copyButton } from "./copy.js";
import { disclose, find, list, make, refill, write } from "./elements.js";
import { clean, Markdown } from "./markdown.js";
import { canAsk, canType, CLOSED, mark, running, tell } from "./state.js";

const NEAR = 48; // pixels from the end at which a reader still follows
let wasIdle = false;
const items = new Map(); // of the list, by exchange
const drawings = new WeakMap(); // of answers, by element: how far each has come

/** Show the conversation as it stands; tells whether it newly says why nothing can be asked. */
export function showConversation(state, { ask, select }) {
  const log = find("log");
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
  showEmpty(state, ask);
  const grown = showExchanges(state, select);
  const refused = showRefusal(state);
  if (follows || grown || refused) log.scrollTop = log.scrollHeight;
  showComposer(state);
  return refused;
}

function showEmpty({ finding, exchanges, verifying, why, suggestions }, ask) {
  find("empty").hidden = why || verifying || !finding.verified || exchanges.length > 0;
  if (find("empty").hidden) return;
  write(find("welcome"), finding.welcome.title);
  write(find("welcome-text"), finding.welcome.text);
  refill(find("suggestions"), suggestions, (texts) => texts.map((text) => {
    const button = make("button", { type: "button", class: "plain" }, text);
    button.addEventListener("click", () => ask(text));
    return make("li", {}, button);
  }));
}

/** Show each exchange; tells whether there are more than before. */
function showExchanges({ exchanges, shown }, select) {
  const [first] = items.keys();
  if (first !== exchanges[0]) {
    items.clear();
    find("exchanges").replaceChildren();
  }
  const had = items.size;
  for (const exchange of exchanges.slice(had)) {
    items.set(exchange, makeItem(exchange, select));
    find("exchanges").append(items.get(exchange));
  }
  for (const [exchange, item] of items) showExchange(exchange, item, exchange === shown);
  return items.size > had;
}

function makeItem(exchange, select) {
  const outcome = make("button", { type: "button", class: "outcome" });
  outcome.addEventListener("click", () => select(exchange));
  return make("li", {},
    make("p", { class: "question" }, make("span", { class: "hidden" }, "You asked: "), exchange.question,
      ...(exchange.files.length ? [make("span", { class: "with" }, `With ${exchange.files.join("; ")}`)] : [])),
    make("div", { class: "answer" }),
    make("div", { class: "below" }, outcome,
      copyButton("Copy this answer, as Markdown", () => clean(exchange.answer))),
    make("div", { class: "failure", role: "alert", hidden: "" }));
}

function showExchange(exchange, item, pressed) {
  const [, answer, below, failure] = item.children;
  const [outcome, copy] = below.children;
  const comes = exchange.type === "news";
  showAnswer(exchange.answer, answer, comes);
  answer.toggleAttribute("data-streaming", comes);
  copy.hidden = comes || !exchange.answer;
  write(outcome, tell(exchange));
  outcome.dataset.state = exchange.type === "whole" ? "good" : "plain";
  outcome.setAttribute("aria-pressed", String(pressed));
  failure.hidden = !exchange.failure;
  if (exchange.failure) refill(failure, exchange.failure, (told) => explain(told, "h3"));
}

/** Show what has come of an answer. */
function showAnswer(text, element, comes) {
  const drawing = drawings.get(element) ?? { markdown: new Markdown(element), length: 0, over: false };
  drawings.set(element, drawing);
  if (text.length > drawing.length) drawing.markdown.feed(text.slice(drawing.length));
  drawing.length = text.length;
  if (!comes && !drawing.over) drawing.markdown.end();
  drawing.over = !comes;
}

/** Show why nothing can be asked; tells whether that is new. */
function showRefusal(state) {
  const { why, finding, exchanges } = state;
  const failure = why ? CLOSED[why] : exchanges.length ? null : finding?.failure ?? null;
  find("refusal").hidden = !failure;
  [, find("refusal").dataset.tone] = mark(state);
  return refill(find("refusal"), failure, () => (failure ? explain(failure, "h2") : []))
    && Boolean(failure);
}

/** What happened, what it means, what to do; and the program's own words. */
function explain({ title, happened, means, next, words }, heading) {
  const parts = [["What happened", happened], ["What it means", means], ["What to do", next]];
  const more = words ? [disclose("In the program's words", [["Message", words]])] : [];
  return [make(heading, {}, title), list(parts, "told"), ...more];
}

function showComposer(state) {
  const text = find("text");
  text.readOnly = !canType(state);
  text.disabled = !canType(state) && !text.value; // what was typed can still be copied
  text.placeholder = placeholder(state);
  find("keys").hidden = !canType(state);
  find("attach").disabled = !canType(state);
  const stop = find("stop");
  const nowhere = [document.body, stop].includes(document.activeElement);
  find("send").hidden = Boolean(running(state));
  find("send").disabled = !canAsk(state);
  stop.hidden = !running(state);
  stop.disabled = state.stopping;
  find("new").disabled = !canAsk(state);
  const idle = canAsk(state);
  if (idle && !wasIdle && nowhere) text.focus({ preventScroll: true });
  wasIdle = idle;
}

function placeholder({ why, verifying, session }) {
  if (why) return "This page is closed";
  if (verifying) return "The enclave is verified first";
  return session ? "Ask the enclave" : "Nothing can be sent until the enclave is verified";
}
