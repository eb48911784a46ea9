// A whole bot with the client that orval generates; its zod schemas check what a later version might answer.
import { CHAT, KEY, heard, must, say, takesOrders, tomorrow, wrong } from "./chat";
import { authorize, closeConversation, complete, readChallenge, readToken } from "./orval/client";
import { ReadChallengeResponse } from "./orval/zod";

const signed = { headers: { Authorization: `Bearer ${KEY}` } };
const body = { purpose: "to look up your order", min_ttl: 30 };

const asked = await authorize(CHAT, body, {}, signed);
must(asked.status === 202, asked.data);
const { challenge_id, url } = asked.data;
say("challenge");

const early = await readToken(CHAT, {}, {}, signed);
must(early.status === 409 && early.data.code === "challenged", early.data);
must(early.data.next?.operation === "readChallenge");
say("conflict");

const tag = asked.headers.get("ETag")!;
const poll = (wait: number) => readChallenge(challenge_id, { wait }, { "If-None-Match": tag }, signed);
const unchanged = await poll(1);
must(unchanged.status === 304);
say("unchanged", { url });

const code = await heard();
const changed = await poll(25);
must(changed.status === 200 && changed.data.status === "confirmation_needed" && !changed.data.error, changed.data);
say("signed_in");

const refused = await complete(CHAT, { code: wrong(code) }, signed);
must(refused.status === 422 && refused.data.attempts_left === 4, refused.data);
say("wrong_code");

const confirmed = await complete(CHAT, { code }, signed);
must(confirmed.status === 200 && confirmed.data.status === "authorized", confirmed.data);
const granted = await authorize(CHAT, body, {}, signed);
must(granted.status === 200, granted.data);
must(await takesOrders(granted.data.access_token));
say("token");

const closed = await closeConversation(CHAT, {}, signed);
must(closed.status === 200 && closed.data.status === "closed", closed.data);
const gone = await readToken(CHAT, {}, {}, signed);
must(gone.status === 410 && gone.data.code === "conversation_closed", gone.data);
say("closed");

ReadChallengeResponse.parse(tomorrow().challenge);
say("tomorrow");
process.exit();
