// Blocks of Markdown: what each line of an answer is, by what came before it.
//
// A small part of CommonMark, and the same as app/chatbot/terminal/blocks.py reads: docs/page.md
// says which. A line is read once, and what it is never changes but for one that may head a table,
// which waits for the next.

const DEEPEST = 8; // quotes and items in each other; further marks are text
const MOST_COLUMNS = 32; // of a table
const LONGEST_LANGUAGE = 32;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})(?:([-*+])|([0-9]{1,9})[.)])(?: +|$)/;
const RULE = /^ {0,3}([-*_])(?: *\1){2,} *$/;
const HEADING = /^ {0,3}(#{1,6})(?: +|$)/;
const FENCE = /^ *(`{3,}|~{3,})([^`]*)$/;
const ROW = /^ {0,3}\|/;
const DELIMITERS = /^ {0,3}\|(?: *:?-+:? *\|)+ *$/;

export class Blocks {
  #stack = []; // quotes and items that the line stands in
  #fence = null;
  #text = false; // the line before was text, which this one may go on with
  #held = null; // may head a table
  #columns = 0; // of the table under way

  /** Give another that goes on from here. */
  clone() {
    const other = new Blocks();
    other.#stack = [...this.#stack];
    other.#fence = this.#fence;
    other.#text = this.#text;
    other.#held = this.#held;
    other.#columns = this.#columns;
    return other;
  }

