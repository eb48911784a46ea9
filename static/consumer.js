// All that the consumer's pages do by script, and each of them works without it. On a press: copy the code, close the
// window. By itself: while the page with the code is looked at, ask whether the chat has got the code, and show the page
// that comes then. Nothing is submitted, and nothing is closed or taken away unread.
"use strict";

const FIRST_PAUSE = 3000, LONGEST_PAUSE = 10000, GROWTH = 1.25, SHORTEST_PAUSE = 1000, MOST_FAILURES = 3;
const MINUTE = 60;

function say(words) {
  document.querySelector("main [role=status]").textContent = words;
}

function offerCopy() {
  const copy = document.querySelector("[data-copy]");
  if (!copy || !navigator.clipboard) return;
  copy.hidden = false;
  copy.addEventListener("click", () => {
    navigator.clipboard.writeText(copy.dataset.copy).then(() => say(copy.dataset.copied), () => say(copy.dataset.failed));
  });
}

// Browsers close what a script or a link has opened, whatever our Cross-Origin-Opener-Policy says, and no other window.
function offerClose() {
  const close = document.querySelector("[data-close]");
  if (!close) return;
  close.hidden = false;
  document.querySelector("[data-close-words]")?.remove();
  close.addEventListener("click", () => {
    window.close();
    setTimeout(() => say(close.dataset.failed), 500);
  });
}

// In the page's language, without words of ours.
function inWords(seconds) {
  const inMinutes = seconds >= MINUTE;
  const [value, unit] = inMinutes ? [Math.round(seconds / MINUTE), "minute"] : [Math.ceil(seconds / 10) * 10, "second"];
  return new Intl.NumberFormat(document.documentElement.lang, { style: "unit", unit, unitDisplay: "long" }).format(value);
}

// Show the page that `done` has become in the place of this one, and say its heading once. The focus is left alone: if
// it was on a button that is gone, Tab goes on from there.
async function turn(main) {
  const answer = await fetch(location.pathname);
  if (!answer.ok && answer.status !== 404) throw new Error(String(answer.status));
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = page.querySelector("main");
  next.lang = page.documentElement.lang;
  next.dir = page.documentElement.dir;
  document.title = page.title;
  main.replaceWith(next);
  const heard = document.querySelector("[data-heard]");
  heard.lang = next.lang;
  heard.textContent = next.querySelector("h1").textContent;
  offerCopy();
  offerClose();
}

function watch(main) {
  const left = main.querySelector("[data-left]"), byHand = main.querySelector("[data-look]");
  let pause = FIRST_PAUSE, failures = 0, timer = 0, looking = false, looked = Date.now(), endsAt = 0;

  function count() {
    const words = inWords(Math.max((endsAt - Date.now()) / 1000, 0));
    if (left.textContent !== words) left.textContent = words;
  }

  function set(secondsLeft) {
    endsAt = Date.now() + secondsLeft * 1000;
    count();
  }

  function plan(wait) {
    clearTimeout(timer);
    if (!document.hidden && main.isConnected) timer = setTimeout(look, wait);
  }

  // True if the page has turned.
  async function ask() {
    const answer = await fetch(main.dataset.status);
    if (!answer.ok && answer.status !== 404) throw new Error(String(answer.status));
    const standing = answer.ok ? await answer.json() : { waiting: false };
    if (standing.waiting) set(standing.seconds_left);
    else await turn(main);
    return !standing.waiting;
  }

  async function look() {
    if (looking || !main.isConnected) return;
    looking = true;
    looked = Date.now();
    const isLast = looked >= endsAt;
    try {
      if (await ask()) return;
      failures = 0;
    } catch {
      failures += 1;
    } finally {
      looking = false;
    }
    byHand.hidden = failures < MOST_FAILURES && !(isLast && failures);
    if (isLast && failures) return;
    pause = Math.min(pause * GROWTH, LONGEST_PAUSE);
    plan(Math.min(pause, Math.max(endsAt - Date.now(), SHORTEST_PAUSE)));
  }

  document.addEventListener("visibilitychange", () => {
    pause = FIRST_PAUSE;
    plan(Math.max(SHORTEST_PAUSE - (Date.now() - looked), 0));
  });
  const clock = setInterval(() => (main.isConnected ? count() : clearInterval(clock)), 1000);
  byHand.hidden = true;
  set(Number(main.dataset.secondsLeft));
  plan(pause);
}

offerCopy();
offerClose();
const waiting = document.querySelector("main[data-status]");
if (waiting) watch(waiting);
