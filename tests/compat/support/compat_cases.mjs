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
