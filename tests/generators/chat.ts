// What the bots of this folder share: the chat is standard input and output, one JSON object a line.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline/promises";

export const { BASE, KEY, CHAT, ORDERS } = process.env as Record<string, string>;
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Print a step. */
export const say = (step: string, told: object = {}) => console.log(JSON.stringify({ step, ...told }));

/** What the consumer types next. */
export const heard = async (): Promise<string> => String((await lines.next()).value);

/** Stop unless this holds. */
export function must(holds: unknown, told: unknown = ""): asserts holds {
  if (!holds) throw new Error(JSON.stringify(told));
}

/** Answers of a later version: members, codes and reasons that this one does not know. */
export const tomorrow = () => JSON.parse(readFileSync("tomorrow.json", "utf8"));

/** Another code than the right one. */
export const wrong = (code: string) => String((Number(code) + 1) % 1_000_000).padStart(6, "0");

/** Whether the brand's API takes the token. */
export const takesOrders = async (token: string) =>
  (await fetch(ORDERS, { headers: { Authorization: `Bearer ${token}` } })).status === 200;
