// The colours of the style sheet as a canvas takes them, in the theme of the moment.

const NAMES = ["ink", "raised", "muted", "line", "edge", "think", "accent", "good", "bad", "bad-soft", "code-word"];

/** Returns a function of the current colours; `onChange` is called when they become others. */
export function colours(onChange) {
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  let found = null;
  const forget = () => {
    found = null;
    onChange();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", forget);
  new MutationObserver(forget).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return () => {
    found ??= Object.fromEntries(
      NAMES.map((name) => {
        probe.style.color = `var(--${name})`;
        return [name, getComputedStyle(probe).color];
      }),
    );
    return found;
  };
}
