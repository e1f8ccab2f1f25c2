// The AI SDK against servers with the embedded model: `node ai_sdk.mjs URL URL`.
//
// Over chat completions with @ai-sdk/openai-compatible, Responses with @ai-sdk/openai, and Messages
// with @ai-sdk/anthropic. The second server's model opens its calls inside its thoughts.
import assert from 'node:assert/strict';
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from 'ai';
import {
  CALCULATOR,
  calculated,
  CHAIN,
  HEADERS,
  LARGER,
  MODEL,
  PAIR,
  SUM,
  tryCase,
  URLS,
} from './compat_cases.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false;
const [URL, URL_OF_CALLS_IN_THOUGHTS] = URLS;

const calculator = tool({
  description: CALCULATOR.description,
  inputSchema: jsonSchema({ ...CALCULATOR.parameters, additionalProperties: false }),
  execute: async (input) => calculated(input),
});
const once = { temperature: 0, maxRetries: 0 };
const common = { ...once, tools: { calculator }, stopWhen: stepCountIs(6) };

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
const chat = { model: createOpenAICompatible(settings(URL))(MODEL) };
// This package takes schemas only where its user says that the server does.
const structured = createOpenAICompatible({ ...settings(URL), supportsStructuredOutputs: true })(MODEL);
const insideThoughts = createOpenAICompatible(settings(URL_OF_CALLS_IN_THOUGHTS))(MODEL);
const openai = createOpenAI(settings(URL));
// Without a summary it shows no thoughts. What is stored is sent back as references.
const summary = { reasoningSummary: 'auto', forceReasoning: true };
const responses = { model: openai.responses(MODEL), providerOptions: { openai: summary } };
const unstored = {
  model: openai.responses(MODEL),
  providerOptions: { openai: { ...summary, store: false, include: ['reasoning.encrypted_content'] } },
};
const messages = {
  model: createAnthropic({ ...settings(URL), name: undefined })(MODEL),
  maxOutputTokens: 2000,
  providerOptions: { anthropic: { thinking: { type: 'enabled', budgetTokens: 1024 } } },
};
const APIS = {
  'chat completions': chat,
  Responses: responses,
  'Responses, nothing stored': unstored,
  Messages: messages,
};

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

/** Every step thinks, and all but the last one call the calculator. */
function check(steps, calls) {
  assert.deepEqual(
    steps.map((step) => step.toolCalls.length),
    calls,
  );
  for (const [index, step] of steps.entries()) {
    assert.ok(step.reasoningText, `step ${index} has no reasoning part`);
    assert.equal(step.finishReason, index < steps.length - 1 ? 'tool-calls' : 'stop');
    assert.ok(step.usage.outputTokens > 0);
  }
}

/** The thoughts of each earlier step are in the last request, in the form of its API. */
function checkThoughtsSentBack(api, steps) {
  const earlier = steps.slice(0, -1);
  const thoughts = earlier.map((step) => step.reasoningText);
  const last = sent.at(-1);
  if (api === chat) {
    const spoken = last.messages.filter((message) => message.role === 'assistant');
    assert.deepEqual(
      spoken.map((message) => message.reasoning_content),
      thoughts,
    );
  } else if (api === messages) {
    const blocks = last.messages.flatMap((message) => message.content);
    const found = blocks.filter((block) => block.type === 'thinking').map((block) => block.thinking);
    assert.deepEqual(found, thoughts);
  } else if (api === unstored) {
    const items = last.input.filter((item) => item.type === 'reasoning' && item.encrypted_content);
    assert.equal(items.length, earlier.length);
  } else {
    const items = last.input.filter((item) => item.type === 'item_reference');
    assert.ok(items.length >= earlier.length, 'nothing is referred to');
  }
}

async function threeSteps(api, stream) {
  const { steps, text } = await loop(stream, { ...api, prompt: CHAIN });
  check(steps, [1, 1, 1, 0]);
  checkThoughtsSentBack(api, steps);
  assert.match(text, /500/);
}

