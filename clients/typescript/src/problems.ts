// What can go wrong, one class for each thing that a bot does about it.
import type { LastChallenge } from "./answers.js";

/**
 * What a bot can tell its consumer, so that nobody waits in vain. `wait`: ask again in a while. `sign_in`: the link helps. `code`:
 * type the six digits. `again`: the same question again. `new_chat`: this one is over. `brand`: nothing of these, until the brand or
 * the bot's developer has changed something.
 */
export type Remedy = "wait" | "sign_in" | "code" | "again" | "new_chat" | "brand";

// Each code of the contract has a place.
const REMEDIES: Record<Remedy, string> = {
  wait: "rate_limited unavailable internal_error api_busy api_unreachable api_timeout",
  sign_in:
    "conversation_unknown unchallenged challenged challenge_differs rechallenge_required insufficient_lifetime " +
    "missing_scope step_up_required other_conversation",
  code: "confirmation_needed completion_code_incorrect completion_code_malformed",
  again: "authorized session_mismatch handle_unknown challenge_unknown",
  new_chat: "conversation_closed",
  brand:
    "invalid_bot_key insufficient_scope same_person_check_forbidden same_person_check_refused step_up_unavailable " +
    "api_host_refused api_proof_refused api_response_too_large token_in_answer token_is_sender_constrained " +
    "stored_value_unreadable operation_unknown arguments_invalid malformed_json invalid_conversation_id bad_request " +
    "not_found method_not_allowed length_required body_too_large unsupported_media_type invalid_request_body " +
    "unknown_parameter repeated_parameter invalid_wait invalid_idempotency_key idempotency_key_reused purpose_required " +
    "invalid_purpose invalid_min_ttl invalid_after invalid_session session_required invalid_reason invalid_scope " +
    "authorization_server_required authorization_server_unknown expected_subject_refused expected_claims_refused " +
    "expected_claim_invalid",
};
const BY_NEXT = new Map<string, Remedy>([["createChallenge", "sign_in"], ["readChallenge", "sign_in"], ["complete", "code"]]);

/** Everything that this client throws, apart from `RangeError` for wrong arguments. */
export class DelegationError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }

  get remedy(): Remedy {
    return "brand";
  }
}

/** The service could not be reached, or its answer was lost: the call may have been done. */
export class NoAnswer extends DelegationError {
  override get remedy(): Remedy {
    return "wait";
  }
}

/** An answer that does not come from this API, such as a page of a proxy. */
export class UnreadableAnswer extends DelegationError {}

/** The call that helps. `path` begins at the host. */
export interface NextCall {
  operation: string;
  method: string;
  path: string;
}

export interface ProblemDocument {
  type?: string;
  title?: string;
  status?: number;
  code?: string;
  detail?: string;
  next?: NextCall | null;
  reason?: string | null;
  last_challenge?: LastChallenge | null;
  last_error?: string | null;
  session?: number | null;
  challenge_id?: string;
  attempts_left?: number;
  expires_in?: number;
  requested_scope?: string;
  scope?: string;
  missing_scope?: string;
  acr_values?: string;
  max_age?: number;
  claim?: "phone_number" | "email" | (string & {});
  /** A JSON pointer to the argument that does not fit. */
  pointer?: string;
  /** Whether the brand's API may have done what a call asked. */
  was_sent?: boolean;
  request_id?: string;
}

/**
 * A problem document (RFC 9457). Branch on the class, or on `code`; codes may be added.
 *
 * `next` is null if no call helps: the request, the key or the configuration has to change, or the fault is ours.
 */
export class Problem extends DelegationError {
  readonly code: string;
  readonly detail: string;
  readonly next: NextCall | null;
  readonly attemptsLeft: number | undefined;
  readonly session: number | undefined;

  constructor(
    readonly status: number,
    /** The whole document. */
    readonly document: ProblemDocument,
    /** Seconds. */
    readonly retryAfter: number | undefined,
  ) {
    super(document.code ? `${status} ${document.code}: ${document.detail ?? ""}` : `HTTP ${status}`);
    this.code = document.code ?? "";
    this.detail = document.detail ?? "";
    this.next = document.next ?? null;
    this.attemptsLeft = document.attempts_left;
    this.session = document.session ?? undefined;
  }

