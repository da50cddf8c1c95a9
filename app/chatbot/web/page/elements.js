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
  const list = make("dl", { class: "values" });
  for (const [name, value] of values) {
    list.append(make("dt", {}, name), make("dd", {}, value));
  }
  return make("details", {}, make("summary", {}, ...[summary].flat()), list);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
