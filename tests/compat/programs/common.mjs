// What the programs of all Node clients share: cases that print their result, and the tasks.
//
//     node PROGRAM.mjs URL MODEL
//
// prints `ok CASE` or `FAIL CASE: reason` for each case, and ends with status 1 if one failed.
import assert from 'node:assert/strict'

export const [url, model] = process.argv.slice(2)
assert(url && model, 'usage: node PROGRAM.mjs URL MODEL')

export const SUM = 'What is 348 + 275?' // 623
export const CHAIN = 'Add 71 and 18, then multiply by 6, then subtract 34.' // 500, after 3 calls

export const CALCULATOR = {
  name: 'calculator',
  description: 'Calculates an arithmetic expression.',
  parameters: {
    type: 'object',
    properties: { expression: { type: 'string', description: 'The expression.' } },
    required: ['expression'],
  },
}

/** What the tool returns for the arguments of a call. */
export function calculated({ expression }) {
  assert.match(expression, /^[\d.+\-*/() ]+$/)
  return String(Function(`return ${expression}`)())
}

/** Runs a case and prints its result. A case that takes longer than `seconds` fails. */
export async function check(name, run, seconds = 90) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${seconds} s`)), seconds * 1000)
  })
  try {
    await Promise.race([run(), late])
    console.log(`ok ${name}`)
  } catch (error) {
    const reason = `${error?.name ?? 'Error'}: ${error?.message ?? error}`
    console.log(`FAIL ${name}: ${reason.replace(/\s+/g, ' ').slice(0, 300)}`)
    if (process.env.COMPAT_DEBUG) console.error(error)
    process.exitCode = 1
  } finally {
    clearTimeout(timer)
  }
}

/** Ends the process although a client may still hold connections. */
export function done() {
  process.exit(process.exitCode ?? 0)
}