  /** As `next` says, where the code leaves it open or is of a later version. */
  override get remedy(): Remedy {
    const known = (Object.keys(REMEDIES) as Remedy[]).find((remedy) => REMEDIES[remedy].split(" ").includes(this.code));
    const byNext = BY_NEXT.get(this.next?.operation ?? "");
    if (known === "sign_in" || known === "code") return byNext ?? "brand";
    return known ?? byNext ?? (this.status === 429 || this.status >= 500 ? "wait" : "brand");
  }
}

/** 401 or 403: the bot key is wrong, or may not do this. */
export class KeyRefused extends Problem {}
/** 404: no such conversation or challenge of this brand. */
export class NotFound extends Problem {}
/**
 * 409: no token fits. `code` is the authorization status, or what the token lacks; `next` is the call that helps.
 * `token_is_sender_constrained`: the brand's tokens cannot be read at all, only called with.
 */
export class NoToken extends Problem {}
/**
 * 409: the brand's API demands a stronger or newer sign-in for this call. The next challenge asks for it by itself. The token
 * stays. `document.acr_values` and `document.max_age` are what the API demands (RFC 9470).
 */
export class StepUpRequired extends NoToken {}
/** 409: a code that nobody waits for, or a handle of another conversation. */
export class NothingToConfirm extends Problem {}
/** 409: an open challenge asks for something else. Ask for the same, or set `replace`. */
export class ChallengeDiffers extends Problem {}
/** 409: the call was for another session, and nothing was done. It is late: drop it. */
export class SessionMismatch extends Problem {}
/** 410: this chat is over. If `next` names a call, it begins the next session. */
export class ConversationClosed extends Problem {}
/** 422: not the code of the page. `attemptsLeft` says how many tries are left. */
export class CodeIncorrect extends Problem {}
/** Another 4xx: the request has to change, and `detail` says how. */
export class RequestRefused extends Problem {}
/** 429: too often. `retryAfter` says how many seconds to wait. */
export class RateLimited extends Problem {}
/** 5xx: a fault of the service, or of something before it. */
export class ServiceFailed extends Problem {}
/** 503: for the moment. The call may have been done; `retryAfter` says how many seconds to wait. */
export class Unavailable extends ServiceFailed {}

export type ProblemClass = typeof Problem;

const BY_CODE: Record<string, ProblemClass> = {
  challenge_differs: ChallengeDiffers,
  completion_code_incorrect: CodeIncorrect,
  conversation_closed: ConversationClosed,
  session_mismatch: SessionMismatch,
  step_up_required: StepUpRequired,
};
const BY_STATUS: Record<number, ProblemClass> = {
  401: KeyRefused,
  403: KeyRefused,
  404: NotFound,
  410: ConversationClosed,
  429: RateLimited,
  503: Unavailable,
};

/** Read a problem. `conflict` is what a 409 means for this call. A page of a proxy has an empty `code`. */
export function problemOf(answer: Response, text: string, conflict: ProblemClass): Problem {
  const document = (jsonOf(text) ?? {}) as ProblemDocument;
  const code = typeof document.code === "string" ? document.code : "";
  const others = answer.status === 409 ? conflict : answer.status >= 500 ? ServiceFailed : RequestRefused;
  const byCode = Object.hasOwn(BY_CODE, code) ? BY_CODE[code] : undefined;
  return new (byCode ?? BY_STATUS[answer.status] ?? others)(answer.status, document, retryAfter(answer));
}

/** The JSON object in a text, or undefined. */
export function jsonOf(text: string): object | undefined {
  try {
    const body: unknown = JSON.parse(text);
    return typeof body === "object" && body !== null && !Array.isArray(body) ? body : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** The seconds of `Retry-After` (RFC 9110 section 10.2.3), a number or a date; undefined without a usable one. */
export function retryAfter(answer: Response): number | undefined {
  const value = answer.headers.get("Retry-After")?.trim() ?? "";
  if (/^[0-9]{1,9}$/.test(value)) return Number(value);
  const moment = Date.parse(value);
  return Number.isNaN(moment) ? undefined : Math.max((moment - Date.now()) / 1000, 0);
}
