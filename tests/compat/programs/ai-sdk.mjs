// The AI SDK (`ai`) with its three ways to this server: `@ai-sdk/openai` (Responses),
// `@ai-sdk/openai-compatible` (chat completions) and `@ai-sdk/anthropic` (Messages).
import assert from 'node:assert/strict'
import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from 'ai'
import { CALCULATOR, calculated, CHAIN, check, done, model, SUM, url } from './common.mjs'

globalThis.AI_SDK_LOG_WARNINGS = false
const sent = [] // bodies of requests
const headers = { 'x-slo-tpot-ms': '1' } // the pace of answers

/** Keeps the bodies that the SDK sends. */
function watched(address, options) {
  if (typeof options?.body === 'string') sent.push(JSON.parse(options.body))
  return fetch(address, options)
}

const shared = { baseURL: `${url}/v1`, apiKey: 'none', headers, fetch: watched }
const openai = createOpenAI(shared)
const compatible = createOpenAICompatible({ name: 'pascal', includeUsage: true, ...shared })
const supportsStructuredOutputs = true
const structured = createOpenAICompatible({ name: 'pascal', supportsStructuredOutputs, ...shared })
const anthropic = createAnthropic(shared)

const summaries = { openai: { reasoningSummary: 'auto', forceReasoning: true } }
const thinking = { anthropic: { thinking: { type: 'enabled', budgetTokens: 1024 } } }
const WAYS = {
  '@ai-sdk/openai': { model: openai(model), providerOptions: summaries },
  '@ai-sdk/openai, chat': { model: openai.chat(model), silent: true },
  '@ai-sdk/openai-compatible': { model: compatible(model) },
  '@ai-sdk/anthropic': { model: anthropic(model), providerOptions: thinking },
}

const calculator = tool({
  description: CALCULATOR.description,
  inputSchema: jsonSchema(CALCULATOR.parameters),
  execute: async (input) => calculated(input),
})

const SCHEMA = jsonSchema({
  type: 'object',
  properties: { larger: { type: 'string', enum: ['left', 'right'] } },
  required: ['larger'],
  additionalProperties: false,
})

for (const [way, { silent, ...settings }] of Object.entries(WAYS)) {
  const fast = { ...settings, maxRetries: 0, temperature: 0, maxOutputTokens: 2000 }

  await check(`${way}: thoughts and an answer, whole`, async () => {
    const result = await generateText({ ...fast, prompt: SUM })
    assert.match(result.text, /623/)
    if (!silent) assert(result.reasoningText?.length > 0, 'no thoughts')
    assert.equal(result.finishReason, 'stop')
    assert(result.usage.outputTokens > 0)
  })

  await check(`${way}: thoughts and an answer, streamed`, async () => {
    const pieces = { 'reasoning-delta': 0, 'text-delta': 0 }
    const result = streamText({ ...fast, prompt: SUM })
    for await (const part of result.fullStream) {
      if (part.type === 'error') throw part.error
      if (part.type in pieces) pieces[part.type] += 1
    }
    assert.match(await result.text, /623/)
    assert(pieces['text-delta'] > 1)
    if (!silent) assert(pieces['reasoning-delta'] > 1, 'no thoughts')
    assert((await result.usage).outputTokens > 0)
  })

  await check(`${way}: a second turn`, async () => {
    const first = await generateText({ ...fast, prompt: SUM })
    sent.length = 0
    const messages = [
      { role: 'user', content: SUM },
      ...first.response.messages,
      { role: 'user', content: 'What is 2 + 2?' },
    ]
    const second = await generateText({ ...fast, messages })
    assert(second.text.length > 0)
    if (way === '@ai-sdk/openai') {
      const types = sent[0].input.map((item) => item.type)
      assert(types.includes('item_reference'), `no reference was sent: ${types}`)
    }
  })

  for (const streamed of [false, true]) {
    const how = streamed ? 'streamed' : 'whole'
    await check(`${way}: a loop of three calls, ${how}`, async () => {
      const task = { prompt: CHAIN, tools: { calculator }, stopWhen: stepCountIs(6) }
      const result = await (streamed ? streamText : generateText)({ ...fast, ...task })
      if (streamed) {
        await result.consumeStream({
          onError: (error) => {
            throw error
          },
        })
      }
      const steps = await result.steps
      assert.deepEqual(steps.map((step) => step.toolCalls.length), [1, 1, 1, 0])
      assert.match(await result.text, /500/)
    })
  }

  await check(`${way}: structured output`, async () => {
    const form = Output.object({ schema: SCHEMA })
    const asked = { ...fast, prompt: 'Which is larger, 34 or 71?', output: form }
    // Two of the packages know by a setting that this server takes a schema.
    if (way === '@ai-sdk/openai-compatible') asked.model = structured(model)
    if (way === '@ai-sdk/anthropic') {
      asked.providerOptions = { anthropic: { structuredOutputMode: 'outputFormat' } }
    }
    const { output } = await generateText(asked)
    assert(['left', 'right'].includes(output.larger))
  })
}

await check('@ai-sdk/openai: nothing stored, thoughts encrypted, a loop of calls', async () => {
  const options = { openai: { ...summaries.openai, store: false, include: ['reasoning.encrypted_content'] } }
  const result = await generateText({
    model: openai(model),
    providerOptions: options,
    maxRetries: 0,
    prompt: CHAIN,
    tools: { calculator },
    stopWhen: stepCountIs(6),
  })
  assert.match(result.text, /\d/)
  const again = sent.at(-1).input.filter((item) => item.type === 'reasoning')
  assert(again.every((item) => item.encrypted_content))
  assert(again.length > 0)
})

await check('@ai-sdk/openai: previousResponseId', async () => {
  const first = await generateText({ model: openai(model), maxRetries: 0, prompt: SUM })
  const { responseId } = first.providerMetadata.openai
  const second = await generateText({
    model: openai(model),
    maxRetries: 0,
    prompt: 'What is 2 + 2?',
    providerOptions: { openai: { previousResponseId: responseId } },
  })
  assert.match(second.text, /\d/)
})

await check('@ai-sdk/openai: conversation', async () => {
  const made = await fetch(`${url}/v1/conversations`, { method: 'POST', body: '{}' })
  const { id } = await made.json()
  for (const prompt of [SUM, 'What is 2 + 2?']) {
    const options = { openai: { conversation: id } }
    const asked = { model: openai(model), maxRetries: 0, prompt, providerOptions: options }
    assert.match((await generateText(asked)).text, /\d/)
  }
})

await check('a bad request is an error that is not retried', async () => {
  const asked = generateText({ model: openai('no-such-model'), prompt: SUM })
  await assert.rejects(asked, (error) => error.statusCode === 404 && error.isRetryable === false)
})

done()
