// The form in which a conversation is kept, by the browser and in files. What is read may be old,
// broken, or made by somebody else: it is checked field by field.

import { newTurn } from "../state.js";

export const FORM = 2;

const LONGEST_TITLE = 80;
const OUTCOMES = ["completed", "incomplete", "failed"];
const PHASES = ["sending", "waiting", "reasoning", "answering"];

const isText = (value) => typeof value === "string";
const isCount = (value) => Number.isInteger(value) && value >= 0;
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isBoolean = (value) => typeof value === "boolean";
const orNull = (check) => (value) => value === null || check(value);

const FIELDS = {
  parent: orNull(isText),
  number: isCount,
  question: isText,
  previousId: orNull(isText),
  asked: isText,
  at: isNumber,
  gone: isBoolean,
  changed: isNumber,
  stopping: isBoolean,
  responseId: orNull(isText),
  sequence: (value) => Number.isInteger(value) && value >= -1,
  phase: (value) => PHASES.includes(value),
  reasoning: isText,
  reasoningS: orNull(isNumber),
  reasoningTokens: isCount,
  reasoningSince: orNull(isNumber),
  panel: orNull(isBoolean),
  answer: isText,
  shown: isCount,
  answerTokens: isCount,
  paused: isBoolean,
  outcome: orNull((value) => isObject(value) && OUTCOMES.includes(value.status)),
  figures: orNull((value) => isObject(value) && isCount(value.underruns)),
  read: orNull((value) => isObject(value) && isNumber(value.tokens)),
  trace: orNull(Array.isArray),
  player: orNull(isObject),
  savedAt: isNumber,
};

/** A turn with the fields that are right; null if there is no question in it. */
function turnOf(value) {
  if (!isObject(value) || !isText(value.key) || !isText(value.question)) return null;
  const right = Object.entries(FIELDS).filter(
    ([name, check]) => Object.hasOwn(value, name) && check(value[name]),
  );
  const turn = newTurn(value.key, value.question, null);
  for (const [name] of right) turn[name] = value[name];
  turn.shown = Math.min(turn.shown, turn.answer.length);
  if (turn.outcome) turn.outcome = { reason: null, error: null, ...turn.outcome };
  return turn;
}

/**
 * A conversation `{ id, title, named, createdAt, updatedAt, leaf, turns }` from anything; null if it
 * is none. Turns whose parent is missing become first ones.
 */
export function conversationOf(value) {
  if (!isObject(value) || !isText(value.id) || !Array.isArray(value.turns)) return null;
  const seen = new Set();
  const turns = [];
  for (const turn of value.turns.map(turnOf)) {
    if (turn === null || seen.has(turn.key)) continue;
    if (!seen.has(turn.parent)) turn.parent = null;
    seen.add(turn.key);
    turns.push(turn);
  }
  const now = Date.now();
  return {
    id: value.id,
    title: isText(value.title) ? value.title.slice(0, LONGEST_TITLE) : "",
    named: value.named === true,
    createdAt: isNumber(value.createdAt) ? value.createdAt : now,
    updatedAt: isNumber(value.updatedAt) ? value.updatedAt : now,
    leaf: seen.has(value.leaf) ? value.leaf : (turns.at(-1)?.key ?? null),
    turns,
  };
}

/** The conversation of the page before there were several, `{ turns }`; null if it is none. */
export function firstForm(value, id) {
  if (!isObject(value) || !Array.isArray(value.turns)) return null;
  const chained = value.turns.filter(isObject).map((turn, i, all) => ({
    ...turn,
    parent: all[i - 1]?.key ?? null,
    number: i + 1,
  }));
  const found = conversationOf({ id, turns: chained });
  return found && { ...found, title: titleOf(found.turns) };
}

/** A title from the first question. */
export function titleOf(turns) {
  const line = (turns[0]?.question ?? "").trim().split("\n")[0];
  return line.length > LONGEST_TITLE ? `${line.slice(0, LONGEST_TITLE - 1)}…` : line;
}
