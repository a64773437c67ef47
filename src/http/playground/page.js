// The page as a whole: what a person does, the run that follows from it, and what is kept over a reload.

import * as filters from "./filters.js";
import * as form from "./form.js";
import { apply, newRun } from "./run.js";
import * as view from "./view.js";
import * as worker from "./worker.js";

const $ = (id) => document.getElementById(id);
const KEPT = "rbees-playground";
const IDEAS = {
  chat: ["Why do bees dance?", "Write two lines about a hive in winter.", "What is beeswax used for?"],
  prompt: ["The capital of France is", "Once upon a time, a bee named", "The three laws of motion are"],
};

/** What was said before the run, the run itself, and how to let go of it. */
const page = { turns: [], run: undefined, letGo: undefined, drawn: true };

const voice = () => document.querySelector("input[name=voice]:checked").value;
const say = (text) => { $("said").textContent = text; };
const busy = () => Boolean(page.run && !page.run.done);

// A run ------------------------------------------------------------------------------------------

async function send(text) {
  if (busy() || !text.trim() || !form.valid()) return;
  form.unmark();
  hush();
  settle();
  const request = form.request(text, page.turns);
  const id = worker.jobName();
  page.turns = form.mode() === "chat" ? page.turns : [];
  page.turns.push({ role: "user", content: text });
  $("text").value = "";
  // Left running when the page is: a reload takes it up again, and only `Cancel` ends it.
  await run(id, { ...request, job_id: id, on_disconnect: "continue" });
}

/** What the last run said becomes part of the conversation. */
function settle() {
  if (page.run?.text) page.turns.push({ role: "assistant", content: page.run.text });
  page.run = undefined;
}

/** Follows a job to its end: one that begins now, or without `request` one that is known. */
async function run(id, request) {
  page.letGo?.abort();
  const letGo = new AbortController();
  Object.assign(page, { run: newRun(id), letGo });
  const now = page.run;
  const sent = request ? performance.now() : undefined;
  keep();
  showAll();
  say(request ? "Sent" : "Taking up the answer again");
  const lost = (gone) => {
    if (now.lost !== gone) say(gone ? "Connection lost, trying again" : "Connected again");
    now.lost = gone;
    draw();
  };
  try {
    for await (const frame of worker.follow(id, { request, signal: letGo.signal, lost })) {
      apply(now, frame);
      // The worker tells it at the end, and more exactly; a replayed stream shows no times.
      if (frame.type === "token" && sent) now.first ??= performance.now() - sent;
      draw();
    }
    now.done = true;
    finished(now);
  } catch (error) {
    if (page.run !== now || error.name === "AbortError") return;
    refused(error, now, request);
  }
}

function finished(run) {
  const { tokens } = run;
  say(`${view.phase(run)}, ${tokens} tokens`);
  if (run.phase === "failed") complain("The run failed.", run.error.message, { retry: run.error.retriable });
  keep();
  draw();
}

/** The worker did not take the request, or its stream is gone for good. */
function refused(error, run, request) {
  Object.assign(run, { done: true, lost: false });
  const problem = error.problem ?? {};
  if (problem.narration) run.narrations.push(problem.narration);
  if (request && !run.text) takeBack(run);
  else if (!request && error.status === 404) return forgotten();
  else Object.assign(run, { phase: "failed", error: { code: "LOST", message: "the stream broke off" } });
  explain(error);
  keep();
  draw();
}

/** A request that was not taken goes back to where it was typed. */
function takeBack(run) {
  $("text").value = page.turns.pop()?.content ?? "";
  page.run = undefined;
  showAll();
  view.retell(run.narrations, voice());
}

/** A reload came too late: the worker no longer knows the job. What was kept of it is shown. */
function forgotten() {
  const kept = recall().run;
  page.run = undefined;
  if (kept?.text) page.turns.push({ role: "assistant", content: kept.text });
  keep();
  showAll();
}

function explain(error) {
  const { status, problem = {}, retryAfter } = error;
  if (status === 401) return askForToken("The worker refused: a valid token is needed.");
  if (status === 400) {
    const rest = form.mark(problem.errors ?? []);
    const lines = rest.map(({ field, message, constraint }) => `${field}: ${message || constraint}`);
    return complain("The request can’t be taken.", rest.length ? "" : "See the marked fields.", { lines });
  }
  if (status === 429) return complain("Too many requests wait.", "Come again a little later.", { retryAfter, retry: true });
  if (status === 503) return unready(retryAfter);
  complain(status ? `Answer ${status}.` : "No answer.", `${error.message}.`, { retry: true });
}

