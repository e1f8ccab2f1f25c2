// The state of the page as plain data, and the one pure function that changes it.
//
// A turn is one question and its answer:
//   key         id of the turn, and its stream_id unless `stream` is another
//   parent, number   the turn before it (null: none), and its place in the order of asking
//   question, previousId   what was asked, and the response it follows on
//   asked       "new" | "again" | "edited" | "more" | "now": why it was asked
//   at          when it was asked, ms since 1970 (0: not known)
//   responseId, sequence   the server's id, and the last sequence_number seen (-1: none)
//   phase       "sending" | "waiting" | "reasoning" | "answering"
//   ahead       requests that wait before it at the server; null: not known
//   gone, changed   whether it was deleted, and when that was decided (ms since 1970; 0: never)
//   held        null, or why it is not at the server, and when it is sent again:
//               { reason: "offline" | "busy" | "unready", untilS, error }
//   reasoning, reasoningS  the thoughts, and how long they took by the server's clock
//   reasoningTokens, reasoningSince   how many so far, and when they began (ms since 1970)
//   panel       the reader's choice: open (true) or closed (false); null: no choice yet
//   answer, shown          text received, and how many of its characters the pacer has shown
//   answerTokens   how many tokens of the answer were received
//   stopping, paused, resuming   asked of the server, until it acts
//   outcome     null, or { status, reason, error } after the terminal event
//   figures     of the final response object
//   read, trace what the reader got, and the picture of it (player.js); null: not known

import { merged, nextNumber, pathShown, pathThrough, pathTo, subtree } from "./conversations/tree.js";
import { DEFAULTS } from "./settings/settings.js";
import { figuresOf, isTerminal, textsOf } from "./wire.js";

export const DEFAULT_RATE = DEFAULTS.rate; // tokens per second

export function initialState() {
  return {
    connection: { status: "connecting" },
    model: null,
    contextTokens: null, // of the model: prompt and output
    operations: false, // whether this reader may open the operations page
    settings: { ...DEFAULTS },
    conversation: { id: null, title: "", named: false, createdAt: 0 },
    turns: [], // the path that is shown
    hidden: [], // turns of other versions, and what is left of deleted ones
    deleted: null, // what can be brought back: { turns, leaf }
    queued: null, // a question that is sent when the answer is complete
    draft: { text: "", editing: null, stamp: 0 }, // put into the composer; `editing`: key of a turn
    notice: null,
  };
}

export function newTurn(key, question, previousId, more = {}) {
  return {
    key,
    parent: null,
    number: 1,
    question,
    previousId,
    asked: "new",
    at: 0,
    stream: null,
    responseId: null,
    sequence: -1,
    phase: "sending",
    ahead: null,
    gone: false,
    changed: 0,
    held: null,
    reasoning: "",
    reasoningS: null,
    reasoningTokens: 0,
    reasoningSince: null,
    panel: null,
    answer: "",
    shown: 0,
    answerTokens: 0,
    stopping: false,
    paused: false,
    resuming: false,
    outcome: null,
    figures: null,
    read: null,
    trace: null,
    ...more,
  };
}

/** True until the server has ended the turn and all of it has been shown. */
export function isActive(turn) {
  return turn.outcome === null || turn.shown < turn.answer.length;
}

/** The turn that is being answered, or null. */
export function activeTurn(state) {
  const last = state.turns.at(-1);
  return last && isActive(last) ? last : null;
}

/** All turns of the conversation. */
export function allTurns(state) {
  return [...state.hidden, ...state.turns];
}

export function findTurn(state, key) {
  return state.turns.find((turn) => turn.key === key) ?? null;
}

/** Whether the thinking panel is open: the reader's choice, else while it streams. */
export function panelOpen(turn) {
  return turn.panel ?? (turn.answer === "" && turn.outcome === null);
}

/** The id for `previous_response_id` of the next question: the last turn kept by the server. */
export function lastResponseId(turns) {
  const kept = turns.filter((turn) => turn.responseId && turn.outcome?.status !== "failed");
  return kept.at(-1)?.responseId ?? null;
}

