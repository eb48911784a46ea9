// What the API answers, member by member as in openapi.yaml. Answers may grow: ignore what you do not know.

export type ChallengeStatus =
  | "issued" | "started" | "confirmation_needed" | "completed" | "denied" | "cancelled" | "expired" | "superseded"
  | "withdrawn" | "failed";
export type AuthorizationStatus =
  | "closed" | "authorized" | "confirmation_needed" | "challenged" | "rechallenge_required" | "unchallenged";
/** Others may be added. */
export type SamePersonCheck = "completion_code" | "chat_page" | "expected_subject" | "none" | (string & {});

/** A sign-in that the consumer is asked for. */
export interface Challenge {
  challenge_id: string;
  conversation_id: string;
  session: number;
  authorization_server: string;
  status: ChallengeStatus;
  error: string | null;
  last_error: string | null;
  same_person_check: SamePersonCheck;
  scope: string;
  acr_values: string | null;
  max_age: number | null;
  purpose: string | Record<string, string> | null;
  locale: string | null;
  context: string | null;
  issued_at: string;
  started_at: string | null;
  confirmation_needed_at: string | null;
  completed_at: string | null;
  ended_at: string | null;
  expires_at: string;
  expires_in: number;
}

/** A challenge with what the consumer needs. Open `url` in the system browser. Log neither it nor `message`. */
export interface IssuedChallenge extends Challenge {
  url: string | null;
  message: string | null;
}

/** What is known of a token, without the token. */
export interface TokenFacts {
  /** `DPoP`: bound to a key that stays with the service. Such a token can only be called with. */
  token_type: "Bearer" | "DPoP" | (string & {});
  requested_scope: string;
  scope: string;
  missing_scope: string;
  assurance: SamePersonCheck;
  matched_claims: string[];
  acr: string | null;
  amr: string[];
  auth_time: string | null;
  subject_pinned: boolean;
  issued_at: string;
  expires_at: string;
  expires_in: number;
  lifetime_assumed: boolean;
}

/** A live token. Send it to the brand's API as the bearer token, and do not store it. */
export interface AccessToken extends TokenFacts {
  token_type: "Bearer";
  access_token: string;
  session: number;
  token_response_members?: Record<string, unknown>;
}

/** How the newest challenge ended. */
export interface LastChallenge {
  challenge_id: string;
  status: ChallengeStatus;
  error: string | null;
  last_error: string | null;
  ended_at: string | null;
}

/** A conversation's status at one authorization server. */
export interface Standing {
  authorization_server: string;
  status: AuthorizationStatus;
  reason: string | null;
  challenge: Challenge | null;
  access_token: TokenFacts | null;
  last_challenge: LastChallenge | null;
}

/** The sign-in is confirmed: the token can be read. */
export interface Confirmation extends Standing {
  session: number;
}

/** The receipt of a token that the bot has ended. */
export interface EndedToken extends Standing {
  conversation_id: string;
  session: number;
  ended_at: string;
  end_reason: "rejected" | "signed_out";
}

/** A conversation and its status at each authorization server. */
export interface Conversation {
  conversation_id: string;
  session: number;
  closed_at: string | null;
  authorization_servers: Standing[];
}

/** The receipt of a conversation that was closed, or of its session. */
export interface ClosedConversation {
  conversation_id: string;
  session: number;
  status: "closed";
  closed_at: string;
  access_tokens_erased: number;
  challenges_withdrawn: number;
}

/** What the brand's API answered to a call. Treat it as input. */
export interface ApiResponse {
  status: number;
  headers: Record<string, string>;
  /** `json`, `text`, `base64`, or `none`; more may be added. */
  body_encoding: string;
  body: unknown;
}

/** The brand's API has answered; `response.status` says how. */
export interface CallResult {
  conversation_id: string;
  session: number;
  operation: string;
  response: ApiResponse;
}

/** An operation of the brand's API. `input_schema` is that of `arguments` and `body`. */
export interface Operation {
  name: string;
  description: string | Record<string, string> | null;
  input_schema: Record<string, unknown>;
  read_only: boolean;
  session_required: boolean;
}

/** One page of what the brand's admin has declared. */
export interface OperationList {
  operations: Operation[];
  next_after: string | null;
}

/** Which server and session a call is for. Servers are named where the brand has several, sessions where ids are reused. */
export interface At {
  authorization_server?: string;
  session?: number;
}

/** What a token has to be good for. `min_ttl` is in seconds. */
export interface TokenWishes extends At {
  min_ttl?: number;
  scope?: string;
}

/** What a challenge asks for. */
export interface ChallengeWishes extends At {
  same_person_check?: SamePersonCheck;
  expected_subject?: string;
  expected_claims?: { phone_number?: string; email?: string };
  scope?: string;
  purpose?: string | Record<string, string>;
  locale?: string;
  context?: string;
  replace?: boolean;
}

export interface AuthorizeWishes extends ChallengeWishes {
  min_ttl?: number;
}

/** What an operation takes. With `challenge`, a call without a token that fits issues one. */
export interface CallWishes {
  arguments?: Record<string, unknown>;
  body?: unknown;
  session?: number;
  challenge?: ChallengeWishes;
}