  get inCode() {
    return Boolean(this.#fence);
  }

  /** Give what a line is, after the line before where that had to wait. */
  read(whole) {
    const line = whole.replace(/^[ \t]+/, (blank) => blank.replaceAll("\t", "    "));
    if (this.#fence) {
      const code = stripQuotes(line, this.#fence.quotes);
      if (code !== null) return this.#readCode(code);
      this.#fence = null;
    }
    const [kept, text] = this.#match(line);
    return this.#held ? this.#readAfterHeld(line, kept, text) : this.#read(line, kept, text);
  }

  /** Give the line that waits, if any; nothing follows. */
  end() {
    const held = this.#held;
    this.#held = null;
    return held ? [held] : [];
  }

  #readAfterHeld(line, kept, text) {
    const [held] = this.end();
    const cells = split(held.text);
    const heads = kept === this.#stack.length && DELIMITERS.test(text);
    if (heads && cells.length === split(text).length && cells.length <= MOST_COLUMNS) {
      this.#text = false;
      this.#columns = cells.length;
      return [{ ...held, kind: "head", cells }];
    }
    this.#text = true;
    return [held, ...this.#read(line, kept, text)];
  }

  #read(line, kept, rest) {
    if (this.#columns && kept === this.#stack.length && ROW.test(rest)) {
      return [this.#block("row", { cells: this.#fit(split(rest)) })];
    }
    this.#columns = 0;
    const { text, begun } = this.#enter(kept, rest);
    const fence = FENCE.exec(text);
    if (fence) return this.#beginCode(line, fence, begun);
    const wasText = this.#text;
    this.#text = false;
    if (!text.trim()) return [this.#block("blank")];
    if (RULE.test(text)) return [this.#block("rule")];
    const heading = HEADING.exec(text);
    if (heading) {
      const said = trim(text.slice(heading[0].length));
      return [this.#block("heading", { text: said, level: heading[1].length })];
    }
    if (ROW.test(text)) {
      this.#held = this.#block("text", { text: text.trim() });
      this.#text = wasText;
      return [];
    }
    this.#text = true;
    return [this.#block("text", { text: trim(text), goesOn: wasText })];
  }

  /** Give how many containers a line goes on in, and what is left of it behind them. */
  #match(whole) {
    let line = whole;
    for (const [kept, container] of this.#stack.entries()) {
      const lead = leadOf(line);
      if (container.mark === ">") {
        const quote = QUOTE.exec(line);
        if (!quote) return [kept, line];
        line = line.slice(quote[0].length);
      } else if (lead >= 2 || !line.trim()) {
        line = line.slice(Math.min(lead, container.indent));
      } else {
        return [kept, line];
      }
    }
    return [this.#stack.length, line];
  }

  /** Leave all but *kept* containers, and enter those that a text begins; give the rest. */
  #enter(kept, rest) {
    let text = rest;
    let begun = false;
    if (kept < this.#stack.length) this.#text = false;
    const left = this.#stack[kept];
    this.#stack.length = kept;
    while (this.#stack.length < DEEPEST) {
      const item = ITEM.exec(text);
      const quote = QUOTE.exec(text);
      if (quote) this.#stack.push({ mark: ">" });
      else if (item && !RULE.test(text) && this.#mayBegin(item)) this.#pushItem(item, begun ? null : left);
      else break;
      text = text.slice((quote ?? item)[0].length);
      this.#text = false;
      begun = true;
    }
    return { text, begun };
  }

  /** Tell whether an item begins here; amid text, no empty one, and of numbers the first. */
  #mayBegin(item) {
    return !this.#text
      || (item[0].length < item.input.length && [undefined, "1"].includes(item[3]));
  }

  #pushItem(item, left) {
    const mark = item[0].trim();
    const blanks = item[0].length - item[0].trimEnd().length;
    const indent = item[1].length + mark.length + Math.min(Math.max(blanks, 1), 4);
    const kind = item[2] ? "-" : "1";
    const list = left?.mark === kind ? left.list : {}; // an item beside the one before
    this.#stack.push({ mark: kind, indent, list, number: Number(item[3] ?? 1) });
  }

  #beginCode(line, fence, begun) {
    const quotes = this.#stack.filter(({ mark }) => mark === ">").length;
    const lead = leadOf(stripQuotes(line, quotes) ?? "");
    const items = this.#stack.reduce((sum, { indent = 0 }) => sum + indent, 0);
    this.#fence = { mark: fence[1], indent: begun ? items : lead, quotes };
    this.#text = false;
    return [this.#block("language", { text: fence[2].trim().slice(0, LONGEST_LANGUAGE) })];
  }

  #readCode(code) {
    const { mark, indent } = this.#fence;
    const said = code.trim();
    if (said.length >= mark.length && said === mark[0].repeat(said.length)) {
      this.#fence = null;
      return [];
    }
    return [this.#block("code", { text: code.slice(Math.min(leadOf(code), indent)) })];
  }

  /** Give as many cells as the table has columns; those that are too many are one. */
  #fit(cells) {
    const last = this.#columns - 1;
    const filled = [...cells, ...Array(Math.max(0, this.#columns - cells.length)).fill("")];
    return [...filled.slice(0, last), filled.slice(last).join(" | ")];
  }

  #block(kind, more = {}) {
    return { kind, text: "", stack: [...this.#stack], ...more };
  }
}

const leadOf = (line) => line.length - line.replace(/^ +/, "").length;
const trim = (text) => text.replace(/^ +/, "").replace(/ +$/, "");

/** Give what stands behind so many marks of quotes; null where there are fewer. */
function stripQuotes(whole, quotes) {
  let line = whole;
  for (let number = 0; number < quotes; number += 1) {
    const quote = /^ *> ?/.exec(line);
    if (!quote) return null;
    line = line.slice(quote[0].length);
  }
  return line;
}

/** Give the cells of a row. */
function split(row) {
  const cells = [""];
  for (const [part] of row.trim().matchAll(/\\.|[^|\\]+|[|\\]/gs)) {
    if (part === "|") cells.push("");
    else cells[cells.length - 1] += part === "\\|" ? "|" : part;
  }
  const stripped = cells.slice(1).map((cell) => cell.trim());
  return stripped.length > 1 && !stripped.at(-1) ? stripped.slice(0, -1) : stripped;
}
