// A button to copy each command. The page is whole without it.
"use strict";
if (navigator.clipboard) {
  for (const command of document.querySelectorAll("pre.shell")) {
    const block = document.createElement("div");
    const button = document.createElement("button");
    block.className = "block";
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(command.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    command.replaceWith(block);
    block.append(command, button);
  }
}
