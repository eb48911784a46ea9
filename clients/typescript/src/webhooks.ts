// Verify a webhook by the Standard Webhooks specification, and read its event.
import { createHmac, timingSafeEqual } from "node:crypto";
import { DelegationError, jsonOf } from "./problems.js";

const TOLERANCE = 300; // seconds: an older message may be a repeated one

/** Not from the service, damaged, or too old. Answer 401. */
export class WebhookRefused extends DelegationError {}

/** One event. Ignore a `type` that you do not know, and an `id` that you have seen. */
export interface Event {
  id: string;
  type: string;
  timestamp: string;
  data: Record<string, unknown>;
  /** Events that belong to no conversation have none. */
  sequence?: number;
}

type Headers_ = Headers | Record<string, string | string[] | undefined>;

/**
 * The event of a message that was signed with this secret, or with one of several. Pass the body as it came.
 *
 * Throws `WebhookRefused` for every other message, and a `RangeError` for a secret that is none.
 */
export function verifyWebhook(secret: string | string[], headers: Headers_, body: string | Uint8Array): Event {
  const given = headers instanceof Headers ? [...headers] : Object.entries(headers);
  const named = new Map(given.map(([name, value]) => [name.toLowerCase(), value]));
  const [id, sentAt, signatures] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map((name) => {
    const value = named.get(name);
    if (typeof value !== "string") throw new WebhookRefused(`no header ${name}`);
    return value;
  }) as [string, string, string];
  if (!/^[0-9]{1,15}$/.test(sentAt) || Math.abs(Date.now() / 1000 - Number(sentAt)) > TOLERANCE) {
    throw new WebhookRefused("too old, or the clocks differ");
  }
  const keys = (Array.isArray(secret) ? secret : [secret]).map(keyOf);
  // One signature, or two while a secret is being replaced. Others may be of later versions of the specification.
  const theirs = signatures.split(" ").filter((each) => each.startsWith("v1,")).map((each) => Buffer.from(each.slice(3)));
  const ours = keys.map((key) =>
    Buffer.from(createHmac("sha256", key).update(`${id}.${sentAt}.`).update(body).digest("base64")),
  );
  const isRight = ours.some((own) => theirs.some((other) => own.length === other.length && timingSafeEqual(own, other)));
  if (!isRight) throw new WebhookRefused("no signature is right");
  const event = jsonOf(typeof body === "string" ? body : new TextDecoder().decode(body));
  if (!isEvent(event)) throw new WebhookRefused("signed, but no event");
  return { ...event, id };
}

function keyOf(secret: string): Buffer {
  const text = secret.trim().replace(/^whsec_/, "");
  // Buffer.from ignores what is no base64, and everybody can sign with an empty key.
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) throw new RangeError("the secret of a webhook endpoint begins with whsec_");
  return Buffer.from(text, "base64");
}

function isEvent(value: object | undefined): value is Omit<Event, "id"> {
  return value !== undefined && "type" in value && "timestamp" in value && "data" in value
    && typeof value.type === "string" && typeof value.data === "object" && value.data !== null;
}
