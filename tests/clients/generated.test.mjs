// Promise: the generated clients show narration beside tokens, get every token once through lost
// connections, cancel what is left, and raise what the worker refuses. Against the real worker.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import path from "node:path";
import { after, before, test } from "node:test";

import { ROOT, door, startWorker, until } from "../support/worker.mjs";

const { Refused, Worker } = await import(path.join(ROOT, "target/clients/typescript/dist/index.js"));
const ASK = { prompt: "Once upon a time, a bee named", max_tokens: 24, temperature: 0 };
const LONG = { ...ASK, max_tokens: 2000, repetition_penalty: 0.1 };

let worker;
let expected;
before(async () => {
  worker = await startWorker([], { RBEES_API_TOKEN: "sesame" });
  expected = await read(client(worker.url));
});
after(() => worker?.stop());

const client = (url, token = "sesame") => new Worker({ url, token });
const told = (job, kind) => until(() => worker.told.some((told) => told.job_id === job && told.fact?.[kind]));

async function read(client, each = () => {}, ask = ASK) {
  const found = { text: "", narrations: [], order: [] };
  for await (const event of client.execute(ask)) {
    found.order.push(event.type);
    if (event.type === "token") found.text += event.t;
    if (event.type === "narration") found.narrations.push(event.human);
    each(event);
  }
  return found;
}

test("typescript: narration beside tokens, through lost connections", async (t) => {
  const way = await door(worker.url);
  t.after(way.close);
  const found = await read(client(way.url), (event) => {
    if (event.type === "token" && event.i % 6 === 2) way.cut();
  });
  assert.equal(found.text, expected.text);
  const [narration, token] = [found.order.indexOf("narration"), found.order.indexOf("token")];
  assert.ok(narration >= 0 && narration < token, "it narrates before the first token");
  assert.ok(found.order.lastIndexOf("narration") > token, "and beside them");
  assert.deepEqual(found.order.filter((type) => ["started", "end", "error"].includes(type)), ["started", "end"]);
});

test("typescript: leaving the loop cancels; calls are typed; a refusal is raised", async () => {
  for await (const event of client(worker.url).execute({ ...LONG, job_id: "left-ts" })) {
    if (event.type === "token") break;
  }
  await told("left-ts", "inference-cancelled");
  const { data } = await client(worker.url).calls.GET("/health");
  assert.equal(data.status, "ready");
  await assert.rejects(read(client(worker.url), undefined, { ...ASK, max_tokens: 0 }), (error) => {
    assert.ok(error instanceof Refused && error.status === 400);
    return error.problem.errors[0].field === "max_tokens";
  });
  await assert.rejects(read(client(worker.url, "wrong")), (error) => error.status === 401);
});

test("python: the same", async (t) => {
  const way = await door(worker.url);
  t.after(way.close);
  const cutting = setInterval(way.cut, 700);
  t.after(() => clearInterval(cutting));
  const script = path.join(ROOT, "tests/clients/python/generated_client.py");
  const child = spawn(path.join(ROOT, "target/clients/light/bin/python"), [script, way.url, worker.url, JSON.stringify(ASK), JSON.stringify(LONG)],
    { env: { ...process.env, PYTHONPATH: path.join(ROOT, "clients/python/src"), PYTHONDONTWRITEBYTECODE: "1" } });
  let [out, err] = ["", ""];
  child.stdout.on("data", (bytes) => { out += bytes; });
  child.stderr.on("data", (bytes) => { err += bytes; });
  const code = await new Promise((done) => child.on("close", done));
  assert.equal(code, 0, err);
  const found = JSON.parse(out);
  assert.equal(found.text, expected.text);
  assert.ok(found.narrations >= 3);
  assert.deepEqual([found.refused, found.field, found.unknown], [400, "max_tokens", 401]);
  await told("left-py", "inference-cancelled");
});
