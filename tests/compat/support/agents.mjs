// Runs a coding agent without its user, and watches what it sends through a proxy of one's own.
//
// The agents talk to emulated instances. These call the agent's own tools with arguments that mean
// nothing, so agents get errors from their tools, and go on.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { tryCase, URLS } from './compat_cases.mjs';

const [SERVER] = URLS;
const PLACES = 6; // of the server, for requests at one time (`tests.compat.servers`)
const LONGEST_RUN_S = 200;
const TASKS = ['river', 'spring', 'paper', 'north', 'south', 'green'].map(
  (word) => `Look for files whose name contains "${word}", and say how many there are.`,
);

/** Passes requests on to the server, and keeps what they were. */
export class Watcher {
  requests = []; // of models, in the order in which they came
  #before = null;
  #server = http.createServer((request, response) => void this.#pass(request, response));

  async start() {
    await new Promise((ready) => this.#server.listen(0, '127.0.0.1', ready));
    this.url = `http://127.0.0.1:${this.#server.address().port}`;
    return this;
  }

  /** Run something before the second request of the next task; only once. */
  interrupt(action) {
    this.requests = [];
    this.#before = action;
  }

  async #pass(request, response) {
    const parts = [];
    for await (const part of request) parts.push(part);
    const kept = {
      path: request.url,
      headers: request.headers,
      body: Buffer.concat(parts),
      at: Date.now(),
    };
    if (request.method === 'POST') {
      this.requests.push(kept);
      if (this.requests.length === 2 && this.#before) {
        const action = this.#before;
        this.#before = null;
        await action();
        kept.interrupted = true;
      }
    }
    const { hostname, port } = new URL(SERVER);
    const headers = { ...request.headers, host: `${hostname}:${port}` };
    const options = { hostname, port, method: request.method, path: request.url, headers };
    const above = http.request(options, (answer) => {
      kept.status = answer.statusCode;
      kept.answered = answer.headers;
      kept.text = '';
      response.writeHead(answer.statusCode, answer.headers);
      answer.on('data', (data) => {
        kept.text += data;
      });
      answer.pipe(response);
    });
    above.on('error', () => response.destroy());
    response.on('close', () => above.destroy());
    above.end(kept.body);
  }
}

/** The last number that an answer has for one of these fields. */
function number(request, ...fields) {
  const found = fields.flatMap((field) => [
    ...request.text.matchAll(new RegExp(`"${field}": ?(\\d+)`, 'g')),
  ]);
  return Number(found.at(-1)?.[1] ?? 0);
}

/** Tokens of a prompt, and how many of them were in the cache. */
function prompt({ text, ...request }) {
  const cached = number({ text }, 'cached_tokens', 'cache_read_input_tokens');
  const all = number({ text }, 'input_tokens', 'prompt_tokens');
  return { cached, all: request.path.startsWith('/v1/messages') ? all + cached : all };
}

const instance = ({ text }) => text.match(/"instance": ?"([^"]+)"/)?.[1];

/** Run a command to its end; its status, and the JSON objects of its output. */
export async function run(command, args, environment) {
  const work = join(process.cwd(), 'work');
  mkdirSync(work, { recursive: true });
  // A repository of its own: Claude Code begins its prompt with the state of the one that it is in.
  spawnSync('git', ['init', '--quiet'], { cwd: work });
  const child = spawn(command, args, {
    cwd: work,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), LONGEST_RUN_S * 1000);
  const lines = [];
  for await (const line of createInterface({ input: child.stdout })) {
    if (line.startsWith('{')) lines.push(JSON.parse(line));
  }
  const status = child.exitCode ?? (await new Promise((ended) => child.on('exit', ended)));
  clearTimeout(timer);
  return { status, lines };
}

/** Requests that take all places of the server for some seconds. */
async function takeAllPlaces() {
  const lengths = { reasoning_tokens: 1200, answer_tokens: 1 };
  for (let place = 0; place < PLACES; place += 1) {
    const messages = [{ role: 'user', content: `Request ${place}` }];
    const body = JSON.stringify({ messages, forced_lengths: lengths, pacing: false });
    fetch(`${SERVER}/v1/chat/completions`, { method: 'POST', body }).then((answer) => answer.text());
  }
  await new Promise((later) => setTimeout(later, 1000));
}

