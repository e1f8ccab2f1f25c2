// The list of conversations, their files and their versions, without a browser.
import assert from "node:assert/strict";
import test from "node:test";

import { Memory } from "../../web/js/conversations/database.js";
import { fileName, readFile, toJson, toMarkdown } from "../../web/js/conversations/files.js";
import { conversationOf } from "../../web/js/conversations/form.js";
import { Library } from "../../web/js/conversations/library.js";
import { merged, pathShown, pathThrough, pathTo, versionsOf } from "../../web/js/conversations/tree.js";
import { newTurn } from "../../web/js/state.js";
import { settle } from "./support.mjs";

const COMPLETED = { status: "completed", reason: null, error: null };

function turn(key, parent, number, more = {}) {
  const answer = `answer of ${key}`;
  return newTurn(key, `question of ${key}`, null, {
    parent,
    number,
    answer,
    shown: answer.length,
    outcome: COMPLETED,
    ...more,
  });
}

function record(id, turns, more = {}) {
  const leaf = turns.at(-1).key;
  return { id, title: id, named: false, createdAt: 1, updatedAt: 1, leaf, turns, ...more };
}

/** Two tabs on one database. */
function tabs() {
  const database = Promise.resolve(new Memory());
  const channels = [];
  const open = () => {
    const channel = {
      postMessage: (data) =>
        channels.filter((other) => other !== channel).forEach((other) => other.onmessage({ data })),
    };
    channels.push(channel);
    let ids = 0;
    const changed = [];
    const library = new Library({
      database,
      channel,
      requestFrame: (callback) => callback(),
      newId: () => `new${(ids += 1)}`,
      onChange: (id) => changed.push(id),
    });
    return { kept: library, changed, rows: () => library.store.state.rows.map(({ id }) => id) };
  };
  return [open(), open()];
}

test("what one tab keeps, the other lists; the newest first", async () => {
  const [one, two] = tabs();
  await one.kept.save(record("a", [turn("t1", null, 1)], { updatedAt: 1 }));
  await one.kept.save(record("b", [turn("t2", null, 1)], { updatedAt: 2 }));
  assert.deepEqual(two.rows(), ["b", "a"]);
  assert.deepEqual(two.changed, ["a", "b"]);
  assert.deepEqual(one.changed, []);
  await two.kept.rename("a", "Sums");
  assert.equal((await one.kept.load("a")).title, "Sums");
  await one.kept.save(record("a", [turn("t1", null, 1)], { title: "question", updatedAt: 3 }));
  assert.equal((await two.kept.load("a")).title, "Sums"); // a name that was given stays
});

test("two tabs write into one conversation, and nothing is lost", async () => {
  const [one, two] = tabs();
  const first = turn("t1", null, 1);
  await one.kept.save(record("a", [first, turn("t2", "t1", 2)]));
  await two.kept.save(record("a", [first, turn("t3", "t1", 2, { outcome: null })]));
  const { turns } = await one.kept.load("a");
  assert.deepEqual(turns.map(({ key }) => key).toSorted(), ["t1", "t2", "t3"]);
});

test("a deleted conversation comes back whole", async () => {
  const [one, two] = tabs();
  await one.kept.save(record("a", [turn("t1", null, 1)]));
  await one.kept.remove("a");
  assert.deepEqual([one.rows(), two.rows()], [[], []]);
  assert.equal(await one.kept.load("a"), null);
  assert.equal(await one.kept.undo(), "a");
  assert.deepEqual(two.rows(), ["a"]);
  assert.equal((await two.kept.load("a")).turns[0].answer, "answer of t1");
  assert.equal(await one.kept.undo(), null);
});

test("search finds words in titles, questions and answers", async () => {
  const [{ kept: library }] = tabs();
  await library.save(record("a", [turn("t1", null, 1, { answer: "The Tower of Pisa leans." })]));
  await library.save(record("b", [turn("t2", null, 1, { question: "Which tower?" })]));
  const found = async (query) => (await library.search(query)).map(({ id }) => id).toSorted();
  assert.deepEqual(await found("TOWER"), ["a", "b"]);
  assert.deepEqual(await found("tower pisa"), ["a"]);
  assert.deepEqual(await found("nothing"), []);
  assert.deepEqual(await found("  "), []);
  assert.match((await library.search("leans"))[0].excerpt, /Pisa leans\./);
});

test("a full disk is told, and the page goes on", async () => {
  const database = new Memory();
  database.update = async () => {
    throw Object.assign(new Error("full"), { name: "QuotaExceededError" });
  };
  const library = new Library({
    database: Promise.resolve(database),
    requestFrame: (callback) => callback(),
    newId: () => "x",
  });
  await library.save(record("a", [turn("t1", null, 1)]));
  assert.equal(library.store.state.trouble, "full");
});