/** The conversation as messages, for a server that no longer has it. */
export function transcript(turns) {
  return turns.flatMap((turn) => {
    const asked = { role: "user", content: turn.question };
    return turn.answer ? [asked, { role: "assistant", content: turn.answer }] : [asked];
  });
}

export function reduce(state, action) {
  switch (action.type) {
    case "connection":
      return { ...state, connection: action.connection };
    case "model":
      return {
        ...state,
        model: action.model,
        contextTokens: action.contextTokens ?? null,
        operations: action.operations ?? false,
      };
    case "settings":
      return { ...state, settings: { ...state.settings, ...action.settings } };
    case "notice":
      return { ...state, notice: action.notice };
    case "queued":
      return { ...state, queued: action.question };
    case "draft": {
      const { text, editing = null } = action;
      return { ...state, draft: { text, editing, stamp: state.draft.stamp + 1 } };
    }
    case "opened":
      return opened(state, action);
    case "conversation":
      return { ...state, conversation: { ...state.conversation, ...action.conversation } };
    case "merged":
      return absorbed(state, action.turns);
    case "asked":
      return asked(state, action);
    case "chosen": {
      const all = allTurns(state);
      return shown(state, all, pathThrough(all, action.key));
    }
    case "deleted":
      return deleted(state, action);
    case "undeleted":
      return undeleted(state, action);
    case "forget":
      return { ...state, deleted: null };
    default:
      return withTurn(state, action.key, (turn) => reduceTurn(turn, action));
  }
}

/** A conversation is shown instead of this one. */
function opened(state, { conversation, turns, leaf }) {
  const next = { ...state, conversation, notice: null, queued: null, deleted: null };
  return shown(next, turns, pathShown(turns, leaf));
}

/** A version of a turn is deleted, with all that follows it; `key` is shown instead. */
function deleted(state, { key, instead, at }) {
  const all = allTurns(state);
  const keys = new Set(subtree(all, key));
  const kept = all.map((turn) => (keys.has(turn.key) ? remains(turn, at) : turn));
  const turns = all.filter((turn) => keys.has(turn.key));
  const leaf = state.turns.at(-1)?.key ?? null;
  return { ...shown(state, kept, pathThrough(kept, instead)), deleted: { turns, leaf } };
}

function undeleted(state, { at }) {
  if (state.deleted === null) return state;
  const { turns, leaf } = state.deleted;
  const back = new Map(turns.map((turn) => [turn.key, { ...turn, changed: at }]));
  const all = allTurns(state).map((turn) => back.get(turn.key) ?? turn);
  return { ...shown(state, all, pathShown(all, leaf)), deleted: null };
}

/** What stays of a deleted turn, so that another tab learns of it: its place, and no text. */
function remains({ key, parent, number }, at) {
  const outcome = { status: "incomplete", reason: "deleted", error: null };
  return { ...newTurn(key, "", null, { parent, number, outcome }), gone: true, changed: at };
}

/** What another tab has added. A path that ends at its last turn goes on by what was added. */
function absorbed(state, others) {
  const all = merged(allTurns(state), others);
  const leaf = state.turns.at(-1)?.key;
  if (leaf === undefined) return shown(state, all, []);
  return shown(state, all, pathThrough(all, pathShown(all, leaf).at(-1)?.key));
}

function shown(state, all, path) {
  const keys = new Set(path.map(({ key }) => key));
  return { ...state, turns: path, hidden: all.filter(({ key }) => !keys.has(key)) };
}

function asked(state, { key, question, previousId, parent, asked: why = "new", at = 0 }) {
  const all = allTurns(state);
  const before = parent === undefined ? (state.turns.at(-1)?.key ?? null) : parent;
  const more = { parent: before, number: nextNumber(all), asked: why, at };
  const turn = newTurn(key, question, previousId, more);
  const path = before === null ? [] : pathTo(all, before);
  return { ...shown(state, [...all, turn], [...path, turn]), notice: null, deleted: null };
}

function withTurn(state, key, change) {
  let changed = false;
  const turns = state.turns.map((turn) => {
    if (turn.key !== key) return turn;
    const next = change(turn);
    changed ||= next !== turn;
    return next;
  });
  return changed ? { ...state, turns } : state;
}