/** No instance serves for some seconds. */
async function drainAll() {
  const { instances } = await (await fetch(`${SERVER}/admin/instances`)).json();
  const each = (action) =>
    Promise.all(
      instances.map(({ id }) => fetch(`${SERVER}/admin/instances/${id}/${action}`, { method: 'POST' })),
    );
  await each('drain');
  setTimeout(() => each('undrain'), 3000);
}

/**
 * The cases of an agent.
 *
 * `start(prompt)` and `resume(session, prompt)` run it, `read(lines)` finds the session and whether
 * there were thoughts and an answer, and `session(request)` the id by which it names its session.
 * `elsewhere` says where a task fails, and where a second turn does not find its KV.
 */
export async function tryAgent(watcher, { start, resume, read, session, elsewhere = {} }) {
  let first = null;

  async function task(index) {
    watcher.requests = [];
    const { status, lines } = await start(TASKS[index]);
    const seen = { ...read(lines), status, requests: [...watcher.requests] };
    assert.equal(status, 0, `status ${status}: ${describe(seen)}`);
    return seen;
  }

  await tryCase(
    'a task with thoughts and calls of its tools',
    async () => {
      for (let index = 0; index < TASKS.length && !first; index += 1) {
        const seen = await task(index);
        assert.ok(seen.thoughts, 'no thoughts are shown');
        assert.ok(seen.answer, 'no answer is shown');
        if (ofSession(seen).length > 1) first = seen;
      }
      assert.ok(first, 'no task made a call');
      for (const { path, status } of first.requests) assert.equal(status, 200, path);
    },
    ...(elsewhere.task ?? []),
  );

  await tryCase(
    'a second turn of the session finds the KV of the first',
    async () => {
      assert.ok(first, 'there is no first turn');
      watcher.requests = [];
      const { status } = await resume(first.session, 'And how many folders?');
      assert.equal(status, 0);
      const [before] = ofSession(first);
      const [after] = ofSession({ ...first, requests: watcher.requests });
      const { cached, all } = prompt(after);
      // Thoughts of earlier turns may leave the prompt, but all that was there before them stays.
      const where = `${instance(before)}, then ${instance(after)}`;
      assert.ok(cached >= 0.95 * prompt(before).all, `${cached} of ${all} tokens, on ${where}`);
      assert.equal(instance(after), instance(before), 'it went to another instance');
    },
    ...(elsewhere.turn ?? []),
  );

  for (const [name, action, refused] of [
    ['all places are taken in the middle of a task', takeAllPlaces, 429],
    ['no instance serves in the middle of a task', drainAll, 503],
  ]) {
    await tryCase(name, async () => {
      for (const prompt of TASKS) {
        watcher.interrupt(action);
        const { status, lines } = await start(prompt);
        const seen = { ...read(lines), status, requests: watcher.requests };
        const stopped = seen.requests.filter((request) => request.status === refused);
        if (stopped.length === 0 && !seen.requests.some((request) => request.interrupted)) continue;
        assert.ok(stopped.length > 0, `nothing was refused, ${describe(seen)}`);
        for (const { answered } of stopped) assert.ok(Number(answered['retry-after']) > 0);
        assert.equal(status, 0, describe(seen));
        assert.ok(seen.answer, 'no answer is shown');
        assert.equal(seen.requests.at(-1).status, 200);
        return;
      }
      assert.fail('no task made a call');
    });
  }

  /** The requests of a task that name its session; without those that only want a title for it. */
  function ofSession({ session: id, requests }) {
    return requests.filter((request) => session(request) === id && JSON.parse(request.body).tools?.length);
  }
}

/** The statuses and waits of requests, for a message. */
function describe({ status, requests }) {
  const begun = requests[0]?.at ?? 0;
  const shown = requests.map((request) => {
    const wait = request.answered?.['retry-after'];
    return `${((request.at - begun) / 1000).toFixed(1)} s ${request.status}${wait ? ` (${wait})` : ''}`;
  });
  return `ended with ${status} after ${shown.join(', ')}`;
}
