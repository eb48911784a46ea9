// grammY: updates as Telegram's, and the Bot API that takes the answers.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Delegation } from "consumer-delegation";
import { Bot } from "grammy";
import { addTo, Orders } from "./telegram_bot.mjs";

const ROOM = -100200;
const MENTION = "@acme_123456_bot";
const ME = { id: 42, is_bot: true, first_name: "Acme", username: "acme_123456_bot" };
const said = [];
let numbers = 0;

/** Takes a message as the Bot API does. */
const api = createServer((request, response) => {
  let body = "";
  request.on("data", (chunk) => (body += chunk));
  request.on("end", () => {
    const asked = JSON.parse(body);
    const link = asked.reply_markup?.inline_keyboard[0][0].url ?? "";
    said.push({ where: asked.chat_id === ROOM ? "room" : "private", text: asked.text, link });
    response.end(JSON.stringify({ ok: true, result: { message_id: ++numbers, date: 0, chat: { id: asked.chat_id, type: "private" } } }));
  });
});
await new Promise((resolve) => api.listen(0, "127.0.0.1", resolve));
const bot = new Bot("42:token", { botInfo: ME, client: { apiRoot: `http://127.0.0.1:${api.address().port}` } });
const { BASE, KEY } = process.env;
addTo(bot, new Orders(new Delegation({ baseUrl: BASE, botKey: KEY })));

/** A message of a person, as Telegram sends it. */
function update(person, text, inRoom) {
  const id = [...person].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 1e9, 7);
  const message = { message_id: ++numbers, date: 0, from: { id, is_bot: false, first_name: person }, chat: { id, type: "private" } };
  if (text !== null) message.text = text;
  if (inRoom) {
    message.chat = { id: ROOM, type: "supergroup", title: "Room" };
    message.text = `${MENTION} ${text}`;
    message.entities = [{ type: "mention", offset: 0, length: MENTION.length }];
  }
  return { update_id: ++numbers, message };
}

console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  const { person, text, in_room } = JSON.parse(line);
  said.length = 0;
  await bot.handleUpdate(update(person, text, in_room));
  console.log(JSON.stringify({ said }));
}
process.exit();
