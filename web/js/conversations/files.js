// Conversations as files: JSON with everything, Markdown to read. Both can be read back; of
// Markdown only what is shown, one path without versions.

import { newTurn } from "../state.js";
import { FORM, conversationOf } from "./form.js";
import { pathShown } from "./tree.js";

const KIND = "pascal-conversations";
// Comments are invisible where Markdown is shown, and tell the parts from the text in them.
const QUESTION = "<!-- pascal: question -->";
const THOUGHTS = "<!-- pascal: thoughts -->";
const ANSWER = "<!-- pascal: answer -->";
const MARK = /^<!-- pascal: (\w+) -->$/;

export function toJson(records) {
  const conversations = records.map((record) => ({
    ...record,
    turns: record.turns.filter(({ gone }) => !gone),
  }));
  return JSON.stringify({ kind: KIND, form: FORM, conversations }, null, 1);
}

/** A line of text that looks like one of our marks would be taken for it. */
function guarded(text) {
  return text.replaceAll(/^(\\*<!-- pascal: \w+ -->)$/gm, "\\$1");
}

function unguarded(line) {
  return /^\\+<!-- pascal: \w+ -->$/.test(line) ? line.slice(1) : line;
}

export function toMarkdown({ title, turns, leaf }) {
  const parts = pathShown(turns, leaf).flatMap(({ question, reasoning, answer }) => [
    `${QUESTION}\n## Question\n\n${guarded(question)}`,
    ...(reasoning ? [`${THOUGHTS}\n### Thoughts\n\n${guarded(reasoning)}`] : []),
    ...(answer ? [`${ANSWER}\n### Answer\n\n${guarded(answer)}`] : []),
  ]);
  return `${[`# ${title.replaceAll("\n", " ")}`, ...parts].join("\n\n")}\n`;
}

/**
 * The conversations in a file of either kind.
 * @throws SyntaxError if there are none
 */
export function readFile(text, newId) {
  const records = text.trimStart().startsWith("{") ? fromJson(text) : fromMarkdown(text, newId);
  if (records.length === 0) throw new SyntaxError("There is no conversation in this file.");
  return records;
}

function fromJson(text) {
  const { kind, conversations } = JSON.parse(text);
  if (kind !== KIND || !Array.isArray(conversations)) {
    throw new SyntaxError("This file has no conversations of this page.");
  }
  return conversations.map(conversationOf).filter((record) => record?.turns.length > 0);
}

function fromMarkdown(text, newId) {
  const lines = text.replaceAll("\r\n", "\n").split("\n");
  const turns = [];
  let part = null;
  const parts = [];
  for (const line of lines) {
    const mark = MARK.exec(line);
    if (mark) {
      part = { name: mark[1], lines: [] };
      parts.push(part);
    } else part?.lines.push(unguarded(line));
  }
  for (const {
    name,
    lines: [, ...rest],
  } of parts) {
    const content = rest.join("\n").replace(/^\n/, "").replace(/\n+$/, "");
    if (name === "question") {
      const more = { parent: turns.at(-1)?.key ?? null, number: turns.length + 1 };
      const outcome = { status: "completed", reason: null, error: null };
      turns.push(newTurn(newId(), content, null, { ...more, phase: "answering", outcome }));
    } else if (turns.length > 0 && name === "thoughts") turns.at(-1).reasoning = content;
    else if (turns.length > 0 && name === "answer") {
      turns.at(-1).answer = content;
      turns.at(-1).shown = content.length;
    }
  }
  if (turns.length === 0) return [];
  const title = /^# (.+)$/m.exec(text)?.[1] ?? "";
  return [conversationOf({ id: newId(), title, named: title !== "", turns })];
}

/** A name for a file, of a title. */
export function fileName(title, end) {
  const plain = title
    .normalize("NFC")
    .replaceAll(/[^\p{L}\p{N}]+/gu, "-")
    .replaceAll(/^-+|-+$/g, "")
    .slice(0, 60);
  return `${plain || "conversation"}.${end}`;
}
