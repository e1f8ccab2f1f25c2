// The reader's settings: kept in the browser, shared by all tabs, checked when they are read.

export const SAVED = "pascal.settings.1"; // the number of its form

export const SLOWEST = 2; // tokens per second
export const FASTEST = 40;
export const THEMES = ["system", "light", "dark"];
export const EFFORTS = ["", "minimal", "low", "medium", "high"]; // "": the model's own

export const DEFAULTS = Object.freeze({
  rate: 10, // tokens per second; null: as generated
  thinking: true,
  system: "", // instructions for every question
  temperature: null, // null: the model's own
  maxTokens: null, // of thoughts and answer together; null: no bound
  effort: "",
  budget: null, // most tokens of thoughts; null: no bound
  theme: "system",
  delivery: false, // whether the figures of an answer are unfolded
  sidebar: true, // whether the list of conversations is open, where there is room
});

const number = (least, most) => (value) =>
  typeof value === "number" && value >= least && value <= most;
const orNull = (check) => (value) => value === null || check(value);
const whole = (least, most) => (value) => Number.isInteger(value) && number(least, most)(value);
const oneOf = (values) => (value) => values.includes(value);
const isBoolean = (value) => typeof value === "boolean";

const CHECKS = {
  rate: orNull(number(SLOWEST, FASTEST)),
  thinking: isBoolean,
  system: (value) => typeof value === "string" && value.length <= 20_000,
  temperature: orNull(number(0, 2)),
  maxTokens: orNull(whole(1, 2 ** 31)),
  effort: oneOf(EFFORTS),
  budget: orNull(whole(1, 2 ** 31)),
  theme: oneOf(THEMES),
  delivery: isBoolean,
  sidebar: isBoolean,
};

/** The settings among `values` that are right; what is wrong or unknown is left out. */
export function checked(values) {
  if (typeof values !== "object" || values === null) return {};
  const right = Object.entries(CHECKS).filter(
    ([name, check]) => Object.hasOwn(values, name) && check(values[name]),
  );
  return Object.fromEntries(right.map(([name]) => [name, values[name]]));
}

/** The settings in `storage`; what is missing, old or broken has its default. */
export function read(storage) {
  try {
    return { ...DEFAULTS, ...checked(JSON.parse(storage.getItem(SAVED))) };
  } catch {
    return { ...DEFAULTS }; // no storage is allowed, or somebody else's text is there
  }
}

/** Keep the settings, for all tabs and for the next time. */
export function write(storage, settings) {
  try {
    storage.setItem(SAVED, JSON.stringify(settings));
  } catch (error) {
    console.warn("the settings cannot be kept:", error.name);
  }
}

/** The theme that the reader has chosen, on the root of the page, where the styles look for it. */
export function applyTheme(root, theme) {
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
}
