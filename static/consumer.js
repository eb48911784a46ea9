// All that the consumer's pages do by script, and every one of them works without it: copy the code on a press, and close
// a window that a script of the chat opened once there is nothing left to read. Nothing is sent anywhere.
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

if (document.querySelector("[data-finished]") && window.opener) {
  window.close();
}
