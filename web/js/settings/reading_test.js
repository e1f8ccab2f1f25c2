// The reading test: read for ten seconds, then say how far you came.

import { html, useEffect, useMemo, useState } from "../ui.js";
import { Dialog } from "../view/parts/dialog.js";
import { TEST_S, rateOfWords, wordsPerMinute } from "./pace.js";

const TEXT = `A lighthouse keeper once told me that the hardest part of the work was not the storms.
In a storm you know what to do: you trim the lamp, you watch the glass, you wait. The hardest part
was the clear nights, when nothing happened and the light turned over an empty sea. On such a night
he would choose one star and follow it until it set, and then another, and by the time the third was
low over the water it was morning. He said that he had learned more about patience from those stars
than from any book. Ships passed now and then, far out, and he liked to think that somebody on a
bridge saw the light, looked at a chart, and knew exactly where they were. They would never meet, and
neither would ever know the name of the other, but for the length of a few turns of the lamp each was
the most useful thing in the world to the other. When the station was made automatic he moved inland,
to a town with a river. In the evenings he still walks down to the bridge, leans on the rail, and
counts slowly to nine, which is how long his light took to come around.`;

/** The words before a place in the text, as a pace. */
function paceOf(count) {
  return rateOfWords((count * 60) / TEST_S);
}

export function ReadingTest({ onRate, onClose }) {
  const words = useMemo(() => TEXT.split(/\s+/), []);
  const [step, setStep] = useState("before"); // "reading", "marking"
  const [left, setLeft] = useState(TEST_S);
  const [read, setRead] = useState(0);
  useEffect(() => {
    if (step !== "reading") return undefined;
    const end = performance.now() + TEST_S * 1000;
    const timer = setInterval(() => {
      const rest = (end - performance.now()) / 1000;
      setLeft(Math.max(0, Math.ceil(rest)));
      if (rest <= 0) {
        setStep("marking");
        setRead(Math.round(words.length / 4));
      }
    }, 100);
    return () => clearInterval(timer);
  }, [step]);
  const rate = paceOf(read);
  return html`<${Dialog} title="How fast do you read?" name="reading-test" onClose=${onClose}>
    ${
      step === "before" &&
      html`<p>
          You get a text. Read it as you always do, aloud in your head or not. After ten seconds you
          click the last word that you read, and the page reads at your pace.
        </p>
        <button type="button" class="button" autofocus onClick=${() => setStep("reading")}>
          Start reading
        </button>`
    }
    ${step === "reading" && html`<p class="countdown" aria-hidden="true">${left} s</p>`}
    ${
      step === "marking" &&
      html`<p id="reading-test-ask"><b>Which was the last word that you read?</b> Click it.</p>
        <input
          type="range"
          min="1"
          max=${words.length}
          value=${read}
          aria-labelledby="reading-test-ask"
          aria-valuetext=${words[read - 1]}
          onInput=${(event) => setRead(event.target.valueAsNumber)}
        />`
    }
    ${
      step !== "before" &&
      html`<p
        class="reading-text"
        data-step=${step}
        onClick=${(event) => {
          const at = Number(event.target.dataset?.word);
          if (step === "marking" && at) setRead(at);
        }}
      >
        ${words.map(
          (word, i) =>
            html`<span data-word=${i + 1} class=${i < read ? "read" : ""}>${word}</span>${" "}`,
        )}
      </p>`
    }
    ${
      step === "marking" &&
      html`<button
        type="button"
        class="button"
        onClick=${() => {
          onRate(rate);
          onClose();
        }}
      >
        Read at ${wordsPerMinute(rate)} words a minute
      </button>`
    }
  <//>`;
}