async function twoAtOnce(api, stream) {
  const { steps, text } = await loop(stream, { ...api, prompt: PAIR });
  check(steps, [2, 0]);
  const results = steps[0].toolResults.map((one) => one.output);
  assert.deepEqual(results, ['12547', '768']);
  for (const result of results) assert.ok(text.includes(result), text);
}

async function secondTurn(api) {
  const first = await loop(true, { ...api, prompt: SUM });
  assert.match(first.text, /623/);
  const asked = [{ role: 'user', content: SUM }, ...first.messages, { role: 'user', content: CHAIN }];
  const { text } = await loop(false, { ...api, messages: asked });
  assert.match(text, /500/);
}

async function structure(api) {
  const given = { ...once, ...api, prompt: 'Which is larger, 34 or 71?' };
  if (api === chat) given.model = structured;
  if (api === messages) {
    given.providerOptions = { anthropic: { structuredOutputMode: 'outputFormat' } };
  }
  const { output } = await generateText({
    ...given,
    output: Output.object({ schema: jsonSchema(LARGER) }),
  });
  assert.ok(['left', 'right'].includes(output.larger));
}

/** Nothing but a call ends these thoughts, so that the other server gives the answer. */
async function callsInTheThoughts(stream) {
  const asked = [{ role: 'user', content: CHAIN }];
  const { steps, messages: made } = await loop(stream, {
    model: insideThoughts,
    messages: asked,
    stopWhen: stepCountIs(3),
  });
  assert.deepEqual(
    steps.map((step) => [step.toolResults[0]?.output, step.finishReason, step.text]),
    ['89', '534', '500'].map((result) => [result, 'tool-calls', '']),
  );
  for (const step of steps) assert.ok(step.reasoningText);
  const last = await loop(stream, { ...chat, messages: [...asked, ...made] });
  check(last.steps, [0]);
  assert.match(last.text, /500/);
}

const REPLAY = ['huggingface/chat-ui#2470'];
const ELSEWHERE = {
  'chat completions': REPLAY,
  Responses: ['vercel/ai#7099', 'commontoolsinc/labs#5071'],
  'Responses, nothing stored': ['vllm-project/vllm#35903'],
};
for (const [name, api] of Object.entries(APIS)) {
  const elsewhere = ELSEWHERE[name] ?? [];
  for (const stream of [false, true]) {
    const how = stream ? 'streamed' : 'whole';
    const steps = `${name}, three steps with thoughts sent back, ${how}`;
    await tryCase(steps, () => threeSteps(api, stream), ...elsewhere);
    await tryCase(`${name}, two calls at once, ${how}`, () => twoAtOnce(api, stream));
  }
  await tryCase(`${name}, a second turn`, () => secondTurn(api), ...elsewhere);
  await tryCase(`${name}, structured output`, () => structure(api));
}
for (const stream of [false, true]) {
  const name = `chat completions, calls inside the thoughts, ${stream ? 'streamed' : 'whole'}`;
  await tryCase(name, () => callsInTheThoughts(stream), 'vllm-project/vllm#16511');
}

await tryCase('Responses, previousResponseId', async () => {
  const { providerMetadata } = await generateText({ ...once, ...responses, prompt: SUM });
  const options = { ...summary, previousResponseId: providerMetadata.openai.responseId };
  const asked = { ...once, ...responses, providerOptions: { openai: options } };
  assert.match((await generateText({ ...asked, prompt: 'What is 2 + 2?' })).text, /4/);
});

await tryCase('Responses, a conversation', async () => {
  const made = await fetch(`${URL}/v1/conversations`, { method: 'POST', body: '{}' });
  const options = { ...summary, conversation: (await made.json()).id };
  for (const [prompt, result] of [
    [SUM, /623/],
    ['What is 2 + 2?', /4/],
  ]) {
    const asked = { ...once, ...responses, providerOptions: { openai: options } };
    assert.match((await generateText({ ...asked, prompt })).text, result);
  }
});

await tryCase('an unknown model is an error that is not retried', async () => {
  sent.length = 0;
  const asked = generateText({ model: openai('no-such-model'), prompt: SUM });
  await assert.rejects(asked, (error) => error.statusCode === 404);
  assert.equal(sent.length, 1);
});