function reduceTurn(turn, action) {
  switch (action.type) {
    case "event":
      return applyEvent(turn, action.event, action.at ?? null);
    case "shown":
      return { ...turn, shown: Math.min(turn.answer.length, turn.shown + action.chars) };
    case "panel":
      return { ...turn, panel: action.open };
    case "held":
      return turn.outcome ? turn : { ...turn, held: action.held, phase: "sending" };
    case "ahead":
      return turn.phase === "waiting" && !turn.outcome ? { ...turn, ahead: action.ahead } : turn;
    case "stopping":
      return turn.outcome ? turn : { ...turn, stopping: true };
    case "stopped":
      return turn.outcome ? turn : stopped(turn, action.reason);
    case "told":
      return turn.outcome?.reason === "unconfirmed"
        ? { ...turn, outcome: { ...turn.outcome, reason: "cancelled" } }
        : turn;
    case "paused":
      return { ...turn, paused: action.paused };
    case "resuming":
      return { ...turn, resuming: action.resuming, stream: action.stream ?? turn.stream };
    case "forgotten":
      return { ...turn, previousId: null };
    case "failed":
      return turn.outcome ? turn : failed(turn, action.error);
    case "recovered":
      return ended({ ...turn, resuming: false }, action.response);
    case "read":
      return { ...turn, read: action.read, trace: action.trace };
    default:
      throw new TypeError(`unknown action ${action.type}`);
  }
}

function applyEvent(turn, event, at) {
  if (turn.outcome !== null || event.sequence_number <= turn.sequence) return turn; // seen already
  const next = { ...turn, sequence: event.sequence_number, resuming: false, held: null };
  switch (event.type) {
    case "response.created":
      return { ...next, responseId: event.response.id, phase: "waiting" };
    case "response.reasoning_text.delta":
      return {
        ...next,
        phase: "reasoning",
        reasoning: turn.reasoning + event.delta,
        reasoningTokens: turn.reasoningTokens + (event.tokens ?? 1),
        reasoningSince: turn.reasoningSince ?? at,
      };
    case "response.output_text.delta": {
      const answer = turn.answer + event.delta;
      const answerTokens = turn.answerTokens + (event.tokens ?? 1);
      return { ...next, phase: "answering", answer, answerTokens };
    }
    case "response.output_item.added": {
      const phase = event.item.type === "reasoning" ? "reasoning" : "answering";
      const since = phase === "reasoning" ? (turn.reasoningSince ?? at) : turn.reasoningSince;
      return { ...next, phase, reasoningSince: since };
    }
    case "response.output_item.done":
      if (event.item.type !== "reasoning") return next;
      return { ...next, reasoningS: event.reasoning_s ?? null };
    default:
      return isTerminal(event) ? ended(next, event.response) : next;
  }
}

/** The final response object decides, also on the text. */
function ended(turn, response) {
  const { reasoning, answer } = textsOf(response);
  return {
    ...turn,
    phase: answer ? "answering" : turn.phase,
    reasoning: reasoning || turn.reasoning,
    reasoningS: response.timing?.reasoning_s ?? turn.reasoningS,
    answer,
    shown: shownOf(turn, answer),
    stopping: false,
    paused: false,
    held: null,
    outcome: {
      status: response.status,
      reason: response.incomplete_details?.reason ?? null,
      error: response.error ? { status: 500, ...response.error } : null,
    },
    figures: figuresOf(response),
  };
}

/** How much of the final text is on the screen: all that was, unless the server cut it off. */
function shownOf(turn, answer) {
  if (answer.startsWith(turn.answer)) return turn.shown;
  return turn.answer.startsWith(answer) ? Math.min(turn.shown, answer.length) : answer.length;
}

/** The page has stopped it by itself: what was shown is the answer. */
function stopped(turn, reason) {
  return {
    ...over(turn),
    answer: turn.answer.slice(0, turn.shown),
    outcome: { status: "incomplete", reason, error: null },
  };
}

function failed(turn, error) {
  return { ...over(turn), outcome: { status: "failed", reason: null, error } };
}

function over(turn) {
  return { ...turn, stopping: false, paused: false, resuming: false, held: null };
}
