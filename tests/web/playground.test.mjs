// Promise: the playground works as a person uses it, in a real browser against the real worker. Leaves
// pictures in target/web/shots for people to look at.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";

import { ROOT, door, startWorker, until } from "../support/worker.mjs";

const TOOLS = createRequire(path.join(ROOT, "target/web/"));
const { chromium } = TOOLS("playwright-core");
const axe = TOOLS("axe-core").source;
const SHOTS = path.join(ROOT, "target/web/shots");
const LONG = "Tell a very long story about a hive, with many chapters.";

let browser;
let shared;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
  shared = await startWorker();
});

after(async () => {
  await browser?.close();
  await shared?.stop();
});

/** A page of a fresh browser at `url`; anything it loads from elsewhere or complains of is a failure. */
async function open(t, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.on("console", (message) => {
    const refusal = message.text().includes("Failed to load resource"); // the page's to explain
    if (message.type() === "error" && !refusal) page.faults.push(message.text());
  });
  page.on("request", (request) => {
    if (!/^(data:|http:\/\/127\.0\.0\.1:)/.test(request.url())) page.faults.push(request.url());
  });
  await page.goto(url);
  await page.waitForSelector("#state:not([data-state=unknown])");
  return page;
}

const shot = (page, name, options) => page.screenshot({ path: path.join(SHOTS, `${name}.png`), ...options });
const phase = (page, wanted) => page.waitForSelector(`#phase[data-phase=${wanted}]`, { timeout: 120_000 });
const answer = (page) => page.textContent(".growing");
const grown = (page, chars) => page.waitForFunction(
  (least) => document.querySelector(".growing")?.textContent.length >= least, chars, { timeout: 120_000 });

async function set(page, fields) {
  await page.evaluate(() => { document.querySelector("#sampling").open = true; });
  for (const [id, value] of Object.entries(fields)) await page.fill(`#${id}`, String(value));
  await page.evaluate(() => { document.querySelector("#sampling").open = false; });
}

async function ask(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Control+Enter");
}

const job = (page) => page.evaluate(() => JSON.parse(sessionStorage.getItem("rbees-playground")).run.id);

/** The text of a job as its log has it. */
async function logged(url, id) {
  const body = await (await fetch(`${url}/jobs/${id}/events`)).text();
  const frames = [...body.matchAll(/^data: (.*)$/gm)].map(([, json]) => JSON.parse(json));
  return frames.filter((frame) => frame.type === "token").map((frame) => frame.t).join("");
}

test("an answer comes token by token, narrated beside it", async (t) => {
  const page = await open(t, shared.url, { colorScheme: "light" });
  await shot(page, "light-empty");
  await set(page, { max_tokens: 24 });
  await ask(page, "Why do bees dance?");
  const lengths = new Set();
  while (!(await page.$("#phase[data-phase=done]"))) {
    lengths.add((await answer(page))?.length);
    if (lengths.size === 8) await shot(page, "light-running");
  }
  assert.ok(lengths.size > 8, `it grew in ${lengths.size} steps`);
  assert.equal(await page.textContent("#tile-tokens"), "24");
  const human = await page.textContent("#log");
  assert.match(human, /Accepted a request/);
  await page.check("input[value=cute]", { force: true });
  assert.notEqual(await page.textContent("#log"), human, "another voice has other words");
  await shot(page, "light-done-cute");
  assert.ok((await page.$$("#chart .line")).length, "the chart has a line");
  assert.equal((await page.$$("#log details")).length, (await page.$$("#log li")).length);
  assert.deepEqual(page.faults, []);
});

test("a chat remembers what was said", async (t) => {
  const page = await open(t, shared.url);
  await set(page, { max_tokens: 4 });
  for (const message of ["One.", "Two."]) {
    await ask(page, message);
    await phase(page, "sent").catch(() => {});
    await phase(page, "done");
  }
  assert.deepEqual(await page.$$eval(".turn", (all) => all.map((turn) => turn.classList[1])),
    ["user", "assistant", "user", "assistant"]);
  assert.match(await page.textContent("#curl"), /"role": "assistant"/);
  await page.click("#clear");
  assert.equal((await page.$$(".turn")).length, 0);
});

test("the keyboard alone is enough, and Escape cancels", async (t) => {
  const page = await open(t, shared.url, { colorScheme: "dark" });
  for (let n = 0; n < 12 && (await page.evaluate(() => document.activeElement.id)) !== "text"; n += 1) {
    await page.keyboard.press("Tab");
  }
  await page.keyboard.type(LONG);
  await page.keyboard.press("Control+Enter");
  await grown(page, 20);
  await page.keyboard.press("Escape");
  await phase(page, "cancelled");
  await shot(page, "dark-cancelled");
  const cancelled = shared.told.findLast((narration) => narration.fact?.["inference-cancelled"]);
  assert.equal(cancelled.fact["inference-cancelled"].by, "client");
  assert.match(await page.textContent("#said"), /cancelled/);
});

