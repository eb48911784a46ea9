// The client. It sends one request a call, and repeats it where that is safe.
import { randomUUID } from "node:crypto";
import type {
  AccessToken, At, AuthorizeWishes, CallResult, CallWishes, Challenge, ChallengeWishes, ClosedConversation, Confirmation, Conversation, EndedToken,
  IssuedChallenge, Operation, OperationList, TokenWishes,
} from "./answers.js";
import { accepted } from "./ids.js";
import { jsonOf, NoAnswer, NothingToConfirm, NoToken, problemOf, retryAfter, UnreadableAnswer } from "./problems.js";
import type { ProblemClass } from "./problems.js";

const LONGEST_POLL = 25; // seconds
const TIMEOUT = 35_000; // milliseconds: above the longest poll
const PAUSE = 0.5; // seconds, where the service names none
const MOST_TRIES = 3;

type Query = Record<string, string | number | undefined>;

interface Request {
  method: "GET" | "POST" | "DELETE";
  path: string;
  /** If it was done and the answer was lost, doing it again does no harm. */
  isRepeatable: boolean;
  query?: Query;
  body?: object;
  headers?: Record<string, string>;
  conflict?: ProblemClass;
  /** The members that tell that the answer comes from this API. */
  has: string[];
}

interface Answer<Body> {
  status: number;
  etag: string;
  retryAfter: number | undefined;
  body: Body | undefined;
}

export interface Options {
  /** The address of the API; it ends in `/api/v1`. */
  baseUrl: string;
  botKey: string;
  /** How many seconds one call may wait for `Retry-After`. */
  patience?: number;
  fetch?: typeof fetch;
}

/**
 * The client of one bot. Every method rejects with `Problem` for an answer that is an error, `NoAnswer` without one, and
 * `RangeError` for an id that `conversationIdOf` has to encode first.
 */
export class Delegation {
  readonly #base: string;
  readonly #key: string;
  readonly #patience: number;
  readonly #fetch: typeof fetch;
  // Where the last read of a challenge left off, by its id.
  readonly #tags = new WeakMap<object, string>();

