// The state: all that is true of this page at one moment, and how each event changes it. What the
// page shows is drawn from this and nothing else, so no two things on it can disagree.

/** Give the state of a page that was just loaded. */
export const start = () => ({
  finding: null, // what the last verification came to; null before
  verifying: true,
  session: false, // whether there is an enclave to ask
  why: null, // the page is closed for good, as CLOSED says
  suggestions: [],
  limit: Infinity, // of a question, in bytes
  fileLimit: 0, // of a file, in bytes
  mostFiles: 0,
  files: [], // that go with the next question
  exchanges: [],
  shown: null, // the exchange whose evidence is shown
  sending: false,
  stopping: false,
  spoken: "",
});

/** Give the exchange whose answer is under way, if any. */
export const running = ({ exchanges }) => exchanges.find(({ type }) => type === "news") ?? null;

/** Tell whether something can be asked now. */
export const canAsk = (state) => canType(state) && !state.sending && !running(state);

/** Tell whether what is typed could be asked sooner or later. */
export const canType = ({ why, session, verifying }) => !why && session && !verifying;

/** Change the state by an event: see app/chatbot/web/visit.py. */
export function take(state, event) {
  if (event.type === "closed") close(state, event.why);
  else if (!state.why) TAKEN[event.type]?.(state, event);
}

/** Close the page for good; what was under way is not whole. */
export function close(state, why) {
  state.why = why;
  const exchange = running(state);
  if (exchange) Object.assign(exchange, { type: "failed", outcome: NOT_WHOLE });
  state.spoken = CLOSED[why].title;
}

const NOT_WHOLE = "Not whole, and not in the conversation";

const TAKEN = {
  opened: (state, { limit, file_limit: fileLimit, files: mostFiles }) => Object.assign(state, {
    limit, fileLimit, mostFiles }),
  read: takeFile,
  unread: takeFile,
  verifying: (state) => Object.assign(state, {
    verifying: true, session: false, finding: null, exchanges: [], shown: null }),
  finding: (state, { finding, suggestions = [] }) => Object.assign(state, {
    verifying: false, session: finding.verified, finding, suggestions }),
  begun: (state) => Object.assign(state, {
    exchanges: [], shown: null, spoken: "New conversation, new keys" }),
  asked: (state, { question, files, given }) => {
    state.shown = {
      question, files, given, answer: "", pieces: [], frames: [], sight: null, words: null, receipt: null,
      failure: null, outcome: "", type: "news", state: "sealing", place: null, seconds: 0,
    };
    state.exchanges = [...state.exchanges, state.shown];
    Object.assign(state, { sending: false, stopping: false });
  },
  news: (state, { pieces, frames, ...news }) => {
    const exchange = running(state);
    Object.assign(exchange, news);
    exchange.frames.push(...frames);
    exchange.pieces.push(...pieces);
    exchange.answer += pieces.map(([, text]) => text).join("");
  },
  whole: (state, event) => {
    const { given } = running(state); // in the conversation now
    state.files = state.files.filter(({ file }) => !given.includes(file));
    end(state, event);
  },
  stopped: end,
  failed: end,
};

function takeFile(state, { file: number, ...event }) {
  const file = state.files.find(({ file: own }) => own === number);
  if (!file || (file.pages !== event.pages)) return; // removed, or to be read anew
  Object.assign(file, { name: file.name, text: "", more: 0, room: null }, event);
  state.spoken = `${file.name}: ${file.says}`;
}

function end(state, { finding, ...event }) {
  const exchange = Object.assign(running(state), event);
  if (finding) state.finding = finding;
  state.spoken = event.type === "whole" ? `Answer: ${exchange.answer} ${exchange.outcome}`
    : exchange.outcome;
}

/** Say how far an answer has come, or how it ended. */
export function tell({ type, outcome, state, place, seconds }) {
  if (type !== "news") return outcome;
  const queue = place ? `number ${place} of those that wait` : "the model is reading it";
  const words = {
    sealing: "Sealing the question",
    sent: "Sealed and sent; the enclave has not opened it yet",
    waiting: `Opened inside the enclave; ${queue}`,
    thinking: "Thinking",
    answering: "Answering",
    whole: "Checking the receipt",
  };
  return `${words[state]} · ${seconds.toFixed(1)} s`;
}

/** Give the one mark of the page, and its tone. */
export function mark({ why, verifying, finding }) {
  if (why) return ["Closed", why === "replaced" ? "plain" : "bad"];
  return verifying ? ["Verifying", "plain"] : [finding.mark, finding.tone];
}

/** Why a page is closed, in the parts of a failure: see app/chatbot/evidence/failure.py. */
export const CLOSED = {
  link: {
    title: "This link does not open the page",
    happened: "The link that your terminal printed works once. It was used, or is not complete.",
    means: "Only the browser that used it first can open this page.",
    next: "Start the program again in your terminal, and open the whole link that it prints.",
  },
  insecure: {
    title: "This browser cannot seal what you write",
    happened: "It gives this page no WebCrypto, which browsers do for secure addresses alone.",
    means: "Without it, others on this machine could come to read what you ask. Nothing was sent.",
    next: "Open the link as it was printed, at 127.0.0.1, in a current browser.",
  },
  replaced: {
    title: "This page is open in another tab",
    happened: "It was opened again, and one tab at a time may ask.",
    means: "The program goes on there, with a conversation of its own. This tab sends nothing more.",
    next: "Go on in the other tab. To go on here, reload; that ends the other.",
  },
  ended: {
    title: "The program has ended",
    happened: "The program on your machine that verifies and seals was ended.",
    means: "This page is closed for good: it sends nothing more, whoever answers at its address.",
    next: "Start the program again in your terminal, and open the link that it prints.",
  },
  failed: {
    title: "The program has failed",
    happened: "The program on your machine met something that it does not know how to handle.",
    means: "This page is closed for good: it sends nothing more.",
    next: "Start the program again in your terminal, and report it if it repeats.",
  },
  lost: {
    title: "The program behind this page has gone",
    happened: "It ended without a word, or something else answered in its place.",
    means: "This page is closed for good: it sends nothing more, whoever answers at its address.",
    next: "Start the program again in your terminal, and open the link that it prints. Do not "
      + "reload this page: whoever has its address now would decide what you see.",
  },
};
