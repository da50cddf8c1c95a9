// Copying: buttons that put a text on the clipboard, without what could do something there.

import { make, write } from "./elements.js";

const SHOWN_MS = 1500; // that a button says what came of it

/** Make a button that copies what *give* gives; its word is the style's, so that it is no text. */
export function copyButton(label, give) {
  const button = make("button", { type: "button", class: "copy", "aria-label": label });
  button.addEventListener("click", async () => {
    button.dataset.done = await copy(give());
    write(document.getElementById("spoken"), button.dataset.done === "yes" ? "Copied" : "Not copied");
    setTimeout(() => delete button.dataset.done, SHOWN_MS);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return "yes";
  } catch {
    return "no"; // the browser lets no page do so
  }
}
