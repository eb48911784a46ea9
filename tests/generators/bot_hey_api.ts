// A whole bot with the client that hey-api generates, every answer checked by zod.
import { BASE, CHAT, KEY, heard, must, say, takesOrders, tomorrow, wrong } from "./chat";
import { client } from "./hey-api/client.gen";
import { authorize, closeConversation, complete, readChallenge, readToken } from "./hey-api/sdk.gen";
import { zChallenge, zProblem } from "./hey-api/zod.gen";

client.setConfig({ baseUrl: BASE, auth: KEY });
const path = { conversation_id: CHAT };
const body = { purpose: "to look up your order", min_ttl: 30 };

const asked = await authorize({ path, body });
must(asked.data && "challenge_id" in asked.data, asked.error);
const { challenge_id, url } = asked.data;
say("challenge");

const early = await readToken({ path });
must(early.response?.status === 409 && early.error?.code === "challenged", early.error);
must(early.error.next?.operation === "readChallenge");
say("conflict");

const tag = asked.response!.headers.get("ETag")!;
const poll = (wait: number) =>
  readChallenge({ path: { challenge_id }, query: { wait }, headers: { "If-None-Match": tag } });
const unchanged = await poll(1);
must(unchanged.response?.status === 304 && !unchanged.data);
say("unchanged", { url });

const code = await heard();
const changed = await poll(25);
must(changed.data?.status === "confirmation_needed" && !changed.data.error, changed.error);
say("signed_in");

const refused = await complete({ path, body: { code: wrong(code) } });
must(refused.error?.code === "completion_code_incorrect" && refused.error.attempts_left === 4, refused.error);
say("wrong_code");

const confirmed = await complete({ path, body: { code } });
must(confirmed.data?.status === "authorized", confirmed.error);
const granted = await authorize({ path, body });
must(granted.data && "access_token" in granted.data, granted.error);
must(await takesOrders(granted.data.access_token));
say("token");

must((await closeConversation({ path })).data?.status === "closed");
const gone = await readToken({ path });
must(gone.response?.status === 410 && gone.error?.code === "conversation_closed", gone.error);
say("closed");

zChallenge.parse(tomorrow().challenge);
must(zProblem.parse(tomorrow().problem).code === "of_tomorrow");
say("tomorrow");
process.exit();