async function unready(retryAfter) {
  const { state, loading } = await worker.readiness().catch(() => ({}));
  const part = loading?.bytes_total ? loading.bytes_done / loading.bytes_total : 0;
  const why = {
    loading: `It loads its model${part ? ` (${Math.round(part * 100)} %)` : ""}.`,
    draining: "It shuts down: it finishes what it has and takes no more.",
    stalled: "Its engine does not answer.",
  }[state] ?? "";
  complain("The worker takes no work now.", why, { retryAfter, retry: true });
}

async function cancel() {
  if (!busy()) return;
  say("Cancelling");
  $("cancel").disabled = true;
  try {
    await worker.cancel(page.run.id);
  } catch (error) {
    explain(error);
  }
  $("cancel").disabled = false;
}

// What is shown ----------------------------------------------------------------------------------

let countdown;

function complain(title, text, { lines = [], retry = false, retryAfter } = {}) {
  $("notice").hidden = false;
  $("notice-title").textContent = title;
  $("notice-text").textContent = text ?? "";
  $("notice-list").hidden = !lines.length;
  $("notice-list").replaceChildren(...lines.map((line) => element("li", line)));
  $("notice-retry").hidden = !retry;
  clearInterval(countdown);
  let left = retryAfter ?? 0;
  const tick = () => {
    $("notice-retry").textContent = left > 0 ? `Try again (free in about ${left} s)` : "Try again";
    if (left <= 0) clearInterval(countdown);
    left -= 1;
  };
  tick();
  if (left > 0) countdown = setInterval(tick, 1000);
}

function hush() {
  $("notice").hidden = true;
  clearInterval(countdown);
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function showAll() {
  view.transcript(page.turns, page.run, form.mode());
  view.retell([], voice());
  draw();
}

/** Draws what changed, at most once a frame of the screen. */
function draw() {
  if (!page.drawn) return;
  page.drawn = false;
  requestAnimationFrame(() => {
    page.drawn = true;
    const { run } = page;
    view.show(run);
    if (run) {
      view.grow(run);
      view.tell(run.narrations.slice(run.told), voice());
      run.told = run.narrations.length;
    }
    swap(busy());
    $("copy").disabled = !run?.text;
    $("clear").disabled = !page.turns.length;
  });
}

/** While a run is on, its `Cancel` stands where `Send` was; whoever stood there stays there. */
function swap(running) {
  const focused = document.activeElement;
  $("cancel").hidden = !running;
  $("send").hidden = running;
  if (running && focused === $("send")) $("cancel").focus();
  if (!running && focused === $("cancel")) $("text").focus();
}

function showForm() {
  const chat = form.mode() === "chat";
  $("text-label").textContent = chat ? "Message" : "Prompt";
  $("text").placeholder = chat ? "Message the model" : "Text for the model to go on with";
  $("send").textContent = chat ? "Send" : "Run";
  for (const field of document.querySelectorAll("[data-for]")) {
    field.hidden = field.dataset.for !== form.mode();
  }
  $("sampling-sum").textContent = form.summary();
  const turns = page.run?.text
    ? [...page.turns, { role: "assistant", content: page.run.text }] : page.turns;
  const body = form.request($("text").value || "…", turns);
  $("curl").textContent = form.curl(body, Boolean(worker.token.get()));
  $("ideas").replaceChildren(...IDEAS[form.mode()].map((idea) => {
    const [item, button] = [element("li", ""), element("button", idea)];
    Object.assign(button, { type: "button", className: "idea", onclick: () => send(idea) });
    item.append(button);
    return item;
  }));
}

// What is kept over a reload, in this tab alone --------------------------------------------------

function keep() {
  const { run, turns } = page;
  const kept = run && { id: run.id, text: run.done ? run.text : undefined };
  const all = { mode: form.mode(), voice: voice(), fields: form.values(), text: $("text").value, turns, run: kept };
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(all));
  } catch {
    sessionStorage.removeItem(KEPT); // too long to keep; the page works on
  }
}

function recall() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}

function restore() {
  const kept = recall();
  for (const name of ["mode", "voice"]) {
    const chosen = document.querySelector(`input[name=${name}][value="${kept[name]}"]`);
    if (chosen) chosen.checked = true;
  }
  form.restore(kept.fields);
  $("text").value = kept.text ?? "";
  page.turns = kept.turns ?? [];
  showForm();
  showAll();
  if (kept.run) run(kept.run.id);
}

