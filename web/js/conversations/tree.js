// The turns of a conversation as a tree. Each turn names its `parent`, the turn before it (null:
// none). Turns with one parent are versions of each other: another answer to the same question, or
// an edited question. The page shows one path from a first turn to a leaf.

/** The versions of a turn worth a look, itself included, oldest first. */
export function versionsOf(all, turn) {
  return all
    .filter((one) => one.parent === turn.parent && !one.gone)
    .filter((one) => one === turn || one.outcome === null || one.answer !== "")
    .toSorted((a, b) => a.number - b.number);
}

/** The turns from the first one to `key`; empty if there is no such turn. */
export function pathTo(all, key) {
  const byKey = new Map(all.map((turn) => [turn.key, turn]));
  const path = [];
  for (
    let turn = byKey.get(key);
    turn && path.length <= all.length;
    turn = byKey.get(turn.parent)
  ) {
    path.unshift(turn);
  }
  return path;
}

/** The path through `key` and on to a leaf, by the newest version at each step. */
export function pathThrough(all, key) {
  const path = pathTo(all, key);
  while (path.length > 0 && path.length <= all.length) {
    const next = all
      .filter(({ parent, gone }) => parent === path.at(-1).key && !gone)
      .toSorted((a, b) => b.number - a.number)[0];
    if (!next) break;
    path.push(next);
  }
  return path;
}

/** The path to a leaf; where that is missing or was deleted, another one from as near as can be. */
export function pathShown(all, leaf) {
  const path = pathTo(all, leaf);
  const end = path.findIndex(({ gone }) => gone);
  if (path.length > 0 && end < 0) return path;
  const parent = end > 0 ? path[end - 1].key : all.find(({ gone }) => !gone)?.key;
  return pathThrough(all, parent);
}

/** The keys of a turn and of all that follow it. */
export function subtree(all, key) {
  const keys = [key];
  for (const one of keys) {
    keys.push(...all.filter(({ parent }) => parent === one).map((turn) => turn.key));
  }
  return keys;
}

/** The number of the next turn: turns are numbered as they are asked. */
export function nextNumber(all) {
  return all.reduce((most, { number }) => Math.max(most, number), 0) + 1;
}

/**
 * Two states of one conversation as one, as two tabs may have them: every turn once, as it was
 * deleted or brought back last, and the more complete one of two.
 */
export function merged(mine, others) {
  const byKey = new Map(others.map((turn) => [turn.key, turn]));
  for (const turn of mine) {
    const other = byKey.get(turn.key);
    if (!other || !isMoreComplete(other, turn)) byKey.set(turn.key, turn);
  }
  return [...byKey.values()].toSorted((a, b) => a.number - b.number);
}

function isMoreComplete(one, other) {
  if (one.changed !== other.changed) return one.changed > other.changed;
  if ((one.outcome === null) !== (other.outcome === null)) return one.outcome !== null;
  return one.sequence > other.sequence;
}
