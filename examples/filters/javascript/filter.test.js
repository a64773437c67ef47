import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { filter, read } from './filter.js';

/** The facts of a recording, as a filter gets them. */
const events = readFileSync(new URL('events.ndjson', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line));

const narrated = ({ context, sinks }) => {
  const open = { stdout: sinks.includes('stdout'), sse: sinks.includes('sse') };
  return filter.narrate(context, { sinks: open, human: '' }).sinks;
};

test('a rule closes the sinks that it names, for the kinds that it names', () => {
  filter.configure('{"drop":[{"kinds":["cache-reset"],"from":["sse"]},{"kinds":["cpu-ready"]}]}');
  const of = (kind) => narrated(events.find((event) => event.context.kind === kind));
  assert.deepEqual(of('cache-reset'), { stdout: true, sse: false });
  assert.deepEqual(of('cpu-ready'), { stdout: false, sse: false });
  assert.deepEqual(of('inference-completed'), { stdout: true, sse: true });
});

test('what is severe passes', () => {
  filter.configure('{"drop":[{"kinds":["inference-failed"]}]}');
  const context = { kind: 'inference-failed', severity: 'error' };
  assert.deepEqual(narrated({ context, sinks: ['sse'] }), { stdout: false, sse: true });
});

test('what is not understood is refused by name', () => {
  for (const [config, named] of [
    ['{"dorp":[]}', 'dorp'],
    ['{"drop":[{"kinds":["a"],"belw":"warn"}]}', 'belw'],
    ['{"drop":[{"kinds":["a"],"below":"loud"}]}', 'debug, info'],
    ['{"drop":[{}]}', 'a list of kinds'],
  ]) {
    assert.throws(() => read(config), (error) => String(error).includes(named), config);
  }
});