  constructor(options: Options) {
    this.#base = options.baseUrl.replace(/\/+$/, "");
    if (!/^https?:\/\/[^/?#\s@]+(\/[^?#\s]*)?\/api\/v1$/.test(this.#base)) {
      throw new RangeError("baseUrl is the address of the API, and ends in /api/v1");
    }
    if (!/^[!-~]+$/.test(options.botKey)) throw new RangeError("botKey is not a key that the admin has shown");
    this.#key = options.botKey;
    this.#patience = options.patience ?? 10;
    this.#fetch = options.fetch ?? fetch;
  }

  /** A live token, or the open challenge whose link the consumer needs. Call it whenever you need the token. */
  async authorize(conversationId: string, wishes: AuthorizeWishes = {}, readPurpose = ""): Promise<AccessToken | IssuedChallenge> {
    return this.#noting<AccessToken | IssuedChallenge>({
      method: "POST", path: chat(conversationId, "/authorize"), body: wishes, headers: purposeOf(readPurpose), has: ["session"],
      isRepeatable: !wishes.replace, // done twice, it would make a second link
    });
  }

  /** Call a declared operation of the brand's API. With `challenge`, a chat without a token gets its link. */
  async call(conversationId: string, operation: string, wishes: CallWishes = {}, purpose = ""): Promise<CallResult | IssuedChallenge> {
    return this.#noting<CallResult | IssuedChallenge>({
      method: "POST", path: chat(conversationId, `/calls/${encodeURIComponent(operation)}`), body: wishes, headers: purposeOf(purpose),
      isRepeatable: false, // the brand's API may have done it: only the bot knows whether doing it again does harm
      has: ["session"],
    });
  }

  /** The operations that the brand's admin has declared. */
  async operations(): Promise<Operation[]> {
    const found: Operation[] = [];
    let query: Query = {};
    for (;;) {
      const page = await this.#read<OperationList>({
        method: "GET", path: "/operations", query, isRepeatable: true, has: ["operations", "next_after"],
      });
      found.push(...page.operations);
      // The second condition: with it, no answer makes a loop without an end.
      if (page.next_after === null || page.operations.length === 0) return found;
      query = { after: page.next_after };
    }
  }

  /** Wait until the consumer has signed in or will not, a sign-in has failed, or `timeout` seconds are over. */
  async wait<Known extends Challenge>(known: Known, timeout = 300): Promise<Known | Challenge> {
    const until = Date.now() + timeout * 1000;
    let newest: Known | Challenge = known;
    while (waitsForSignIn(newest) && newest.last_error === known.last_error) {
      const left = (until - Date.now()) / 1000;
      const wait = Math.floor(Math.min(left, LONGEST_POLL));
      if (wait < 1) break;
      const tag = this.#tags.get(newest);
      const answer = await this.#exchange<Challenge>({
        method: "GET", path: `/challenges/${encodeURIComponent(known.challenge_id)}`, query: { wait }, isRepeatable: true,
        headers: tag ? { "If-None-Match": tag } : {}, has: ["challenge_id", "status"],
      });
      if (answer.body) {
        newest = answer.body;
        this.#tags.set(newest, answer.etag);
      }
      // Too many calls wait already: this one was answered at once.
      if (answer.retryAfter !== undefined) await pause(Math.min(Math.max(answer.retryAfter, PAUSE), Math.max(left, 0)));
    }
    return newest;
  }

  /** Pass on the digits that the consumer typed. Rejects with `CodeIncorrect` and `NothingToConfirm`. */
  async complete(conversationId: string, code: string, at: At = {}): Promise<Confirmation> {
    return this.#complete(conversationId, { code, ...at });
  }

  /** Pass on the handle of the chat's own page. */
  async completeWithHandle(conversationId: string, handle: string, at: At = {}): Promise<Confirmation> {
    return this.#complete(conversationId, { handle, ...at });
  }

  /** A live token; never creates a challenge. Rejects with `NoToken`, which says why there is none. */
  async token(conversationId: string, wishes: TokenWishes = {}, readPurpose = ""): Promise<AccessToken> {
    const path = chat(conversationId, "/token");
    const headers = purposeOf(readPurpose);
    return this.#read({ method: "GET", path, query: { ...wishes }, headers, isRepeatable: true, has: ["access_token"] });
  }

  /** End the token: the brand's API refused it, or the consumer signs out. */
  async endToken(conversationId: string, reason: "rejected" | "signed_out", at: At = {}): Promise<EndedToken> {
    // It ends whichever token is live when it arrives: done twice, it could end a newer one.
    const path = chat(conversationId, "/token");
    return this.#read({ method: "DELETE", path, query: { reason, ...at }, isRepeatable: false, has: ["end_reason"] });
  }

  /** Issue a challenge, or get the live one. Name a key of your own to repeat the call in another process. */
  async createChallenge(conversationId: string, wishes: ChallengeWishes = {}, idempotencyKey: string = randomUUID()): Promise<IssuedChallenge> {
    return this.#noting<IssuedChallenge>({
      method: "POST", path: chat(conversationId, "/challenges"), body: wishes, headers: { "Idempotency-Key": idempotencyKey },
      isRepeatable: true, has: ["challenge_id"],
    });
  }

  async challenge(challengeId: string): Promise<Challenge> {
    const path = `/challenges/${encodeURIComponent(challengeId)}`;
    return this.#noting<Challenge>({ method: "GET", path, isRepeatable: true, has: ["challenge_id"] });
  }

  async withdraw(challengeId: string): Promise<Challenge> {
    const path = `/challenges/${encodeURIComponent(challengeId)}`;
    return this.#read({ method: "DELETE", path, isRepeatable: true, has: ["challenge_id"] });
  }

  async conversation(conversationId: string, at: At = {}): Promise<Conversation> {
    const has = ["authorization_servers"];
    return this.#read({ method: "GET", path: chat(conversationId), query: { ...at }, isRepeatable: true, has });
  }

  /** End the chat: all that was granted in it is erased. Where ids are reused, name the session. */
  async close(conversationId: string, session?: number): Promise<ClosedConversation> {
    const has = ["closed_at"];
    return this.#read({ method: "DELETE", path: chat(conversationId), query: { session }, isRepeatable: true, has });
  }

  async #complete(conversationId: string, body: object): Promise<Confirmation> {
    // A code is accepted once, and a wrong one uses up a try.
    const path = chat(conversationId, "/completion");
    return this.#read({ method: "POST", path, body, isRepeatable: false, conflict: NothingToConfirm, has: ["status"] });
  }

  async #noting<Body extends object>(request: Request): Promise<Body> {
    const answer = await this.#exchange<Body>(request);
    if (!answer.body) throw new UnreadableAnswer("the answer is empty");
    this.#tags.set(answer.body, answer.etag);
    return answer.body;
  }

  async #read<Body extends object>(request: Request): Promise<Body> {
    return this.#noting<Body>(request);
  }

  async #exchange<Body extends object>(request: Request): Promise<Answer<Body>> {
    let patience = this.#patience;
    for (let tries = 1; ; tries++) {
      let seconds = PAUSE;
      try {
        const answer = await this.#send(request);
        const text = await answer.text();
        const mayRepeat = answer.status === 429 || (answer.status === 503 && request.isRepeatable);
        seconds = retryAfter(answer) || PAUSE;
        if (!mayRepeat || tries >= MOST_TRIES || seconds > patience) return read<Body>(request, answer, text);
      } catch (error) {
        // fetch rejects with a TypeError without a connection, and with an AbortError or TimeoutError after TIMEOUT.
        if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
        if (!request.isRepeatable || tries >= MOST_TRIES || seconds > patience) {
          throw new NoAnswer(`${request.method}: ${error.name}`, { cause: error });
        }
      }
      patience -= seconds;
      await pause(seconds);
    }
  }

  async #send({ method, path, query, body, headers }: Request): Promise<Response> {
    const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined);
    const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
    return this.#fetch(`${this.#base}${path}${search && `?${search}`}`, {
      method,
      redirect: "manual", // the key goes nowhere else
      signal: AbortSignal.timeout(TIMEOUT),
      headers: {
        ...headers,
        Authorization: `Bearer ${this.#key}`,
        ...(body ? { "Content-Type": "application/json" } : {}),
      },
      ...(body ? { body: JSON.stringify(body) } : {}),
    });
  }
}

