// The files that go with the next question: chosen or dropped, read by the program behind this page,
// and shown as they were read before anything is sent. Their text is never markup here.

import { count, find, make, write } from "./elements.js";
import { running } from "./state.js";

const items = new Map(); // of the list, by file
let last = 0;

/** Take files in: give those that may be sent, and say what is wrong with the others. */
export function admit(state, chosen) {
  const taken = [];
  for (const file of chosen) {
    if (state.files.length + taken.length >= state.mostFiles) {
      return [taken, `At most ${count(state.mostFiles, "file")} go with a question.`];
    }
    if (file.size > state.fileLimit) {
      const limit = Math.floor(state.fileLimit / 2 ** 20);
      return [taken, `${file.name} has over ${limit} MiB, which is the most that is read. Give a part of it.`];
    }
    last += 1;
    taken.push([{ file: last, name: file.name, pages: "", type: "sending" }, file]);
  }
  return [taken, ""];
}

/** Tell why nothing can be asked with these files, "" where it can. */
export function obstacle({ files }) {
  if (files.some(({ type }) => type === "unread")) {
    return "A file could not be read. Choose other pages of it, or remove it, and ask again.";
  }
  return files.every(({ type }) => type === "read") ? "" : "A file is still being read. Ask again in a moment.";
}

/** Show the files as they stand. */
export function showFiles(state, { remove, choose }) {
  const { files, exchanges } = state;
  for (const [file, item] of items) {
    if (files.includes(file)) continue;
    item.remove();
    items.delete(file);
  }
  for (const file of files) {
    if (!items.has(file)) {
      items.set(file, makeItem(file, remove, choose));
      find("files").append(items.get(file));
    }
    showFile(file, items.get(file));
    items.get(file).hidden = Boolean(running(state)?.given.includes(file.file)); // on its way
  }
  find("files").hidden = [...items.values()].every(({ hidden }) => hidden);
  write(find("offers"), files.length ? (exchanges.at(-1)?.offers ?? []).join("; ") : "");
}

function makeItem(file, remove, choose) {
  const pages = make("input", { type: "text", size: "8", placeholder: "all", autocomplete: "off" });
  pages.addEventListener("change", () => choose(file, pages.value));
  pages.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // or the form would ask
    choose(file, pages.value);
  });
  const away = make("button", { type: "button", class: "plain", "aria-label": `Remove ${file.name}` }, "Remove");
  away.addEventListener("click", () => remove(file));
  return make("li", {},
    make("p", { class: "name" }),
    make("p", { class: "says", role: "status" }),
    make("label", { class: "pages", hidden: "" }, make("span", {}), pages),
    make("details", { class: "read", hidden: "" }, make("summary", {}, "What was read"),
      make("div", { class: "clear", tabindex: "0", role: "group", "aria-label": `Text of ${file.name}` })),
    away);
}

function showFile(file, item) {
  const [name, says, pages, read] = item.children;
  item.dataset.state = file.type;
  write(name, file.name);
  write(says, [told(file), file.room && `${capital(file.room)}.`].filter(Boolean).join(". "));
  pages.hidden = !(file.total > 1 || file.pages);
  write(pages.firstElementChild, `${capital(file.unit ?? "page")}s, such as 1-3,7`);
  read.hidden = file.type !== "read";
  const more = file.more ? `\n\n… and ${count(file.more, "character")} more.` : "";
  write(read.lastElementChild, (file.text ?? "") + more);
}

function told({ type, says }) {
  if (type === "sending") return "Given to the program on this machine";
  if (type === "reading") return "Being read, on this machine";
  return says;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
