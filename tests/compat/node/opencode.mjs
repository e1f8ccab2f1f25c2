// opencode, without its user: `node opencode.mjs URL`. It speaks chat completions.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, tryAgent, Watcher } from './agents.mjs';
import { modelOf, URLS } from './compat_cases.mjs';

const watcher = await new Watcher().start();
const model = await modelOf(URLS[0]);
const config = join(process.env.HOME, 'opencode.json');
const limit = { context: 200000, output: 32000 };
writeFileSync(
  config,
  JSON.stringify({
    autoupdate: false,
    share: 'disabled',
    model: `pascal/${model}`,
    small_model: `pascal/${model}`,
    provider: {
      pascal: {
        npm: '@ai-sdk/openai-compatible',
        options: { baseURL: `${watcher.url}/v1`, apiKey: 'none' },
        models: { [model]: { reasoning: true, tool_call: true, limit } },
      },
    },
    permission: { '*': 'deny', glob: 'allow', grep: 'allow', read: 'allow', list: 'allow' },
  }),
);
const environment = {
  OPENCODE_CONFIG: config,
  OPENCODE_DISABLE_AUTOUPDATE: '1',
  OPENCODE_DISABLE_LSP_DOWNLOAD: '1',
  OPENCODE_DISABLE_MODELS_FETCH: '1',
};
const options = ['run', '--format', 'json', '--thinking'];
const opencode = (...args) => run('opencode', [...options, ...args], environment);

await tryAgent(watcher, {
  start: (prompt) => opencode(prompt),
  resume: (session, prompt) => opencode('--session', session, prompt),
  session: ({ headers }) => headers['x-session-affinity'],
  read(lines) {
    const parts = lines.map((line) => line.part).filter(Boolean);
    return {
      session: lines[0]?.sessionID,
      thoughts: parts.some((part) => part.type === 'reasoning' && part.text),
      answer: parts.some((part) => part.type === 'text' && part.text),
    };
  },
});
process.exit();