/** Whether an answer of `authorize` is a token. */
export function isToken(granted: AccessToken | Challenge): granted is AccessToken {
  return "access_token" in granted;
}

/** Whether an answer of `call` is one of the brand's API. */
export function isResult(answer: CallResult | Challenge): answer is CallResult {
  return "response" in answer;
}

export function waitsForSignIn(challenge: Challenge): boolean {
  return challenge.status === "issued" || challenge.status === "started";
}

export function waitsForCode(challenge: Challenge): boolean {
  return challenge.status === "confirmation_needed";
}

// Of `last_error`: another try is in vain until somebody at the brand, or the operator, has changed something.
const OF_THE_BRAND = new Set(
  ("assurance_not_met claim_unusable invalid_client invalid_dpop_proof invalid_id_token " +
    "invalid_par_response invalid_request invalid_scope invalid_subject_response invalid_target " +
    "invalid_token_response redirect_uri_mismatch sign_in_refused stored_secret_unreadable " +
    "subject_request_refused unauthorized_client unsupported_grant_type unsupported_response_type").split(" "),
);

/** Whether a sign-in failed so that another try is in vain: tell the consumer and the brand, and do not wait. */
export function needsBrand(challenge: Challenge): boolean {
  return waitsForSignIn(challenge) && OF_THE_BRAND.has(challenge.last_error ?? "");
}

/** The sign-in that waits for the six digits. Of several servers', the one whose page was seen last. */
export function waitingForCode(conversation: Conversation): Challenge | undefined {
  const found = conversation.authorization_servers.map((server) => server.challenge);
  const seen = (challenge: Challenge) => Date.parse(challenge.confirmation_needed_at ?? challenge.issued_at);
  return found.filter((challenge) => challenge !== null).filter(waitsForCode).sort((one, other) => seen(other) - seen(one))[0];
}

/** The server whose token has this scope, such as that of the problem `missing_scope`. */
export function serverOf(conversation: Conversation, scope: string | undefined): string | undefined {
  return conversation.authorization_servers.find((server) => server.access_token?.scope === (scope ?? ""))?.authorization_server;
}

function read<Body extends object>(request: Request, answer: Response, text: string): Answer<Body> {
  const head = { status: answer.status, etag: answer.headers.get("ETag") ?? "", retryAfter: retryAfter(answer) };
  if (answer.status === 304) return { ...head, body: undefined };
  if (!answer.ok) throw problemOf(answer, text, request.conflict ?? NoToken);
  const body = jsonOf(text);
  const missing = request.has.filter((name) => !body || !(name in body));
  if (missing.length) throw new UnreadableAnswer(`the answer lacks ${missing.join(", ")}`);
  return { ...head, body: body as Body };
}

function chat(conversationId: string, rest = ""): string {
  return `/conversations/${encodeURIComponent(accepted(conversationId))}${rest}`;
}

function purposeOf(code: string): Record<string, string> {
  return code ? { "X-Purpose": code } : {};
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
