// Codex CLI, without its user: `node codex.mjs URL`. It speaks the Responses API.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run, tryAgent, Watcher } from './agents.mjs';
import { modelOf, URLS } from './compat_cases.mjs';

const watcher = await new Watcher().start();
const model = await modelOf(URLS[0]);
const home = join(process.env.HOME, '.codex');
mkdirSync(home, { recursive: true });
writeFileSync(
  join(home, 'config.toml'),
  `model = "${model}"
model_provider = "pascal"
web_search = "disabled"
check_for_update_on_startup = false
approval_policy = "never"
sandbox_mode = "read-only"
[analytics]
enabled = false
[model_providers.pascal]
name = "pascal"
base_url = "${watcher.url}/v1"
wire_api = "responses"
`,
);
const codex = (...args) => run('codex', ['exec', ...args], { CODEX_HOME: home });
const options = ['--skip-git-repo-check', '--json'];

await tryAgent(watcher, {
  start: (prompt) => codex(...options, prompt),
  resume: (session, prompt) => codex('resume', ...options, session, prompt),
  session: ({ headers }) => headers['session-id'],
  elsewhere: { task: ['openai/codex#42067', 'vllm-project/vllm#42407'] },
  read(lines) {
    const items = lines.filter((line) => line.type === 'item.completed').map((line) => line.item);
    return {
      session: lines.find((line) => line.type === 'thread.started')?.thread_id,
      thoughts: items.some((item) => item.type === 'reasoning' && item.text),
      answer: items.some((item) => item.type === 'agent_message' && item.text),
    };
  },
});
process.exit();
