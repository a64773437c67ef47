// Promise: each example client shows narration beside tokens, and gets every token once although its
// connection is cut in the middle. Against the real worker.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { after, before, test } from "node:test";

import { ROOT, door, startWorker, until } from "../support/worker.mjs";

const AT = path.join(ROOT, "target/examples");
const CLIENTS = {
  curl: ["bash", path.join(ROOT, "examples/clients/execute.sh")],
  python: [path.join(AT, "venv/bin/python"), path.join(ROOT, "examples/clients/execute.py")],
  typescript: [process.execPath, path.join(AT, "execute.mjs")],
};
const PROMPT = "Once upon a time, a bee named";
const TOKENS = 32;

let worker;
let expected;

before(async () => {
  worker = await startWorker([], { RBEES_API_TOKEN: "sesame" });
  expected = await plain();
});
after(() => worker?.stop());

async function plain() {
  const response = await fetch(`${worker.url}/execute`, {
    method: "POST", headers: { "content-type": "application/json", authorization: "Bearer sesame" },
    body: JSON.stringify({ prompt: PROMPT, max_tokens: TOKENS, temperature: 0 }),
  });
  const frames = [...(await response.text()).matchAll(/^data: (.*)$/gm)].map(([, json]) => JSON.parse(json));
  return frames.filter((frame) => frame.type === "token").map((frame) => frame.t).join("");
}

function run(command, url, token = "sesame", tokens = TOKENS) {
  const [program, ...args] = [...command, PROMPT, String(tokens)];
  const child = spawn(program, args, { env: { ...process.env, WORKER_URL: url, WORKER_TOKEN: token } });
  const client = { child, out: "", err: "", exit: once(child, "close").then(([code]) => code) };
  child.stdout.setEncoding("utf8").on("data", (text) => { client.out += text; });
  child.stderr.setEncoding("utf8").on("data", (text) => { client.err += text; });
  return client;
}

for (const [name, command] of Object.entries(CLIENTS)) {
  test(`${name}: tokens and narration, through two lost connections`, async (t) => {
    const way = await door(worker.url);
    t.after(way.close);
    const client = run(command, way.url);
    for (const chars of [10, 40]) {
      await until(() => client.out.length >= chars || client.child.exitCode !== null);
      way.cut();
    }
    assert.equal(await client.exit, 0, client.err);
    assert.equal(client.out, `${expected}\n`);
    assert.match(client.err, /candle-backend: Generated \d+ tokens/);
  });

  test(`${name}: a refusal is shown, and is a failure`, async () => {
    const client = run(command, worker.url, "wrong");
    assert.notEqual(await client.exit, 0);
    assert.match(client.err + client.out, /Authorization: Bearer/);
    const invalid = run(command, worker.url, "sesame", 0);
    assert.notEqual(await invalid.exit, 0);
    assert.match(invalid.err + invalid.out, /max_tokens/);
  });
}