// How the worker is ------------------------------------------------------------------------------

const seen = { generation: undefined };

async function look() {
  if (document.hidden) return;
  const health = await worker.health().catch(() => undefined);
  const state = health?.status ?? "unreachable";
  if ($("state").dataset.state !== state) {
    $("state").textContent = state;
    $("state").dataset.state = state;
  }
  if (!health) return;
  const { model, quantization, context_length: context, device } = health;
  const parts = [model, quantization, context && `${context.toLocaleString("en")} tokens`, device];
  $("model").textContent = parts.filter(Boolean).join(" · ") || "no model yet";
  $("model").title = $("model").textContent;
  showFacts(health);
  showFilters(health);
}

function showFacts(health) {
  const mebibytes = Math.round((health.resident_bytes ?? 0) / 2 ** 20);
  const seconds = health.uptime_seconds;
  const time = seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
  $("facts").textContent = [
    `version ${health.version}`, `up ${time}`, `${health.active_jobs} running`,
    `${health.queued_jobs} waiting`, mebibytes ? `${mebibytes} MiB` : "", health.worker_id,
  ].filter(Boolean).join(" · ");
}

async function showFilters({ filter_generation: generation }) {
  const before = seen.generation;
  seen.generation = generation;
  if (before !== undefined && before !== generation) say(`The filters were reloaded: generation ${generation}`);
  // Without its token the worker says no more than the generation.
  filters.show(generation, await worker.filters().catch(() => undefined));
}

// What a person does -----------------------------------------------------------------------------

function askForToken(why) {
  if (why) $("token-why").textContent = why;
  $("token-text").value = worker.token.get();
  if (!$("token").open) $("token").showModal();
  $("token-text").focus();
}

const THEMES = { auto: "as the system", light: "light", dark: "dark" };

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme-name").textContent = `Theme: ${THEMES[name]}`;
  $("theme").title = $("theme-name").textContent;
  localStorage.setItem("rbees-theme", name);
}

function listen() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    send($("text").value);
  });
  $("ask").addEventListener("input", () => {
    showForm();
    keep();
  });
  $("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    if (event.ctrlKey || event.metaKey) $("ask").requestSubmit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && busy() && !$("token").open) cancel();
  });
  $("cancel").addEventListener("click", cancel);
  $("mode").addEventListener("change", startOver);
  $("clear").addEventListener("click", startOver);
  $("voice").addEventListener("change", () => {
    view.retell(page.run?.narrations ?? [], voice());
    keep();
  });
  $("copy").addEventListener("click", copy);
  $("defaults").addEventListener("click", () => {
    form.defaults();
    showForm();
    keep();
  });
  $("seed-keep").addEventListener("click", () => {
    $("seed").value = page.run.seed;
    showForm();
    keep();
    say("Seed put into the settings");
  });
  $("notice-close").addEventListener("click", () => {
    hush();
    $("text").focus();
  });
  $("notice-retry").addEventListener("click", again);
  $("theme").addEventListener("click", () => {
    const names = Object.keys(THEMES);
    theme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
  });
  $("token-open").addEventListener("click", () => askForToken());
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useToken($("token-text").value.trim());
  });
  $("token-forget").addEventListener("click", () => useToken(""));
  document.addEventListener("visibilitychange", look);
  new ResizeObserver(draw).observe($("chart"));
  view.followEnd($("transcript"));
  view.followEnd($("log"));
}

function useToken(text) {
  worker.token.set(text);
  $("token").close();
  showForm();
  if (text && $("text").value) send($("text").value);
}

/** A refused request is in its field again; one that failed on its way is the last thing said. */
function again() {
  hush();
  if ($("text").value) return send($("text").value);
  const last = page.turns.findLast((turn) => turn.role === "user");
  if (!last) return look();
  page.turns.splice(page.turns.indexOf(last));
  page.run = undefined;
  send(last.content);
}

async function startOver() {
  if (busy()) await cancel();
  page.letGo?.abort();
  Object.assign(page, { turns: [], run: undefined });
  hush();
  form.unmark();
  showForm();
  showAll();
  keep();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(page.run.text);
    say("Copied");
  } catch {
    getSelection().selectAllChildren($("turns").lastElementChild.querySelector(".said"));
    say("The answer is selected; copy it with your keyboard");
  }
}

theme(localStorage.getItem("rbees-theme") ?? "auto");
listen();
restore();
look();
setInterval(look, 4000);
