// Markdown: an answer's text as elements, as it comes. They are made of text, never of markup, and
// none of them loads or leads anywhere: a target stands there to be read.
//
// What whole lines have become stays. The line under way is sketched anew with each piece, as if it
// ended there; no more than LONGEST_LINE characters are read together, so that this costs little.

import { Blocks } from "./blocks.js";
import { copyButton } from "./copy.js";
import { make } from "./elements.js";
import { readInline } from "./inline.js";

const LONGEST_LINE = 2000;
const MOST_ELEMENTS = 20000; // of an answer; what follows is text
// Controls but tab and newline, other ends of lines, and what reorders a line; as a terminal has it,
// see app/chatbot/console.py.
const CONTROLS = /[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g;
const UNKNOWN = /^[\s>*+\-_#`~|=.)\d]*$/; // a line of which it is not known what it will be

/** Give a text without what could reorder it, or do something where it is pasted. */
export const clean = (text) => text.replaceAll("\r\n", "\n").replace(CONTROLS, "\ufffd");

export class Markdown {
  #root;
  #rest = ""; // of the line under way
  #held = ""; // a carriage return that may be the first half of an end of line
  #within = false; // the start of the line under way is drawn for good
  #blocks = new Blocks();
  #nodes = new Map(); // by quote, item and list
  #place = { stack: [], leaf: null, code: null, first: true, rows: null, plain: null };
  #made = 0;
  #sketch = null; // what is drawn of the line under way, and how all was before

  constructor(root) {
    this.#root = root;
  }

  /** Take a piece of the answer. */
  feed(piece) {
    this.#erase();
    const text = this.#held + piece;
    this.#held = text.endsWith("\r") ? "\r" : "";
    const come = this.#held ? text.slice(0, -1) : text;
    const lines = (this.#rest + clean(come)).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) this.#end(line);
    while (this.#rest.length > LONGEST_LINE) this.#rest = this.#begin(this.#rest);
    this.#draw();
  }

  /** Nothing follows. */
  end() {
    this.#erase();
    this.#rest += clean(this.#held);
    if (this.#rest) this.#end(this.#rest);
    this.#rest = "";
    this.#showAll(this.#blocks.end());
  }

  #end(line) {
    let rest = line;
    while (rest.length > LONGEST_LINE) rest = this.#begin(rest);
    this.#take(rest);
    this.#within = false;
  }

  /** Take as much of a long line as is read together, up to a blank; give the rest. */
  #begin(line) {
    const length = line.lastIndexOf(" ", LONGEST_LINE - 1) + 1 || LONGEST_LINE;
    this.#take(line.slice(0, length));
    this.#within = true;
    return line.slice(length);
  }

  #take(line) {
    if (this.#made > MOST_ELEMENTS) this.#showPlain(line);
    else if (this.#within) this.#goOn(line);
    else this.#showAll(this.#blocks.read(line));
  }

  /** Draw the line under way, and one that waits. */
  #draw() {
    this.#sketch = {
      nodes: new Map(), drawn: [], before: [this.#blocks, this.#place, this.#made],
    };
    this.#blocks = this.#blocks.clone();
    this.#place = { ...this.#place };
    if (this.#within || !UNKNOWN.test(this.#rest)) this.#take(this.#rest);
    this.#showAll(this.#blocks.end());
  }

  #erase() {
    if (!this.#sketch) return;
    for (const node of this.#sketch.drawn) node.remove();
    [this.#blocks, this.#place, this.#made] = this.#sketch.before;
    this.#sketch = null;
  }

  #showAll(blocks) {
    for (const block of blocks) this.#show(block);
  }

  #show(block) {
    const { kind, text, stack } = block;
    this.#place.stack = stack;
    if (kind === "code") return this.#showCode(text);
    if (kind === "row") return this.#showRow("td", block.cells, this.#place.rows);
    if (kind === "text" && block.goesOn && this.#place.leaf) return this.#showMore(text);
    Object.assign(this.#place, { leaf: null, code: null, rows: null });
    if (kind === "text") this.#showText(text, "p", {});
    if (kind === "heading") this.#showText(text, "p", { class: "heading", "data-level": block.level });
    if (kind === "rule") this.#add(this.#inside(stack), "hr");
    if (kind === "language") this.#beginCode(text);
    if (kind === "head") this.#beginTable(block.cells);
  }

  /** Show a block of text. A heading is none of the page's, whose outline is the page's own. */
  #showText(text, name, attributes) {
    this.#place.leaf = this.#add(this.#inside(this.#place.stack), name, attributes);
    this.#showInline(text, this.#place.leaf);
  }

  #showMore(text) {
    this.#add(this.#place.leaf, "br");
    this.#showInline(text, this.#place.leaf);
  }

  /** Show what comes of a line whose start is drawn for good. */
  #goOn(text) {
    const { code, leaf } = this.#place;
    if (code) this.#append(code, text);
    else if (leaf) this.#showInline(text, leaf);
    else this.#showText(text, "p", {});
  }

  #showInline(text, parent) {
    for (const part of readInline(text, Boolean(this.#sketch))) this.#showPart(part, parent);
  }

  #showPart({ kind, text, parts, target }, parent) {
    if (kind === "text") return this.#append(parent, text);
    if (kind === "code") return this.#append(this.#add(parent, "code"), text);
    const linked = kind === "link" || kind === "image";
    const node = this.#add(parent, linked ? "span" : kind, linked ? { class: "link" } : {});
    for (const part of parts) this.#showPart(part, node);
    if (!linked || (kind === "link" && node.textContent === target)) return;
    const words = kind === "image" ? ` (image, not loaded: ${target})` : ` (${target})`;
    this.#append(this.#add(node, "span", { class: "target" }), words);
  }

  #beginCode(language) {
    const box = this.#add(this.#inside(this.#place.stack), "div", { class: "code" });
    const code = make("code");
    if (language) this.#append(this.#add(box, "span", { class: "language" }), language);
    box.append(copyButton("Copy this code", () => code.textContent), make("pre", {}, code));
    Object.assign(this.#place, { code, first: true });
  }

  #showCode(text) {
    this.#append(this.#place.code, this.#place.first ? text : `\n${text}`);
    this.#place.first = false;
  }

  #beginTable(cells) {
    const box = { class: "table", tabindex: "0", role: "group", "aria-label": "Table" };
    const table = this.#add(this.#add(this.#inside(this.#place.stack), "div", box), "table");
    this.#showRow("th", cells, this.#add(table, "thead"));
    this.#place.rows = this.#add(table, "tbody");
  }

  #showRow(name, cells, parent) {
    const row = this.#add(parent, "tr");
    for (const cell of cells) this.#showInline(cell, this.#add(row, cell ? name : "td"));
  }

  /** Show a line as it is: there are more elements than any answer for people has. */
  #showPlain(text) {
    this.#place.plain ??= this.#add(this.#root, "div", { class: "rest" });
    this.#append(this.#place.plain, this.#within ? text : `\n${text}`);
  }

  /** Give the element of the innermost quote or item. */
  #inside(stack) {
    return stack.reduce((parent, container) => this.#node(container, () => {
      if (container.mark === ">") return this.#add(parent, "blockquote");
      const [name, start] = container.mark === "1" ? ["ol", { start: container.number }] : ["ul", {}];
      return this.#add(this.#node(container.list, () => this.#add(parent, name, start)), "li");
    }), this.#root);
  }

  /** Give the element of a quote, an item or a list, made where there is none yet. */
  #node(key, makeNode) {
    const known = this.#sketch?.nodes.get(key) ?? this.#nodes.get(key);
    if (known) return known;
    const node = makeNode();
    (this.#sketch?.nodes ?? this.#nodes).set(key, node);
    return node;
  }

  #add(parent, name, attributes = {}) {
    this.#made += 1;
    const node = make(name, attributes);
    parent.append(node);
    this.#sketch?.drawn.push(node);
    return node;
  }

  #append(parent, text) {
    const last = parent.lastChild;
    if (!this.#sketch && last instanceof Text) return last.appendData(text);
    const node = document.createTextNode(text);
    parent.append(node);
    this.#sketch?.drawn.push(node);
  }
}
