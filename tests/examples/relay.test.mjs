// Promise: the relay hands tokens and narration on with their ids, and neither a lost user nor a lost
// worker connection loses or doubles a frame; a worker that dies is told to the user. Real workers.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import readline from "node:readline";
import { after, before, test } from "node:test";

import { ROOT, door, fact, startWorker, until } from "../support/worker.mjs";

const ASK = { prompt: "Once upon a time, a bee named", max_tokens: 32, temperature: 0 };

let worker;
before(async () => { worker = await startWorker(); });
after(() => worker?.stop());

/** The relay before these workers; ends with its test. */
async function startRelay(t, ...workers) {
  const child = spawn(process.execPath, [path.join(ROOT, "examples/pool/relay/relay.mjs"), "0", ...workers],
    { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, RELAY_AWAY_MS: "1500" } });
  t.after(() => child.kill("SIGKILL"));
  const [line] = await once(readline.createInterface({ input: child.stdout }), "line");
  return line.split(" ").at(-1);
}

const ask = (relay, body = ASK) => fetch(`${relay}/ask`, { method: "POST", body: JSON.stringify(body) });

/** Reads frames of a stream: all of them, or until `enough` says so. */
async function read(response, enough = () => false) {
  const [frames, reader] = [[], response.body.pipeThrough(new TextDecoderStream()).getReader()];
  for (let text = ""; !frames.some(enough);) {
    const { value, done } = await reader.read();
    if (done) return frames;
    text += value;
    const blocks = text.replace(/^:.*\n/gm, "").split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      frames.push({ id: Number(/^id: (\d+)$/m.exec(block)[1]), ...JSON.parse(/^data: (.*)$/m.exec(block)[1]) });
    }
  }
  await reader.cancel();
  return frames;
}

const words = (frames) => frames.filter((frame) => frame.type === "token").map((frame) => frame.t).join("");

function whole(frames, expected) {
  assert.deepEqual(frames.map((frame) => frame.id), frames.map((_, at) => at + 1), "ids without a gap");
  assert.equal(frames.at(-1).type, "end");
  assert.ok(frames.some((frame) => frame.type === "narration"));
  if (expected !== undefined) assert.equal(words(frames), expected);
}

let expected;

test("tokens and narration come with their ids", async (t) => {
  const frames = await read(await ask(await startRelay(t, worker.url)));
  whole(frames);
  expected = words(frames);
});

test("a lost connection to the worker is not seen by the user", async (t) => {
  const way = await door(worker.url);
  t.after(way.close);
  const response = await ask(await startRelay(t, way.url));
  const cutting = (async () => {
    for (let n = 0; n < 3; n += 1) {
      await new Promise((done) => setTimeout(done, 700));
      way.shut(true);
      way.cut();
      await new Promise((done) => setTimeout(done, 300));
      way.shut(false);
    }
  })();
  whole(await read(response), expected);
  await cutting;
});

test("a user who lost the connection comes back for the rest", async (t) => {
  const relay = await startRelay(t, worker.url);
  const first = await read(await ask(relay), (frame) => frame.type === "token" && frame.i >= 5);
  const url = `${relay}/ask/${first[0].job_id}/events`;
  const last = first.at(-1).id;
  const rest = await read(await fetch(url, { headers: { "last-event-id": String(last) } }));
  whole([...first, ...rest], expected);
  const after = await fetch(url, { headers: { "last-event-id": String(rest.at(-1).id) } });
  assert.equal(after.status, 204, "what stops a browser from coming again");
});

test("nobody computes for a user who stays away", async (t) => {
  const relay = await startRelay(t, worker.url);
  const first = await read(await ask(relay, { ...ASK, max_tokens: 2000, repetition_penalty: 0.1 }), (frame) => frame.type === "token");
  const id = first[0].job_id;
  await until(() => worker.told.some((told) => told.job_id === id && told.fact?.["inference-cancelled"]));
});

test("a worker that dies is told, and the next ask goes to another", async (t) => {
  const mortal = await startWorker();
  t.after(mortal.stop);
  const relay = await startRelay(t, worker.url, mortal.url); // the second is asked first
  const response = await ask(relay, { ...ASK, max_tokens: 500, repetition_penalty: 0.1 });
  await fact(mortal, "tokens-generated");
  await mortal.stop();
  const frames = await read(response);
  assert.deepEqual([frames.at(-1).type, frames.at(-1).code], ["error", "WORKER_LOST"]);
  assert.equal(frames.at(-1).id, frames.length);
  whole(await read(await ask(relay)), expected);
});

test("what the worker refuses is handed on", async (t) => {
  const relay = await startRelay(t, worker.url);
  const refused = await ask(relay, { prompt: "hi", max_tokens: 0 });
  assert.equal(refused.status, 400);
  assert.equal((await refused.json()).errors[0].field, "max_tokens");
  assert.equal((await fetch(`${relay}/ask/never/events`)).status, 404);
});
