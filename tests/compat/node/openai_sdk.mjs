// The `openai` package for Node: chat completions, Responses over HTTP and WebSocket,
// conversations, background, structured output, tools.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';
import {
  CALCULATOR,
  calculated,
  CHAIN,
  HEADERS,
  LARGER,
  MODEL,
  SUM,
  tryCase,
  URLS,
} from './compat_cases.mjs';

const [url] = URLS;
const model = MODEL;

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0, defaultHeaders: HEADERS });
const fast = { model, temperature: 0 };
const asked = [{ role: 'user', content: SUM }];
const tool = { type: 'function', ...CALCULATOR, strict: false };

await tryCase('models', async () => {
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert(names.includes(model));
  assert.equal((await client.models.retrieve(model)).id, model);
});

await tryCase('chat, whole', async () => {
  const { choices, usage } = await client.chat.completions.create({ ...fast, messages: asked });
  assert.match(choices[0].message.content, /623/);
  assert(choices[0].message.reasoning.length > 0);
  assert.equal(choices[0].finish_reason, 'stop');
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
});

await tryCase('chat, streamed', async () => {
  let thoughts = '';
  const stream = client.chat.completions.stream({
    ...fast,
    messages: asked,
    stream_options: { include_usage: true },
  });
  for await (const chunk of stream) thoughts += chunk.choices[0]?.delta.reasoning ?? '';
  const final = await stream.finalChatCompletion();
  assert(thoughts.length > 0);
  assert.match(final.choices[0].message.content, /623/);
  assert(final.usage.completion_tokens > 0);
});

for (const stream of [false, true]) {
  await tryCase(`chat, tool loop, ${stream ? 'streamed' : 'whole'}`, async () => {
    let calls = 0;
    const calculate = (given) => {
      calls += 1;
      return calculated(given);
    };
    const runner = client.chat.completions.runTools({
      ...fast,
      stream,
      messages: [{ role: 'user', content: CHAIN }],
      tools: [{ type: 'function', function: { ...CALCULATOR, parse: JSON.parse, function: calculate } }],
    });
    assert.match(await runner.finalContent(), /500/);
    assert.equal(calls, 3);
  });
}

await tryCase(
  'chat, structured output',
  async () => {
    const { choices } = await client.chat.completions.parse({
      ...fast,
      messages: [{ role: 'user', content: 'Which is larger, 34 or 71?' }],
      response_format: { type: 'json_schema', json_schema: { name: 'x', strict: true, schema: LARGER } },
    });
    assert(['left', 'right'].includes(choices[0].message.parsed.larger));
  },
  'vllm-project/vllm#47027',
);

await tryCase('chat, a bad request is an error that names the field', async () => {
  const bad = client.chat.completions.create({ ...fast, messages: asked, top_p: 'much' });
  await assert.rejects(bad, (error) => error.status === 400 && error.param === 'top_p');
});

await tryCase(
  'chat, a stream that the client aborts',
  async () => {
    const stream = await client.chat.completions.create({ ...fast, messages: asked, stream: true });
    for await (const _ of stream) break;
    const again = await client.chat.completions.create({ ...fast, messages: asked });
    assert.match(again.choices[0].message.content, /623/);
  },
  'vllm-project/vllm#9428',
);

await tryCase(
  'Responses, whole',
  async () => {
    const response = await client.responses.create({ ...fast, input: SUM });
    assert.match(response.output_text, /623/);
    assert.deepEqual(
      response.output.map((item) => item.type),
      ['reasoning', 'message'],
    );
    assert(Number.isInteger(response.created_at));
  },
  'sgl-project/sglang#34716',
);

