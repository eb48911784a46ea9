// The copy buttons of the admin's pages. Without script, or where a browser lets no page copy, they stay invisible, and a
// press on the text selects the whole of it (admin_forms.css).
"use strict";

if (navigator.clipboard) {
  document.documentElement.classList.add("can-copy");
  const said = document.createElement("div");
  said.setAttribute("role", "status");
  said.className = "visually-hidden";
  document.body.append(said);

  const tell = (button, word, sentence) => {
    const shown = button.querySelector(".copy-word");
    shown.textContent = word;
    said.textContent = sentence;
    setTimeout(() => { shown.textContent = "Copy"; said.textContent = ""; }, 4000);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const text = button.previousElementSibling;
    navigator.clipboard.writeText(text.textContent).then(
      () => tell(button, "Copied", "Copied."),
      () => {
        getSelection().selectAllChildren(text);
        tell(button, "Selected", "Your browser did not copy it. The text is selected: copy it from there.");
      },
    );
  });
}
