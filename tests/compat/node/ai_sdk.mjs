// Tool loops of the AI SDK against servers with the embedded model: `node ai_sdk.mjs URL URL`.
//
// The second server's model opens its calls inside its thoughts. Over chat completions with
// @ai-sdk/openai-compatible, and over Responses with @ai-sdk/openai, whole and streamed.
import assert from 'node:assert/strict';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, stepCountIs, streamText, tool } from 'ai';
import { HEADERS, MODEL, tryCase, URLS } from './compat_cases.mjs';

const [URL, URL_OF_CALLS_IN_THOUGHTS] = URLS;
const CHAIN = 'Add 71 and 18, then multiply by 6, then subtract 34.';
const PAIR = 'What is 7129 + 5418? And what is 64 * 12?';

const calculator = tool({
  description: 'Calculates an arithmetic expression.',
  inputSchema: jsonSchema({
    type: 'object',
    properties: { expression: { type: 'string', description: 'The expression.' } },
    required: ['expression'],
    additionalProperties: false,
  }),
  execute: async ({ expression }) => {
    assert.match(expression, /^[0-9.+\-*/() ]+$/);
    return String(Function(`"use strict"; return (${expression})`)());
  },
});
const common = { tools: { calculator }, stopWhen: stepCountIs(6), temperature: 0, maxRetries: 0 };

/** What the SDK sent, request by request. */
const sent = [];
const recording = async (url, init) => {
  sent.push(JSON.parse(init.body));
  return fetch(url, init);
};

const settings = (url) => ({
  name: 'pascal',
  baseURL: `${url}/v1`,
  apiKey: 'none',
  headers: HEADERS,
  includeUsage: true,
  fetch: recording,
});
const chat = createOpenAICompatible(settings(URL))(MODEL);
const responses = createOpenAI(settings(URL)).responses(MODEL);
const insideThoughts = createOpenAICompatible(settings(URL_OF_CALLS_IN_THOUGHTS))(MODEL);
// Items that are stored are sent back as references, which this server does not look up. Thoughts are
// shown only as summaries, which this server does not write.
const unstored = { openai: { store: false } };

/** Run a loop; its steps, with the kinds of the streamed parts where it streams. */
async function loop(stream, options) {
  sent.length = 0;
  if (!stream) {
    const result = await generateText({ ...common, ...options });
    return { steps: result.steps, text: result.text, messages: result.response.messages };
  }
  const result = streamText({ ...common, ...options, onError: () => {} });
  const kinds = [];
  let reasoning = '';
  for await (const part of result.fullStream) {
    if (part.type === 'error') throw part.error;
    if (part.type === 'reasoning-delta') reasoning += part.text;
    kinds.push(part.type);
  }
  const steps = await result.steps;
  assert.equal(reasoning, steps.map((step) => step.reasoningText ?? '').join(''));
  if (kinds.includes('tool-call')) {
    assert.ok(kinds.indexOf('reasoning-delta') < kinds.indexOf('tool-call'));
  }
  return { steps, text: await result.text, messages: (await result.response).messages };
}

/** Every step thinks, which Responses do not show, and all but the last one call the calculator. */
function check(steps, calls, thinks = true) {
  assert.deepEqual(
    steps.map((step) => step.toolCalls.length),
    calls,
  );
  for (const [index, step] of steps.entries()) {
    assert.ok(step.reasoningText || !thinks, `step ${index} has no reasoning part`);
    assert.equal(step.finishReason, index < steps.length - 1 ? 'tool-calls' : 'stop');
    assert.ok(step.usage.outputTokens > 0);
  }
}

/** The thoughts of each earlier step are in the last request as they were received. */
function checkThoughtsSentBack(steps) {
  const { messages } = sent.at(-1);
  const thoughts = messages.filter((m) => m.role === 'assistant').map((m) => m.reasoning_content);
  assert.deepEqual(
    thoughts,
    steps.slice(0, -1).map((step) => step.reasoningText),
  );
}

async function threeSteps(model, stream, providerOptions) {
  const { steps, text } = await loop(stream, { model, prompt: CHAIN, providerOptions });
  check(steps, [1, 1, 1, 0], model === chat);
  assert.match(text, /500/);
  return steps;
}

async function twoAtOnce(model, stream, providerOptions) {
  const { steps, text } = await loop(stream, { model, prompt: PAIR, providerOptions });
  check(steps, [2, 0], model === chat);
  const results = steps[0].toolResults.map((one) => one.output);
  assert.deepEqual(results, ['12547', '768']);
  for (const result of results) assert.ok(text.includes(result), text);
}

/** Nothing but a call ends these thoughts, so that the other server gives the answer. */
async function callsInTheThoughts(stream) {
  const asked = [{ role: 'user', content: CHAIN }];
  const { steps, messages } = await loop(stream, {
    model: insideThoughts,
    messages: asked,
    stopWhen: stepCountIs(3),
  });
  assert.deepEqual(
    steps.map((step) => [step.toolResults[0]?.output, step.finishReason, step.text]),
    ['89', '534', '500'].map((result) => [result, 'tool-calls', '']),
  );
  for (const step of steps) assert.ok(step.reasoningText);
  const last = await loop(stream, { model: chat, messages: [...asked, ...messages] });
  check(last.steps, [0]);
  assert.match(last.text, /500/);
}

for (const stream of [false, true]) {
  const how = stream ? 'streamed' : 'whole';
  await tryCase(
    `chat completions, three steps with thoughts sent back, ${how}`,
    async () => checkThoughtsSentBack(await threeSteps(chat, stream)),
    'huggingface/chat-ui#2470',
  );
  await tryCase(`chat completions, two calls at once, ${how}`, () => twoAtOnce(chat, stream));
  await tryCase(
    `chat completions, calls inside the thoughts, ${how}`,
    () => callsInTheThoughts(stream),
    'vllm-project/vllm#16511',
  );
  await tryCase(`Responses, three steps, ${how}`, () => threeSteps(responses, stream, unstored));
  await tryCase(`Responses, two calls at once, ${how}`, () => twoAtOnce(responses, stream, unstored));
}
