// All that the consumer's pages do by script, and each of them works without it: copy the code, close the window. Both on
// a press: what a page says is not taken away unread, nor its receipt and its undo. Nothing is sent anywhere.
"use strict";

const said = document.querySelector("[role=status]");

const copy = document.querySelector("[data-copy]");
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", () => {
    navigator.clipboard.writeText(copy.dataset.copy).then(
      () => { said.textContent = copy.dataset.copied; },
      () => { said.textContent = copy.dataset.failed; },
    );
  });
}

// Browsers close what a script or a link has opened, whatever our Cross-Origin-Opener-Policy says, and no other window.
const close = document.querySelector("[data-close]");
if (close) {
  close.hidden = false;
  document.querySelector("[data-close-words]")?.remove();
  close.addEventListener("click", () => {
    window.close();
    setTimeout(() => { said.textContent = close.dataset.failed; }, 500);
  });
}
