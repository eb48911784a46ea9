"use strict";
// The product redirected the browser here, with a one-use handle in the fragment. chat.js has stored from which chat of
// this browser the link was opened. The handle is sent to the bot of that chat only.
const words = document.getElementById("words");
const close = document.getElementById("close");
const handle = new URLSearchParams(location.hash.slice(1)).get("consumer_delegation_handle");
const chat = localStorage.getItem("chat that waits");
// The chat that the link came from; without one the button leads to a new chat.
if (chat) document.getElementById("chat").href = chat;
history.replaceState(null, "", location.pathname);

async function handOver() {
  const body = new FormData(document.getElementById("hand-over"));
  body.set("handle", handle);
  const answer = await fetch(`${chat}/handle`, { method: "POST", body });
  if (!answer.ok) throw new Error(String(answer.status));
  localStorage.removeItem("chat that waits");
  words.textContent = "You are signed in. Your chat goes on in the window that you came from.";
  close.hidden = false;
}

// Only on a press, so that no window closes before it is read. Scripts may close only windows that a script or link opened.
close.addEventListener("click", () => {
  window.close();
  setTimeout(() => { words.textContent = "Your browser leaves this window open. Close it as you close any other."; }, 500);
});

if (handle && chat) {
  handOver().catch(() => {
    words.textContent = "The chat cannot be reached. Go back to it and ask for a new link.";
  });
} else if (handle) {
  words.textContent = "No chat of this browser has asked for this sign-in, so it was not passed on.";
}