test("a reload takes a running answer up again", async (t) => {
  const page = await open(t, shared.url, { colorScheme: "dark" });
  await set(page, { max_tokens: 40 });
  await ask(page, LONG);
  await grown(page, 20);
  const [id, before] = [await job(page), await answer(page)];
  await page.reload();
  await grown(page, before.length);
  await shot(page, "dark-resumed");
  await phase(page, "done");
  assert.equal(await answer(page), await logged(shared.url, id));
  await page.reload();
  await phase(page, "done");
  assert.equal(await answer(page), await logged(shared.url, id), "a finished one is shown again");
});

test("a lost connection loses and doubles nothing", async (t) => {
  const way = await door(shared.url);
  t.after(way.close);
  const page = await open(t, way.url);
  await set(page, { max_tokens: 40 });
  await ask(page, LONG);
  for (const chars of [10, 30, 60]) {
    await grown(page, chars);
    way.shut(true);
    way.cut();
    await phase(page, "lost");
    if (chars === 30) await shot(page, "light-lost");
    way.shut(false);
  }
  await phase(page, "done");
  assert.equal(await answer(page), await logged(shared.url, await job(page)));
});

test("each refusal is explained, and a way on is offered", async (t) => {
  const worker = await startWorker(["--queue", "1"]);
  t.after(worker.stop);
  const page = await open(t, worker.url);
  const { context_length } = await (await fetch(`${worker.url}/health`)).json();
  const text = "hello ".repeat(Math.max(1, context_length - 4090)).trim(); // a token a word, and the template's
  await set(page, { max_tokens: 4090 });
  await ask(page, text);
  await page.waitForSelector("#max_tokens[aria-invalid]");
  assert.match(await page.textContent("#max_tokens-wrong"), /context/);
  assert.equal(await page.inputValue("#text"), text, "what was typed is there again");
  await shot(page, "light-invalid", { fullPage: true });

  await set(page, { max_tokens: 3 });
  const body = JSON.stringify({ prompt: LONG, max_tokens: 2000, on_disconnect: "continue" });
  const post = () => fetch(`${worker.url}/execute`, { method: "POST", body, headers: { "content-type": "application/json" } });
  const [running, waiting] = [await post(), await post()];
  await ask(page, "hello");
  await page.waitForSelector("#notice-retry:not([hidden])");
  assert.match(await page.textContent("#notice"), /Too many requests wait/);
  await shot(page, "light-429");
  for (const response of [running, waiting]) {
    const reader = response.body.getReader();
    const id = /"job_id":"([^"]+)"/.exec(new TextDecoder().decode((await reader.read()).value))[1];
    await fetch(`${worker.url}/cancel`, { method: "POST", body: JSON.stringify({ job_id: id }), headers: { "content-type": "application/json" } });
    await reader.cancel();
  }
  await until(async () => (await (await fetch(`${worker.url}/health`)).json()).active_jobs === 0);
  await page.click("#notice-retry");
  await phase(page, "done");

  const held = await post();
  await until(async () => (await (await fetch(`${worker.url}/health`)).json()).active_jobs === 1);
  worker.child.kill("SIGTERM");
  await page.waitForSelector("#state[data-state=draining]");
  await ask(page, "hello");
  await page.waitForSelector("#notice:not([hidden])");
  await page.waitForFunction(() => document.querySelector("#notice").textContent.includes("shuts down"));
  await held.body.cancel();
  await worker.stop();
  await page.waitForSelector("#state[data-state=unreachable]");
  await page.click("#notice-retry");
  await page.waitForFunction(() => document.querySelector("#notice").textContent.includes("can’t be reached"));
  await shot(page, "light-unreachable");
  assert.deepEqual(page.faults, []);
});

test("a token is asked for, kept for the tab and sent", async (t) => {
  const worker = await startWorker([], { RBEES_API_TOKEN: "sesame" });
  t.after(worker.stop);
  const page = await open(t, worker.url);
  await set(page, { max_tokens: 3 });
  await ask(page, "hello");
  await page.waitForSelector("#token[open]");
  await shot(page, "light-token");
  await page.keyboard.type("wrong");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#token-why").textContent.includes("refused"));
  await page.waitForSelector("#token[open]");
  await page.fill("#token-text", "sesame");
  await page.keyboard.press("Enter");
  await phase(page, "done");
  assert.equal(await page.evaluate(() => JSON.stringify(localStorage).includes("sesame")), false);
  await page.reload();
  await phase(page, "done");
});

