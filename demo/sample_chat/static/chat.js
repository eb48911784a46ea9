"use strict";
// The page also works without this file, by form posts. With it, new messages appear without a reload.
const messages = document.getElementById("messages");
const scroller = document.getElementById("scroll");
const form = document.getElementById("say");
const text = document.getElementById("text");
const send = document.getElementById("send");
const connection = document.getElementById("connection");
const unsent = document.getElementById("unsent");
const suggestions = document.getElementById("suggestions");
const TWO_SECONDS = 2000;
let busy = false;

function toTheEnd() {
  scroller.scrollTop = scroller.scrollHeight;
}

async function show(response) {
  if (response.status === 410 || response.redirected) {
    connection.textContent = "This chat is over. Start a new one at the top.";
    return close();
  }
  const fresh = await response.text();
  connection.textContent = "";
  if (fresh.trim()) {
    messages.insertAdjacentHTML("beforeend", fresh);
    toTheEnd();
  }
  messages.dataset.shown = response.headers.get("X-Chat-Messages");
  if (response.headers.get("X-Chat-Closed") === "yes") close();
}

function close() {
  messages.dataset.closed = "yes";
  text.disabled = send.disabled = true;
  suggestions.hidden = true;
}

// Returns nothing on success, otherwise the HTTP status, or 0 if there was no answer.
async function exchange(address, options) {
  busy = true;
  try {
    const response = await fetch(`${address}?after=${messages.dataset.shown}`, options);
    if (!response.ok && response.status !== 410) return response.status;
    await show(response);
    return null;
  } catch {
    return 0;
  } finally {
    busy = false;
  }
}

function whyUnsent(status) {
  if (status === 403) {
    return "Not sent: your browser did not keep this page's cookie. Over http Safari and all browsers of iOS keep none: "
      + "start the demo with make demo ARGS=--tls, or use Chrome, Edge or Firefox. In those, allow cookies and reload.";
  }
  return status ? `Not sent: the chat answered with an error (${status}). Press Send to try again.`
    : "Not sent: the chat cannot be reached. Press Send to try again.";
}

async function say(event) {
  event.preventDefault();
  const body = new FormData(event.target, event.submitter);
  if (!body.get("text").trim()) return;
  while (busy) await new Promise((resume) => setTimeout(resume, 50));
  const failed = await exchange(location.pathname, { method: "POST", body, headers: { "X-Chat-Script": "1" } });
  unsent.textContent = failed === null ? "" : whyUnsent(failed);
  if (failed !== null) text.value = body.get("text");
  else if (event.target === form) text.value = "";
  if (!text.disabled) text.focus();
}

async function lookForNews() {
  if (messages.dataset.closed !== "yes") {
    const failed = busy ? null : await exchange(messages.dataset.news, {});
    if (failed !== null) connection.textContent = "No connection to the chat. Trying again …";
    setTimeout(lookForNews, TWO_SECONDS);
  }
}

const signInLink = (event) => event.target.closest("a[target]");

// Store this chat for back.js, whichever way the link is opened: by a tap, a key, or from a menu.
function noteThatThisChatWaits(event) {
  if (signInLink(event)) localStorage.setItem("chat that waits", location.pathname);
}

// Open the link in a pop-up, which a button can close at the end. If pop-ups are blocked, it works as an ordinary link.
function openSignIn(event) {
  const link = signInLink(event);
  noteThatThisChatWaits(event);
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (window.open(link.href, "_blank", "popup,width=480,height=760")) event.preventDefault();
}

form.addEventListener("submit", say);
messages.addEventListener("pointerdown", noteThatThisChatWaits);
messages.addEventListener("click", openSignIn);
suggestions.addEventListener("submit", say);
toTheEnd();
if (messages.dataset.closed !== "yes") setTimeout(lookForNews, TWO_SECONDS);
