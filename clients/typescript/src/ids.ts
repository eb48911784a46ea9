// Conversation ids: what the API accepts, and how to make one of whatever a messaging platform has.
import { createHash } from "node:crypto";

export const LONGEST_ID = 200;
// "." and ".." are refused: fetch takes them out of a path, and the call would go elsewhere.
const ACCEPTED = /^(?!\.{1,2}$)[A-Za-z0-9._~:@|=;,+!$*()-]{1,200}$/;

/**
 * The id of one person's chat: of the platform's id of a private chat, or of a room and a person.
 *
 * Different names get different ids. Throws a `RangeError` if a name is missing.
 */
export function conversationIdOf(...names: string[]): string {
  if (names.length === 0 || names.some((name) => !name)) {
    throw new RangeError("name room and person: without the person, everybody in a room would share one permission");
  }
  // Of the characters that an id may have, "|" and "=" are kept for this. All others become = and two hex digits.
  const dots = names.length === 1 && (names[0] === "." || names[0] === "..");
  const other = dots ? /\./gu : /[^A-Za-z0-9._~:@;,+!$*()-]/gu;
  const chat = names.map((name) => name.replace(other, encoded)).join("|");
  return chat.length <= LONGEST_ID ? chat : `sha256==${createHash("sha256").update(chat).digest("hex")}`;
}

/** Pass an id through. Throws a `RangeError` for one that the API would refuse. */
export function accepted(conversationId: string): string {
  if (!ACCEPTED.test(conversationId)) {
    throw new RangeError("this is no conversation id: make one of the platform's id with conversationIdOf()");
  }
  return conversationId;
}

function encoded(character: string): string {
  return [...utf8(character)].map((byte) => `=${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
}

function utf8(character: string): Iterable<number> {
  const point = character.codePointAt(0) ?? 0;
  // Half a character: TextEncoder would write the same for each of them.
  const isLoneSurrogate = point >= 0xd800 && point <= 0xdfff;
  return isLoneSurrogate
    ? [0xe0 | (point >> 12), 0x80 | ((point >> 6) & 0x3f), 0x80 | (point & 0x3f)]
    : new TextEncoder().encode(character);
}
