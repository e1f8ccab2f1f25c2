// Formulas drawn by KaTeX as MathML, which needs no style sheet and no font. The library is loaded
// when the first formula comes.

import DOMPurify from "../../vendor/dompurify.js";
import { library } from "./library.js";

const MOST_KEPT = 500;
const LONGEST = 10_000; // characters of a formula that is drawn
const MATHML = {
  USE_PROFILES: { mathMl: true },
  FORBID_ATTR: ["style", "class", "id", "href", "name"],
  ADD_FORBID_CONTENTS: ["annotation"],
  RETURN_DOM_FRAGMENT: true,
};

let katex = null;
let loading = null;
const drawn = new Map(); // source and kind -> element, or null if it is no formula

/** True once formulas can be drawn at once. */
export function isReady() {
  return katex !== null;
}

/** Load the library. Rejects if it cannot be fetched; the next call tries again. */
export function load() {
  loading ??= library("katex.js").then(
    (module) => {
      katex = module.default;
    },
    (error) => {
      loading = null;
      throw error;
    },
  );
  return loading;
}

function draw(tex, display) {
  let text;
  try {
    text = katex.renderToString(tex, {
      output: "mathml",
      displayMode: display,
      throwOnError: true,
      strict: "ignore",
      trust: false,
      maxExpand: 500,
      maxSize: 20,
    });
  } catch (error) {
    if (error instanceof katex.ParseError || error instanceof RangeError) return null;
    throw error;
  }
  return DOMPurify.sanitize(text, MATHML).querySelector("math");
}

/** An element for the formula, or null if KaTeX does not understand it. */
export function formula(tex, display) {
  if (tex.length > LONGEST) return null;
  const key = `${display ? "d" : "i"}${tex}`;
  if (!drawn.has(key)) {
    if (drawn.size >= MOST_KEPT) drawn.delete(drawn.keys().next().value);
    drawn.set(key, draw(tex, display));
  }
  return drawn.get(key)?.cloneNode(true) ?? null;
}
