// The `@anthropic-ai/sdk` package for Node: whole and streamed messages with thoughts and tools.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
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

const client = new Anthropic({ baseURL: url, apiKey: 'none', maxRetries: 0, defaultHeaders: HEADERS });
// Newer packages have no name for `temperature`; fields without a name reach the server as they are.
const fast = { model, max_tokens: 1000, temperature: 0 };
const asked = [{ role: 'user', content: SUM }];
const { parameters: input_schema, ...named } = CALCULATOR;
const tools = [{ ...named, input_schema }];
const thinking = { type: 'enabled', budget_tokens: 1024 };

/** A message, whole or put together by the package from its events. */
async function spoken(stream, fields) {
  if (!stream) return client.messages.create({ ...fast, ...fields });
  return client.messages.stream({ ...fast, ...fields }).finalMessage();
}

for (const stream of [false, true]) {
  const how = stream ? 'streamed' : 'whole';

  await tryCase(`thoughts and an answer, ${how}`, async () => {
    const limits = { thinking, max_tokens: 2000 };
    const message = await spoken(stream, { messages: asked, ...limits });
    assert.deepEqual(
      message.content.map((block) => block.type),
      ['thinking', 'text'],
    );
    assert(message.content[0].thinking.length > 0);
    assert(message.content[0].signature.length > 0);
    assert.match(message.content[1].text, /623/);
    assert.equal(message.stop_reason, 'end_turn');
    assert(message.usage.output_tokens > 0);
  });

  await tryCase(`a loop of three calls, ${how}`, async () => {
    const messages = [{ role: 'user', content: CHAIN }];
    for (let calls = 0; ; calls += 1) {
      const message = await spoken(stream, { messages, tools, thinking, max_tokens: 2000 });
      messages.push({ role: 'assistant', content: message.content });
      const made = message.content.filter((block) => block.type === 'tool_use');
      if (made.length === 0) {
        assert.equal(calls, 3);
        assert.equal(message.stop_reason, 'end_turn');
        assert.match(message.content.at(-1).text, /500/);
        assert(message.usage.cache_read_input_tokens > 0);
        return;
      }
      assert.equal(message.stop_reason, 'tool_use');
      assert.equal(message.content[0].type, 'thinking');
      const content = made.map(({ id, input }) => ({
        type: 'tool_result',
        tool_use_id: id,
        content: calculated(input),
      }));
      messages.push({ role: 'user', content });
    }
  });

  await tryCase(`stop sequence and bound, ${how}`, async () => {
    const stopped = await spoken(stream, { messages: asked, stop_sequences: ['623'] });
    assert.equal(stopped.stop_reason, 'stop_sequence');
    assert.equal(stopped.stop_sequence, '623');
    const cut = await spoken(stream, { messages: asked, max_tokens: 3 });
    assert.equal(cut.stop_reason, 'max_tokens');
  });
}

await tryCase('the deltas of a stream are the message', async () => {
  const seen = { thinking: '', text: '', inputJson: '' };
  const messages = [{ role: 'user', content: CHAIN }];
  const stream = client.messages.stream({ ...fast, messages, tools });
  for (const kind of Object.keys(seen)) stream.on(kind, (delta) => (seen[kind] += delta));
  const { content } = await stream.finalMessage();
  assert.equal(seen.thinking, content.find((block) => block.type === 'thinking').thinking);
  const { input } = content.find((block) => block.type === 'tool_use');
  assert.deepEqual(JSON.parse(seen.inputJson), input);
});

await tryCase('the tool runner of the package', async () => {
  let calls = 0;
  const runner = client.beta.messages.toolRunner({
    ...fast,
    messages: [{ role: 'user', content: CHAIN }],
    tools: [
      {
        ...tools[0],
        parse: (input) => input,
        run: (input) => {
          calls += 1;
          return calculated(input);
        },
      },
    ],
  });
  const message = await runner;
  assert.equal(calls, 3);
  assert.match(message.content.at(-1).text, /500/);
});

await tryCase('no thinking; count_tokens agrees with the usage', async () => {
  const message = await spoken(false, { messages: asked, thinking: { type: 'disabled' } });
  assert.deepEqual(
    message.content.map((block) => block.type),
    ['text'],
  );
  const { input_tokens } = await client.messages.countTokens({ model, messages: asked });
  const { usage } = message;
  const used = usage.input_tokens + usage.cache_read_input_tokens;
  assert(0 < input_tokens && input_tokens <= used, `${input_tokens}, ${used}`);
});

await tryCase('system as blocks with cache_control', async () => {
  const system = [{ type: 'text', text: 'You are brief.', cache_control: { type: 'ephemeral' } }];
  const message = await spoken(true, { messages: asked, system });
  assert.equal(message.stop_reason, 'end_turn');
});

await tryCase('a call that must be made', async () => {
  const choice = { type: 'tool', name: 'calculator' };
  const message = await spoken(true, { messages: asked, tools, tool_choice: choice });
  assert.equal(message.stop_reason, 'tool_use');
  assert.equal(message.content.at(-1).name, 'calculator');
});

await tryCase('structured output', async () => {
  const message = await client.messages.parse({
    ...fast,
    messages: [{ role: 'user', content: 'Which is larger, 34 or 71?' }],
    output_config: { format: { type: 'json_schema', schema: LARGER } },
  });
  assert(['left', 'right'].includes(JSON.parse(message.content.at(-1).text).larger));
});

await tryCase('errors have their class and name the field', async () => {
  const empty = client.messages.create({ ...fast, messages: [] });
  await assert.rejects(empty, (error) => {
    assert(error instanceof Anthropic.BadRequestError);
    assert.match(error.message, /messages/);
    return true;
  });
  const other = client.messages.create({ ...fast, messages: asked, model: 'no-such-model' });
  await assert.rejects(other, Anthropic.NotFoundError);
});

await tryCase('models', async () => {
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert(names.includes(model));
});

process.exit(); // clients may still hold connections
