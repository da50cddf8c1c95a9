// The channel: all that passes between this page and the program that opened it, sealed by both.
// See app/chatbot/web/channel.py. Its keys exist in this page's memory alone, and no script, this one
// included, can read them: whoever has the program's port later can open nothing and forge nothing.

const CURVE = { name: "ECDH", namedCurve: "P-256" };
const INFO = "enclave-llm page 1 ";
const PIECE = 384 * 1024; // bytes of a file in one command
const STRIDE = 8192; // arguments that a call takes everywhere

/** The program does not take what it was sent: a token that was used, or another page's record. */
export class Refused extends Error {}

/** Tell whether this browser, at this address, lets a page seal at all. */
export const canSeal = () => window.isSecureContext && Boolean(window.crypto?.subtle);

export class Channel {
  #keys;
  #sent = 0;
  #heard = 0;
  #turn = Promise.resolve();
  #ending = new AbortController();

  constructor(keys) {
    this.#keys = keys;
  }

  /** Agree on keys with the program, which takes the token once. */
  static async open(token) {
    const own = await crypto.subtle.generateKey(CURVE, false, ["deriveBits"]);
    const key = await crypto.subtle.exportKey("raw", own.publicKey);
    const body = JSON.stringify({ token, key: toText(key) });
    const theirs = toBytes((await (await post("api/open", "application/json", body)).json()).key);
    const secret = await crypto.subtle.deriveBits(
      { ...CURVE, public: await crypto.subtle.importKey("raw", theirs, CURVE, false, []) },
      own.privateKey, 256);
    const salt = await crypto.subtle.digest("SHA-256", await new Blob([key, theirs]).arrayBuffer());
    return new Channel(await deriveKeys(secret, salt));
  }

  /** Give what the program tells, as it comes, until it or this page ends. */
  async *events() {
    const record = await this.#seal({ do: "listen" });
    const response = await post("api/events", "application/octet-stream", record, this.#ending.signal);
    for await (const line of lines(response.body)) {
      const event = await this.#open("events", this.#heard, toBytes(line));
      this.#heard += 1;
      yield JSON.parse(new TextDecoder().decode(event));
    }
  }

  /** Have the program do something, in turn; fails unless the program itself has taken it. */
  command(content) {
    const done = this.#turn.then(() => this.#command(content));
    this.#turn = done.catch(() => this.close()); // a record that may be lost has no successor
    return done;
  }

  /** Ask; the question leaves this page only once the program has proved that it is there. */
  async ask(text) {
    await this.command({ do: "prove" });
    await this.command({ do: "ask", text });
  }

  /** Give the program a file, piece by piece, and have it read. */
  async give(number, file, pages) {
    await this.command({ do: "prove" });
    for (let at = 0; at < file.size || at === 0; at += PIECE) {
      const piece = await file.slice(at, at + PIECE).arrayBuffer();
      await this.command({ do: "upload", file: number, data: toText(piece) });
    }
    await this.command({ do: "read", file: number, name: file.name, pages });
  }

  /** End it for good. */
  close() {
    this.#keys = null;
    setTimeout(() => this.#ending.abort(), 1000); // what the program says last may be on its way
  }

  async #command(content) {
    const number = this.#sent;
    const record = await this.#seal(content);
    const response = await post("api/command", "application/octet-stream", record);
    await this.#open("replies", number, await response.arrayBuffer());
  }

  async #seal(content) {
    const iv = nonce(this.#sent);
    this.#sent += 1;
    const data = new TextEncoder().encode(JSON.stringify(content));
    return crypto.subtle.encrypt({ name: "AES-GCM", iv }, this.#keys.commands, data);
  }

  #open(direction, number, record) {
    const key = this.#keys[direction];
    return crypto.subtle.decrypt({ name: "AES-GCM", iv: nonce(number) }, key, record);
  }
}

async function deriveKeys(secret, salt) {
  const base = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveKey"]);
  const keys = {};
  for (const [name, use] of [["commands", "encrypt"], ["replies", "decrypt"], ["events", "decrypt"]]) {
    const info = new TextEncoder().encode(INFO + name);
    keys[name] = await crypto.subtle.deriveKey(
      { name: "HKDF", hash: "SHA-256", salt, info }, base, { name: "AES-GCM", length: 256 }, false, [use]);
  }
  return keys;
}

function nonce(number) {
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setBigUint64(4, BigInt(number));
  return bytes;
}

async function post(path, kind, body, signal) {
  const response = await fetch(path, {
    method: "POST", headers: { "Content-Type": kind }, body, signal, redirect: "error",
    credentials: "omit",
  });
  if (!response.ok) throw new Refused(`answered ${response.status}`);
  return response;
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    yield* whole;
  }
}

function toText(buffer) {
  const bytes = new Uint8Array(buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += STRIDE) {
    text += String.fromCharCode(...bytes.subarray(at, at + STRIDE));
  }
  return btoa(text);
}
const toBytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