await tryCase(
  'Responses, streamed',
  async () => {
    const stream = client.responses.stream({ ...fast, input: SUM, reasoning: { summary: 'auto' } });
    let summary = '';
    const ids = new Map();
    for await (const event of stream) {
      if (event.type === 'response.reasoning_summary_text.delta') summary += event.delta;
      if (event.type === 'response.output_item.done') ids.set(event.output_index, event.item.id);
    }
    const response = await stream.finalResponse();
    assert(summary.length > 0);
    assert.equal(response.output[0].summary[0].text, summary);
    response.output.forEach((item, index) => assert.equal(item.id, ids.get(index)));
    assert.match(response.output_text, /623/);
  },
  'vllm-project/vllm#45742',
  'vllm-project/vllm#56285',
);

await tryCase(
  'Responses, tool loop with previous_response_id',
  async () => {
    let request = { input: CHAIN };
    for (let calls = 0; ; calls += 1) {
      const stream = client.responses.stream({ ...fast, tools: [tool], ...request });
      let pieces = '';
      let whole = '';
      for await (const event of stream) {
        if (event.type === 'response.function_call_arguments.delta') pieces += event.delta;
        if (event.type === 'response.function_call_arguments.done') whole += event.arguments;
      }
      const response = await stream.finalResponse();
      const made = response.output.filter((item) => item.type === 'function_call');
      assert.equal(pieces, whole);
      assert.equal(pieces, made.map((call) => call.arguments).join(''));
      if (made.length === 0) {
        assert.equal(calls, 3);
        assert.match(response.output_text, /500/);
        return;
      }
      const input = made.map((call) => ({
        type: 'function_call_output',
        call_id: call.call_id,
        output: calculated(JSON.parse(call.arguments)),
      }));
      request = { input, previous_response_id: response.id };
    }
  },
  'vllm-project/vllm#56285',
  'vllm-project/vllm#33089',
);

await tryCase(
  'Responses, the output sent back, nothing stored, thoughts encrypted',
  async () => {
    const input = [{ role: 'user', content: CHAIN }];
    const request = { ...fast, tools: [tool], store: false, include: ['reasoning.encrypted_content'] };
    for (let calls = 0; ; calls += 1) {
      const response = await client.responses.create({ ...request, input });
      const [thoughts] = response.output.filter((item) => item.type === 'reasoning');
      assert(thoughts.encrypted_content);
      input.push(...response.output);
      const made = response.output.filter((item) => item.type === 'function_call');
      if (made.length === 0) {
        assert.equal(calls, 3);
        assert.match(response.output_text, /500/);
        return;
      }
      for (const { call_id, arguments: text } of made) {
        input.push({ type: 'function_call_output', call_id, output: calculated(JSON.parse(text)) });
      }
    }
  },
  'openai/openai-python#3008',
  'vllm-project/vllm#35903',
);

await tryCase('Responses, structured output', async () => {
  const response = await client.responses.parse({
    ...fast,
    input: 'Which is larger, 34 or 71?',
    text: { format: { type: 'json_schema', name: 'x', strict: true, schema: LARGER } },
  });
  assert(['left', 'right'].includes(response.output_parsed.larger));
});

await tryCase('Responses, input items, look-up and deletion', async () => {
  const { id } = await client.responses.create({ ...fast, input: SUM });
  const items = [];
  for await (const item of client.responses.inputItems.list(id)) items.push(item);
  assert.equal(items[0].content[0].text, SUM);
  assert.match((await client.responses.retrieve(id)).output_text, /623/);
  await client.responses.delete(id);
  await assert.rejects(client.responses.retrieve(id), OpenAI.NotFoundError);
});

await tryCase('Responses, background with polling', async () => {
  let response = await client.responses.create({ ...fast, input: SUM, background: true });
  assert(['queued', 'in_progress', 'completed'].includes(response.status));
  while (['queued', 'in_progress'].includes(response.status)) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    response = await client.responses.retrieve(response.id);
  }
  assert.equal(response.status, 'completed');
  assert.match(response.output_text, /623/);
});

