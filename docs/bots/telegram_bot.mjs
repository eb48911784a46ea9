// Telegram in Node, with grammY. In a group the bot answers in the person's private chat.
//
// It reads BASE, KEY and TELEGRAM_TOKEN. A bot may write to a person only after they have started it, so in a group
// it may have to ask for that.
import { pathToFileURL } from "node:url";
import {
  CodeIncorrect, conversationIdOf, Delegation, DelegationError, isResult, NotFound, NothingToConfirm, serverOf, waitingForCode,
  waitsForSignIn,
} from "consumer-delegation";
import { Bot, GrammyError, InlineKeyboard } from "grammy";

const HINT = "Ask me: where is my order?";
const NOT_ANSWERING = "Acme is not answering right now. Please try again later.";
const IN_VAIN = "This does not work at the moment, and another try does not help. Please tell Acme.";
// Nobody should wait for what time does not mend.
const WORDS = {
  wait: "Something is wrong on our side. Please try again in a minute.",
  sign_in: "Please sign in with the link that I have sent. Then ask me again.",
  code: "Please type the six digits of the sign-in page into this chat.",
  again: "Please ask me again.",
  new_chat: "This chat is over. Please start a new one.",
  brand: IN_VAIN,
};
const SIGN_IN = "Please sign in at Acme. Then type the six digits of the last page into this chat.";
const SIX_DIGITS = /(?<![\w@#+])(?<!\d[ \xa0.-])\d{3}[ \xa0.-]?\d{3}(?![\w@])(?![ \xa0.-]\d)/;

export class Orders {
  constructor(delegation) {
    this.delegation = delegation;
  }

  /** The answer to a message: its text, and a link that becomes a button. */
  async reply(chat, text) {
    try {
      const code = SIX_DIGITS.exec(text)?.[0];
      if (code && !(await this.confirm(chat, code))) return { text: "I am not waiting for a code. Ask me where your order is." };
      if (code || /order/i.test(text)) return await this.orders(chat);
      return /bye/i.test(text) ? await this.close(chat) : { text: HINT };
    } catch (error) {
      if (error instanceof CodeIncorrect) return { text: `That is not the code. Tries left: ${error.attemptsLeft}` };
      if (!(error instanceof DelegationError)) throw error;
      return { text: error.remedy === "wait" && error.code?.startsWith("api_") ? NOT_ANSWERING : WORDS[error.remedy] };
    }
  }

  /** Pass a code on. Returns false if nobody waits for one. */
  async confirm(chat, code) {
    try {
      const conversation = await this.delegation.conversation(chat);
      const waiting = waitingForCode(conversation);
      if (!waiting) return false;
      // A brand with several servers has to be told whose code it is.
      const at = { session: conversation.session, authorization_server: waiting.authorization_server };
      await this.delegation.complete(chat, code, at);
      return true;
    } catch (error) {
      if (error instanceof NotFound || error instanceof NothingToConfirm) return false;
      throw error;
    }
  }

  /** The bot never holds a token: its key needs no `token:read`. */
  async orders(chat) {
    const challenge = { purpose: "to look up your order" };
    const called = await this.delegation.call(chat, "orders.list", { challenge }).catch((error) => {
      if (error.code !== "missing_scope" || error.remedy !== "sign_in") throw error;
      return this.askForMore(chat, challenge, error);
    });
    // Without a token that the brand accepts, the answer is the link.
    if (!isResult(called)) return { text: called.message, link: waitsForSignIn(called) ? called.url : undefined };
    const { status, body, body_encoding } = called.response; // the brand's own
    if (status === 429 || status >= 500) return { text: NOT_ANSWERING };
    if (status !== 200 || body_encoding !== "json") return { text: IN_VAIN };
    return { text: body.orders.map(({ item, status }) => `${item}: ${status}`).join("\n") || "You have no orders." };
  }

  /** A link for what the person left out at the last sign-in. No call makes one by itself, because the token is live. */
  async askForMore(chat, challenge, problem) {
    const conversation = await this.delegation.conversation(chat);
    const server = serverOf(conversation, problem.document.scope);
    const at = { session: conversation.session, ...(server && { authorization_server: server }) };
    return this.delegation.createChallenge(chat, { ...challenge, ...at });
  }

  async close(chat) {
    try {
      const { session } = await this.delegation.conversation(chat);
      await this.delegation.close(chat, session);
    } catch (error) {
      if (!(error instanceof NotFound)) throw error; // there was nothing to forget
    }
    return { text: "Goodbye. I have forgotten everything about this chat." };
  }
}

/** Let a bot answer questions for orders. */
export function addTo(bot, orders) {
  bot.on("message", async (context) => {
    const { from, chat, message } = context;
    // Anonymous admins of a group have no person: `from` is a stand-in for many.
    if (!from || from.is_bot || message.sender_chat) return;
    const inGroup = chat.type !== "private";
    if (inGroup && !isFor(message, context.me.username)) return;
    const reply = await orders.reply(conversationIdOf("telegram", String(from.id)), message.text ?? "");
    const options = reply.link ? { reply_markup: new InlineKeyboard().url("Sign in", reply.link) } : {};
    try {
      await context.api.sendMessage(from.id, reply.link ? SIGN_IN : reply.text, options); // a private chat has its person's id
    } catch (error) {
      if (!(error instanceof GrammyError && error.error_code === 403)) throw error;
      await context.reply("Please ask me in our private chat, where nobody else reads it.");
      return;
    }
    if (inGroup) await context.reply("I have written to you in private.");
  });
}

function isFor(message, username) {
  const mentions = (message.entities ?? []).filter((entity) => entity.type === "mention");
  const named = mentions.map(({ offset, length }) => message.text.slice(offset, offset + length).toLowerCase());
  return named.includes(`@${username.toLowerCase()}`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const { BASE, KEY, TELEGRAM_TOKEN } = process.env;
  const bot = new Bot(TELEGRAM_TOKEN);
  addTo(bot, new Orders(new Delegation({ baseUrl: BASE, botKey: KEY })));
  await bot.start();
}
