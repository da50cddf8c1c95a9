// Inline Markdown: emphasis, code, links and images of one line, as parts; what is none stays text.
//
// A small part of CommonMark, and the same as app/chatbot/terminal/inline.py reads: docs/page.md
// says which. What a line costs grows with its length alone, whatever stands in it.

const MOST_OPEN = 16; // marks that wait for their end; another one is text
const LONGEST = 3; // marks in a row
const TOKEN = /\\[!-/:-@[-`{-~]|`+|\*+|_+|~+|!?\[|\]|https?:\/\/[^\s<>*`[\]()]+/g;
const TARGET = /\(([^\s()]*(?:\([^\s()]*\)[^\s()]*)*)\)/y;

/**
 * Give the parts of a line, each with its kind, and its text or its own parts.
 *
 * With *coming*, more of the line is expected: what has begun is taken to go on to its end.
 */
export function readInline(text, coming = false) {
  return new Inline(text, coming).read();
}

class Inline {
  #items = [];
  #open = []; // places of marks in the items
  #endless = new Set(); // runs of backticks that nothing ends

  constructor(text, coming) {
    this.text = text;
    this.coming = coming;
  }

  read() {
    let at = 0;
    for (;;) {
      TOKEN.lastIndex = at;
      const found = TOKEN.exec(this.text);
      if (!found) break;
      this.#say(this.text.slice(at, found.index));
      at = this.#take(found[0], found.index, found.index + found[0].length);
    }
    this.#say(this.text.slice(at));
    if (this.coming) this.#endAll();
    return join(this.#items);
  }

  #say(text) {
    if (text) this.#items.push({ kind: "text", text });
  }

  /** Take a token; give where to go on. */
  #take(token, start, end) {
    if (token[0] === "\\") this.#say(token[1]);
    else if (token[0] === "`") return this.#takeCode(token, end);
    else if ("*_~".includes(token[0])) this.#takeMark(token, start, end);
    else if (token === "]") return this.#endLink(end);
    else if (token[0] === "h") this.#say(token);
    else this.#begin(token);
    return end;
  }

  #takeCode(run, end) {
    for (const other of this.#endless.has(run) ? [] : this.text.slice(end).matchAll(/`+/g)) {
      if (other[0] !== run) continue;
      const code = this.text.slice(end, end + other.index);
      const padded = code.startsWith(" ") && code.endsWith(" ") && code.trim();
      this.#items.push({ kind: "code", text: padded ? code.slice(1, -1) : code });
      return end + other.index + run.length;
    }
    if (this.coming && end < this.text.length) {
      this.#items.push({ kind: "code", text: this.text.slice(end) });
      return this.text.length;
    }
    this.#endless.add(run);
    if (!this.coming) this.#say(run);
    return end;
  }

  /** Take a run of marks, which ends what it can, and may begin what is left of it. */
  #takeMark(marks, start, end) {
    if (this.coming && end === this.text.length) return; // it may be longer
    let run = marks;
    let [begins, ends] = sides(run[0], this.text.slice(0, start), this.text.slice(end));
    if (run.length > LONGEST || (run[0] === "~" && run.length !== 2)) begins = ends = false;
    while (ends && run) {
      const place = this.#find(run[0]);
      if (place === undefined) break;
      run = run.slice(this.#close(place, run.length));
    }
    if (run && begins) this.#begin(run);
    else this.#say(run);
  }

  /** Give the place of the mark that waits, and was last to begin. */
  #find(characters) {
    return this.#open.findLast((place) => characters.includes(this.#items[place].text[0]));
  }

  /** Make what stands since the mark at a place a part; give how many of *length* it took. */
  #close(place, length) {
    const mark = this.#items[place].text;
    const taken = Math.min(length, mark.length) >= 2 ? 2 : 1;
    const kind = mark[0] === "~" ? "del" : taken === 2 ? "strong" : "em";
    const part = { kind, parts: join(this.#items.slice(place + 1)) };
    this.#leave(place);
    if (mark.length > taken) this.#begin(mark.slice(taken));
    this.#items.push(part);
    return taken;
  }

  #begin(text) {
    if (this.#open.length >= MOST_OPEN) return this.#say(text);
    this.#open.push(this.#items.length);
    this.#items.push({ kind: "mark", text });
  }

  /** Forget what stands from a place on. */
  #leave(place) {
    this.#items.length = place;
    while (this.#open.at(-1) >= place) this.#open.pop();
  }

  /** Take a closing bracket, and the target behind it; give where to go on. */
  #endLink(end) {
    const place = this.#find("[!");
    TARGET.lastIndex = end;
    const target = TARGET.exec(this.text);
    if (place === undefined || !target) {
      this.#open = this.#open.filter((open) => open !== place);
      this.#say("]");
      return end;
    }
    const kind = this.#items[place].text[0] === "!" ? "image" : "link";
    const part = { kind, parts: join(this.#items.slice(place + 1)), target: target[1] };
    this.#leave(place);
    this.#items.push(part);
    return end + target[0].length;
  }

  /** End all emphasis that has begun, where more is to come; one of nothing is not shown yet. */
  #endAll() {
    while (this.#open.length) {
      const place = this.#open.at(-1);
      const mark = this.#items[place];
      if ("![".includes(mark.text[0])) this.#open.pop();
      else if (place === this.#items.length - 1) this.#leave(place);
      else this.#close(place, mark.text.length);
    }
  }
}

/** Tell whether a run of marks between two texts may begin something, and whether it may end it. */
function sides(mark, before, after) {
  const last = [...before.slice(-2)].at(-1) ?? "";
  const next = String.fromCodePoint(after.codePointAt(0) ?? 32);
  const [begins, ends] = [Boolean(next.trim()), Boolean(last.trim())];
  if (mark !== "_") return [begins, ends];
  return [begins && !isLetter(last), ends && !isLetter(next)]; // within a word it is a letter
}

const isLetter = (character) => /^[\p{L}\p{N}]/u.test(character);

/** Give items with texts that follow each other, and marks without an end, as one text. */
function join(items) {
  const joined = [];
  for (const { kind, text, ...more } of items) {
    const last = joined.at(-1);
    if (kind !== "text" && kind !== "mark") joined.push({ kind, text, ...more });
    else if (last?.kind === "text") last.text += text;
    else joined.push({ kind: "text", text });
  }
  return joined;
}