await tryCase('Responses, a background stream that is resumed', async () => {
  const request = { ...fast, input: SUM, background: true, stream: true };
  const events = [];
  let id;
  for await (const event of await client.responses.create(request)) {
    events.push(event);
    id ??= event.response.id;
    if (events.length === 5) break;
  }
  const after = { stream: true, starting_after: events.at(-1).sequence_number };
  for await (const event of await client.responses.retrieve(id, after)) events.push(event);
  events.forEach((event, index) => assert.equal(event.sequence_number, index));
  assert.equal(events.at(-1).type, 'response.completed');
});

await tryCase('Responses, background, cancelled', async () => {
  const { id } = await client.responses.create({
    ...fast,
    input: SUM,
    background: true,
    forced_lengths: { reasoning_tokens: 1500, answer_tokens: 1500 },
  });
  assert.equal((await client.responses.cancel(id)).status, 'cancelled');
});

await tryCase(
  'conversations',
  async () => {
    const { id } = await client.conversations.create({ metadata: { topic: 'sums' } });
    await client.responses.create({ ...fast, input: SUM, conversation: id });
    const second = await client.responses.create({
      ...fast,
      input: 'What is 2 + 2?',
      conversation: { id },
    });
    assert.equal(second.conversation.id, id);
    const types = [];
    for await (const item of client.conversations.items.list(id, { order: 'asc' })) types.push(item.type);
    assert.deepEqual(types, ['message', 'reasoning', 'message', 'message', 'reasoning', 'message']);
    const topic = { metadata: { topic: 'more sums' } };
    assert.deepEqual((await client.conversations.update(id, topic)).metadata, topic.metadata);
    assert.equal((await client.conversations.delete(id)).deleted, true);
    await assert.rejects(client.conversations.retrieve(id), OpenAI.NotFoundError);
  },
  'praxis-proxy/ai#53',
);

await tryCase('Responses over WebSocket, three turns on one socket', async () => {
  const socket = new ResponsesWS(client);
  const send = (fields) => socket.send({ type: 'response.create', ...fast, ...fields });
  send({ input: CHAIN, tools: [tool] });
  let calls = 0;
  for await (const { type, message, error } of socket.stream()) {
    if (type === 'error') throw error;
    if (type === 'close') throw new Error('the socket closed');
    if (type !== 'message' || message.type !== 'response.completed') continue;
    const { id, output } = message.response;
    const made = output.filter((item) => item.type === 'function_call');
    if (made.length === 0) {
      assert.match(output.at(-1).content[0].text, /500/);
      break;
    }
    calls += made.length;
    const input = made.map((call) => ({
      type: 'function_call_output',
      call_id: call.call_id,
      output: calculated(JSON.parse(call.arguments)),
    }));
    send({ input, tools: [tool], previous_response_id: id });
  }
  assert.equal(calls, 3);
  socket.close();
});

await tryCase('Responses over WebSocket, an error and then another request', async () => {
  const socket = new ResponsesWS(client);
  const seen = [];
  const ended = new Promise((resolve) => {
    socket.on('event', (event) => {
      if (event.type === 'error') seen.push(event.error?.param);
      if (event.type === 'response.completed') resolve(event.response);
    });
    socket.on('error', () => {});
  });
  socket.send({ type: 'response.create', ...fast, input: SUM, top_p: 7 });
  socket.send({ type: 'response.create', ...fast, input: SUM });
  const response = await ended;
  assert.deepEqual(seen, ['top_p']);
  assert.equal(response.status, 'completed');
  socket.close();
});

await tryCase('completions', async () => {
  const request = { model, prompt: 'Once upon a time', max_tokens: 20 };
  const { choices, usage } = await client.completions.create(request);
  assert(choices[0].text.length > 0);
  assert(usage.completion_tokens <= 20);
  let text = '';
  for await (const chunk of await client.completions.create({ ...request, stream: true })) {
    text += chunk.choices[0]?.text ?? '';
  }
  assert(text.length > 0);
});

process.exit(); // clients may still hold connections