test("a file of JSON has everything", async () => {
  const [one] = tabs();
  const hard = turn("t2", "t1", 2, { answer: "<!-- pascal: answer -->\n# a\n```\n\n", shown: 3 });
  await one.kept.save(record("a", [turn("t1", null, 1), hard]));
  const text = toJson(await one.kept.all());
  const [other] = tabs();
  assert.equal(await other.kept.importFile(text), 1);
  assert.deepEqual(await other.kept.load("a"), await one.kept.load("a"));
  assert.equal(await other.kept.importFile(text), 1); // twice is as once
  assert.deepEqual(other.rows(), ["a"]);
});

test("a file of Markdown can be read, and read back", () => {
  const tricky = "text\n<!-- pascal: question -->\n\\<!-- pascal: answer -->\n## Question\nend";
  const turns = [
    turn("t1", null, 1, { reasoning: "Hm.\n\nYes.", answer: tricky, shown: tricky.length }),
    turn("t2", "t1", 2),
  ];
  const text = toMarkdown(record("Sums", turns));
  assert.match(text, /^# Sums\n/);
  let ids = 0;
  const [back] = readFile(text, () => `n${(ids += 1)}`);
  assert.equal(back.title, "Sums");
  const texts = (list) => list.map((t) => [t.question, t.reasoning, t.answer]);
  assert.deepEqual(texts(pathTo(back.turns, back.leaf)), texts(turns));
});

test("other files are refused with a reason", () => {
  for (const text of [
    "",
    "{}",
    "# Notes\n\nHello",
    '{"kind":"other","conversations":[]}',
    "{oops",
  ]) {
    assert.throws(() => readFile(text, () => "x"), SyntaxError);
  }
  assert.equal(fileName("Wie groß ist 2/3?", "md"), "Wie-groß-ist-2-3.md");
  assert.equal(fileName("???", "json"), "conversation.json");
});

test("what is kept is checked field by field", () => {
  assert.equal(conversationOf(null), null);
  assert.equal(conversationOf({ id: "a", turns: "none" }), null);
  const odd = { key: "t1", question: "Why?", answer: 7, shown: 99, parent: "gone", outcome: {} };
  const found = conversationOf({ id: "a", turns: [null, 1, odd, { key: 2 }, odd] });
  assert.equal(found.turns.length, 1);
  const [{ parent, answer, shown, outcome }] = found.turns;
  assert.deepEqual([parent, answer, shown, outcome], [null, "", 0, null]);
});

test("paths and versions of a tree", async () => {
  const all = [
    turn("a", null, 1),
    turn("b", "a", 2),
    turn("c", "a", 3),
    turn("d", "b", 4),
    turn("e", "a", 5, { answer: "", outcome: { status: "failed" } }),
    turn("f", null, 6),
  ];
  const keys = (turns) => turns.map(({ key }) => key).join("");
  assert.equal(keys(pathTo(all, "d")), "abd");
  assert.equal(keys(pathTo(all, "nobody")), "");
  assert.equal(keys(pathThrough(all, "b")), "abd");
  assert.equal(keys(versionsOf(all, all[1])), "bc"); // what failed without a word is no version
  assert.equal(keys(versionsOf(all, all[0])), "af");
  assert.equal(keys(pathTo([turn("x", "y", 1), turn("y", "x", 2)], "x")).length <= 3, true);
  const longer = turn("b", "a", 2, { sequence: 9, outcome: null });
  assert.equal(merged([longer], [all[1]])[0].outcome, COMPLETED);
  await settle();
});

test("what one tab deleted does not come back from another", async () => {
  const [one, two] = tabs();
  const all = [turn("a", null, 1), turn("b", null, 2)];
  await one.kept.save(record("x", all));
  const gone = newTurn("a", "", null, { number: 1, gone: true, changed: 5, outcome: COMPLETED });
  await one.kept.save(record("x", [gone, all[1]]));
  await two.kept.save(record("x", all)); // it has not heard of it
  const { turns } = await one.kept.load("x");
  assert.deepEqual(
    turns.map(({ key, answer, gone: isGone }) => [key, answer, isGone]),
    [
      ["a", "", true],
      ["b", "answer of b", false],
    ],
  );
  assert.equal(one.kept.store.state.rows[0].turns, 1);
  assert.deepEqual(JSON.parse(toJson([await one.kept.load("x")])).conversations[0].turns.length, 1);
  // Brought back later, it stays.
  await one.kept.save(record("x", [{ ...all[0], changed: 6 }, all[1]]));
  await two.kept.save(record("x", [gone, all[1]]));
  assert.equal((await one.kept.load("x")).turns[0].answer, "answer of a");
});

test("a conversation whose shown end was deleted shows the rest", () => {
  const all = [turn("a", null, 1), turn("b", "a", 2, { gone: true }), turn("c", "a", 3)];
  const shown = (leaf) => pathShown(all, leaf).map(({ key }) => key).join("");
  assert.deepEqual([shown("b"), shown("c"), shown("none")], ["ac", "ac", "ac"]);
});
