// Claude Code, without its user: `node claude_code.mjs URL`. It speaks the Messages API.
import { run, tryAgent, Watcher } from './agents.mjs';
import { modelOf, URLS } from './compat_cases.mjs';

const watcher = await new Watcher().start();
const model = await modelOf(URLS[0]);
const environment = {
  ANTHROPIC_BASE_URL: watcher.url,
  ANTHROPIC_AUTH_TOKEN: 'none',
  ANTHROPIC_MODEL: model,
  ANTHROPIC_DEFAULT_HAIKU_MODEL: model,
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1',
};
const options = ['--output-format', 'stream-json', '--verbose', '--allowedTools', 'Read,Glob,Grep'];
const claude = (...args) => run('claude', ['-p', ...args, ...options], environment);

await tryAgent(watcher, {
  start: (prompt) => claude(prompt),
  resume: (session, prompt) => claude(prompt, '--resume', session),
  session: ({ headers }) => headers['x-claude-code-session-id'],
  elsewhere: {
    task: ['vllm-project/vllm#44000', 'vllm-project/vllm#44576'],
    turn: ['sgl-project/sglang#21064'],
  },
  read(lines) {
    const blocks = lines
      .filter((line) => line.type === 'assistant' && !line.parent_tool_use_id)
      .flatMap((line) => line.message.content);
    return {
      session: lines.find((line) => line.type === 'system' && line.subtype === 'init')?.session_id,
      thoughts: blocks.some((block) => block.type === 'thinking' && block.thinking),
      answer: lines.some((line) => line.type === 'result' && !line.is_error && line.result),
    };
  },
});
process.exit();
