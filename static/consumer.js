// All that the consumer's pages do by script, and each of them works without it: copy the code on a press, and close a
// window of the chat's once there is nothing left to read. Nothing is sent anywhere.
"use strict";

const copy = document.querySelector("[data-copy]");
if (copy && navigator.clipboard) {
  const said = document.querySelector("[role=status]");
  copy.hidden = false;
  copy.addEventListener("click", () => {
    navigator.clipboard.writeText(copy.dataset.copy).then(
      () => { said.textContent = copy.dataset.copied; },
      () => { said.textContent = copy.dataset.failed; },
    );
  });
}

// Browsers close only what a script has opened, and remember that though our Cross-Origin-Opener-Policy has cut the tie
// to the opener. They also close a tab of a single page: one that was restored, or opened for its undo, must stay.
if (document.querySelector("[data-finished]") && window.history.length > 1) {
  window.close();
}
