// Client of Consumer Delegation: get a consumer's permission in the middle of a chat.
export * from "./answers.js";
export { Delegation, isResult, isToken, needsBrand, serverOf, waitingForCode, waitsForCode, waitsForSignIn } from "./client.js";
export type { Options } from "./client.js";
export { conversationIdOf } from "./ids.js";
export {
  ChallengeDiffers, CodeIncorrect, ConversationClosed, DelegationError, KeyRefused, NoAnswer, NotFound, NothingToConfirm, NoToken,
  Problem, RateLimited, RequestRefused, ServiceFailed, SessionMismatch, StepUpRequired, Unavailable, UnreadableAnswer,
} from "./problems.js";
export type { NextCall, ProblemDocument, Remedy } from "./problems.js";
export { verifyWebhook, WebhookRefused } from "./webhooks.js";
export type { Event } from "./webhooks.js";
