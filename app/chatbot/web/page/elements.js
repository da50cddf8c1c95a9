// Elements: made of text, never of markup, so that nothing an answer says can become a part of the
// page.

/** Find the one element with this id. */
export const find = (id) => document.getElementById(id);

/** Make an element with attributes, and with texts or elements inside. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** Make an SVG element. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

/** Make the details of named values: a summary that opens a list. */
export function disclose(summary, values) {
  return make("details", {}, make("summary", {}, ...[summary].flat()), list(values, "values"));
}

/** Make a list of named values. */
export function list(values, kind) {
  return make("dl", { class: kind },
    ...values.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/** Put a text into an element; one that stands there already is left alone, and what is marked. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const filled = new WeakMap();

/** Fill an element from a value, anew only when it is another value; tells whether it was. */
export function refill(element, value, makeChildren) {
  if (filled.has(element) && filled.get(element) === value) return false;
  filled.set(element, value);
  element.replaceChildren(...makeChildren(value));
  return true;
}

/** Write a number, with its noun where one is given. */
export function count(number, noun) {
  const written = number.toLocaleString("en");
  return noun ? `${written} ${noun}${number === 1 ? "" : "s"}` : written;
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
