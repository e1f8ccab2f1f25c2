// What the program of a client prints: one line for each case, for `tests.compat.runner` to read.
// `compat_cases.py` describes the lines. Copied next to the program, into the folder of the client.

export const MODEL = 'tiny-reasoner';
export const URLS = process.argv.slice(2).filter((argument) => argument.includes('://'));
const LONGEST_REASON = 300; // characters
const wanted = new RegExp(process.env.COMPAT_CASES ?? ''); // names of the cases to run
const pace = process.env.COMPAT_TPOT_MS;
/** Headers that every request of the client gets: a pace, where a test shall not wait. */
export const HEADERS = pace ? { 'x-slo-tpot-ms': pace } : {};

/** The client cannot do this; the message says why. */
export class Skip extends Error {}

/** Run a case now; `elsewhere` are references to servers and threads where it fails, or failed. */
export async function tryCase(name, check, ...elsewhere) {
  if (/[:[\]\n]/.test(name)) throw new Error(`a name of a case has no colon and no brackets: ${name}`);
  if (!wanted.test(name)) return;
  const shown = elsewhere.length ? `${name} [${elsewhere.join(', ')}]` : name;
  try {
    await check();
    console.log(`ok ${shown}`);
  } catch (error) {
    const text = error instanceof Skip ? error.message : `${error?.name}: ${error?.message}`;
    const line = text.split(/\s+/).join(' ').slice(0, LONGEST_REASON);
    if (!(error instanceof Skip)) {
      console.error(error);
      process.exitCode = 1;
    }
    console.log(`${error instanceof Skip ? 'skip' : 'FAIL'} ${shown}: ${line}`);
  }
}

/** The name of a server's model. */
export async function modelOf(url) {
  const { data } = await (await fetch(`${url}/v1/models`)).json();
  return data[0].id;
}

export const SUM = 'What is 348 + 275?'; // 623
export const CHAIN = 'Add 71 and 18, then multiply by 6, then subtract 34.'; // 500, after 3 calls
export const PAIR = 'What is 7129 + 5418? And what is 64 * 12?'; // 12547 and 768, with 2 calls at once

/** The tool of the embedded model, as a function of chat completions. */
export const CALCULATOR = {
  name: 'calculator',
  description: 'Calculates an arithmetic expression.',
  parameters: {
    type: 'object',
    properties: { expression: { type: 'string', description: 'The expression.' } },
    required: ['expression'],
  },
};

/** The schema of an answer to "Which is larger, 34 or 71?". */
export const LARGER = {
  type: 'object',
  properties: { larger: { type: 'string', enum: ['left', 'right'] } },
  required: ['larger'],
  additionalProperties: false,
};

/** What the tool returns for the arguments of a call. */
export function calculated({ expression }) {
  if (!/^[0-9.+\-*/() ]+$/.test(expression)) throw new Error(`no arithmetic: ${expression}`);
  return String(Function(`"use strict"; return (${expression})`)());
}
