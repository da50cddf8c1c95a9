// The page: opens its channel, then draws what the program tells and sends what its reader does.

import { canSeal, Channel, Refused } from "./channel.js";
import { showConversation } from "./conversation.js";
import { count, find, write } from "./elements.js";
import { admit, obstacle, showFiles } from "./files.js";
import { showProof } from "./proof.js";
import { showSight } from "./sight.js";
import { canAsk, canType, close, mark, running, start, take } from "./state.js";

const STORED = "enclave-llm"; // the token with which a reload opens this page again
const state = start();
let channel = null;
let drawing = null;

async function run() {
  const tokens = takeTokens();
  if (!canSeal()) return end("insecure");
  try {
    channel = await open(tokens);
    if (!channel) return end("link");
    for await (const event of channel.events()) hear(event);
  } catch {
    // Whatever it was, a record that does not open or a connection that is cut: it ends here.
  }
  if (!state.why) end("lost");
}

async function open(tokens) {
  for (const token of tokens) {
    try {
      return await Channel.open(token);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }
  return null;
}

/** Give the token that an opening before this one left, and the link's, taken out of the address. */
function takeTokens() {
  const given = location.hash.slice(1);
  if (given) history.replaceState(null, "", "/");
  return [stored(), given].filter(Boolean);
}

function stored(token) {
  try {
    if (token) localStorage.setItem(STORED, token);
    return localStorage.getItem(STORED);
  } catch {
    return null; // a browser that stores nothing: a reload then needs another link
  }
}

function hear(event) {
  const text = find("text");
  if (event.type === "opened") stored(event.again);
  if (event.type === "asked" && text.value === event.question) text.value = "";
  if (event.type === "failed" && !text.value) text.value = running(state)?.question ?? ""; // to be mended
  take(state, event);
  show();
}

function end(why) {
  close(state, why);
  channel?.close();
  show();
}

/** Draw at most once a picture, however many events come. */
function show() {
  drawing ??= requestAnimationFrame(() => {
    drawing = null;
    draw();
  });
}

function draw() {
  const [word, tone] = mark(state);
  write(find("mark"), word);
  find("mark").dataset.tone = tone;
  document.title = `${word} · enclave-llm`;
  showProof(state);
  showSight(state);
  showFiles(state, { remove, choose });
  if (showConversation(state, { ask, select })) {
    setView("conversation");
    find("refusal").focus();
  }
  write(find("spoken"), state.spoken);
}

/** Send a command; when nobody proves to be the program, the page is closed. */
async function send(sending) {
  show();
  try {
    await sending;
  } catch {
    if (!state.why) end("lost");
  }
}

function ask(question) {
  if (!canAsk(state) || !question.trim() || isTooLong(question) || isHindered()) return;
  state.sending = true;
  send(channel.ask(question));
}

/** Keep what cannot be sent where it is, and say why. */
function isTooLong(question) {
  const bytes = new TextEncoder().encode(question).length;
  const excess = bytes > state.limit;
  write(find("problem"), excess
    ? `This is ${count(bytes, "byte")} long, and the limit is ${count(state.limit)}. Shorten it.` : "");
  return excess;
}

/** Keep a question whose files are not read, and say why. */
function isHindered() {
  const why = obstacle(state);
  if (why) write(find("problem"), why);
  return Boolean(why);
}

function attach(chosen) {
  if (!canType(state)) return;
  const [taken, problem] = admit(state, chosen);
  write(find("problem"), problem);
  for (const [file, content] of taken) {
    state.files = [...state.files, file];
    send(channel.give(file.file, content, file.pages).then(() => begin(file)));
  }
}

function begin(file) {
  if (file.type === "sending") file.type = "reading";
  show();
}

function remove(file) {
  state.files = state.files.filter((other) => other !== file);
  write(find("problem"), "");
  send(channel.command({ do: "remove", file: file.file }));
  find("attach").focus();
}

function choose(file, pages) {
  if (file.pages === pages || file.type === "sending") return;
  Object.assign(file, { pages, type: "reading" });
  write(find("problem"), "");
  send(channel.command({ do: "read", file: file.file, name: file.name, pages }));
}

function stop() {
  if (!running(state) || state.stopping) return;
  state.stopping = true;
  send(channel.command({ do: "stop" }));
}

function select(exchange) {
  state.shown = exchange;
  if (exchange.sight) setView("sight");
  show();
}

function setView(view) {
  if (document.body.dataset.view === view) return;
  document.body.dataset.view = view;
  for (const button of document.querySelectorAll(".views button")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
}

/** Tell whether a key belongs to an input method, which Safari tells by its code alone. */
const isComposing = (event) => event.isComposing || event.keyCode === 229;

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text");
  if (text.value.isWellFormed?.() === false) text.value = text.value.toWellFormed(); // half a letter is none
  ask(text.value);
});
find("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || isComposing(event)) return;
  event.preventDefault();
  find("ask").requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !isComposing(event)) stop();
});
find("text").addEventListener("input", () => write(find("problem"), ""));
find("stop").addEventListener("click", stop);
find("attach").addEventListener("click", () => find("chosen").click());
find("chosen").addEventListener("change", ({ target }) => {
  attach([...target.files]);
  target.value = ""; // the same file may be chosen again
});
/** Whatever is dropped anywhere is taken in, and never opened by the browser. */
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const leaves = kind === "drop" || (kind === "dragleave" && !event.relatedTarget);
    document.body.toggleAttribute("data-dropping", !leaves && canType(state));
    if (kind === "drop") attach([...event.dataTransfer.files]);
  });
}
find("new").addEventListener("click", () => { if (canAsk(state)) send(channel.command({ do: "new" })); });
find("again").addEventListener("click", () => send(channel.command({ do: "verify" })));
for (const button of document.querySelectorAll(".views button")) {
  button.addEventListener("click", () => setView(button.dataset.view));
}
addEventListener("hashchange", () => location.reload()); // the link, opened in this very tab

run();