test("a reload of the filters shows", async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "rbees-web-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const manifest = (extra) => writeFileSync(path.join(folder, "filters.toml"),
    `[[filter]]\nbuiltin = "storyteller"\n${extra}\n[[filter]]\nbuiltin = "redact"\n`);
  manifest("");
  const worker = await startWorker(["--filters", folder]);
  t.after(worker.stop);
  const page = await open(t, worker.url);
  await page.waitForFunction(() => document.querySelector("#filters-sum").textContent.includes("generation 1"));
  manifest("[filter.config]\ncute = false\n");
  await page.waitForFunction(() => /generation 2.*reloaded/.test(document.querySelector("#filters-sum").textContent), undefined, { timeout: 60_000 });
  writeFileSync(path.join(folder, "filters.toml"), "[[filter]]\nbuiltin = \"queen\"\n");
  await page.waitForSelector("#filters-refused.open", { timeout: 60_000 });
  assert.match(await page.textContent("#filters-refused"), /^Refused at .*queen.*The last good chain serves\.$/s);
  await shot(page, "filters-refused");
  manifest("");
  await page.waitForSelector("#filters-refused:not(.open)", { timeout: 60_000 });
});

test("the chain is shown as the worker has it, to who may see it", async (t) => {
  const worker = await startWorker([], { RBEES_API_TOKEN: "honey" });
  t.after(worker.stop);
  const page = await open(t, worker.url);
  await page.waitForFunction(() => document.querySelector("#filters-sum").textContent.includes("generation 1"));
  assert.equal(await page.isVisible("#filters-list"), false, "no token, no chain");
  await page.click("#token-open");
  await page.fill("#token-text", "honey");
  await page.press("#token-text", "Enter");
  await set(page, { max_tokens: 12 });
  await ask(page, "Hum.");
  await phase(page, "done");
  const asked = await fetch(`${worker.url}/filters`, { headers: { authorization: "Bearer honey" } });
  const chain = await asked.json();
  const shown = () => page.$$eval("#filters-list li", (items) => items.map((item) => [
    item.querySelector("strong").textContent, item.querySelector(".digest").textContent, item.querySelector(".did").textContent,
  ]));
  const calls = ({ calls }) => `${calls.toLocaleString("en")} calls`;
  await page.waitForFunction((wanted) => document.querySelector("#filters-list").textContent.includes(wanted), calls(chain.filters[0]), { timeout: 60_000 });
  const lines = await shown();
  assert.deepEqual(lines.map(([name, digest]) => [name, digest]),
    chain.filters.map(({ name, digest }) => [name, digest.slice(0, 12)]));
  assert.ok(chain.filters.length >= 2 && lines.every(([, , did]) => did.includes("none failed")), String(lines));
  await shot(page, "filters-chain");
  assert.deepEqual(page.faults, []);
});

test("it is read on a phone, and by whoever can't see it", async (t) => {
  const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
  for (const colorScheme of ["light", "dark"]) {
    for (const [name, options] of [["phone", phone], ["desk", {}]]) {
      const page = await open(t, shared.url, { colorScheme, ...options });
      await set(page, { max_tokens: 12 });
      await page.fill("#text", "What is honey?");
      await page.click("#send");
      await phase(page, "done");
      await page.evaluate(() => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${name}: ${wide} pixels too wide`);
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run());
      const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
      assert.deepEqual(found, [], `${name}, ${colorScheme}`);
      await page.evaluate(() => document.querySelectorAll("details").forEach((details) => { details.open = false; }));
      await shot(page, `${colorScheme}-${name}`, { fullPage: true });
      assert.deepEqual(page.faults, []);
    }
  }
});

test("the theme is the person's choice, and stays", async (t) => {
  const page = await open(t, shared.url, { colorScheme: "light" });
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await paper();
  await page.click("#theme");
  await page.click("#theme");
  const dark = await paper();
  assert.notEqual(dark, light);
  await page.reload();
  assert.equal(await paper(), dark);
});

test("the contract is read at /docs, out of the binary", async (t) => {
  const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
  for (const [name, options] of [["light", { colorScheme: "light" }], ["dark", { colorScheme: "dark" }], ["phone", phone]]) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
    t.after(() => context.close());
    const page = await context.newPage();
    const foreign = [];
    page.on("request", (request) => {
      if (!/^(data:|blob:|http:\/\/127\.0\.0\.1:)/.test(request.url())) foreign.push(request.url());
    });
    await page.goto(`${shared.url}/docs`);
    await page.waitForSelector("#operations-jobs-execute", { timeout: 120_000 });
    const shown = await page.$$eval(".opblock", (all) => all.length);
    assert.ok(shown >= 13, `${shown} operations`);
    await page.click("#operations-jobs-execute .opblock-summary-control");
    await page.waitForSelector("#operations-jobs-execute .opblock-body");
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(wide <= 0, `${name}: ${wide} pixels too wide`);
    await shot(page, `docs-${name}`);
    assert.deepEqual(foreign, []);
  }
});
