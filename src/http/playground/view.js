// Shows a run: the answer, how far it is, its figures, and what is told of it. Decides nothing.

import { draw } from "./chart.js";

const $ = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");
const STOPS = {
  MAX_TOKENS: "the token limit was reached",
  STOP_SEQUENCE: "a stop string appeared",
  EOS: "the model was done",
};

/** What a run is doing, in a few words. */
export function phase(run) {
  if (!run) return "nothing runs";
  if (run.lost) return "connection lost, trying again";
  switch (run.phase) {
    case "sent": return "sent";
    case "queued": return `waiting, ${count(run.queue.ahead)} ahead`;
    case "prefill": return "reading the prompt";
    case "decode": return "generating";
    case "done": return `finished: ${STOPS[run.end.stop_reason] ?? run.end.stop_reason}`;
    case "cancelled": return "cancelled";
    default: return `failed: ${run.error?.code ?? "refused"}`;
  }
}

/** All of a run but its narrations; cheap enough for every frame that is drawn. */
export function show(run) {
  $("phase").textContent = phase(run);
  $("phase").dataset.phase = run?.lost ? "lost" : run?.phase ?? "idle";
  gauge(run);
  $("tile-tokens").textContent = run?.tokens ? count(run.tokens) : "–";
  $("tile-rate").textContent = run?.rate ? run.rate.toFixed(1) : "–";
  $("tile-first").textContent = run?.first === undefined ? "–" : duration(run.first);
  $("tile-prompt").textContent = run?.prompt ? count(run.prompt) : "–";
  $("seed-line").hidden = !run?.seed;
  $("seed-shown").textContent = run?.seed ?? "";
  draw($("chart"), run?.rates ?? []);
}

const duration = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

function gauge(run) {
  const bar = $("gauge-bar");
  const [label, value] = progress(run) ?? [];
  $("gauge").hidden = label === undefined;
  if (label === undefined) return;
  $("gauge-label").textContent = label;
  if (value === undefined) bar.removeAttribute("value");
  else bar.value = value;
}

/** A line and how much of it is done, from 0 to 1; without a number nobody knows. */
function progress(run) {
  switch (run?.phase) {
    case "queued": return [`${count(run.queue.ahead)} before this one`];
    case "sent": return ["Waiting for the worker"];
    case "prefill": {
      const { done = 0, total = run.prompt } = run.prefill ?? {};
      const label = `Prompt: ${count(done)} of ${count(total)} tokens computed`;
      return done ? [label, done / total] : [label];
    }
    case "decode":
      if (!run.limit) return [`${count(run.tokens)} tokens`];
      return [`${count(run.tokens)} of up to ${count(run.limit)} tokens`, run.tokens / run.limit];
    default: return undefined;
  }
}

/** The conversation, or the prompt and what follows it; the last answer is the run's own. */
export function transcript(turns, run, mode) {
  $("welcome").hidden = turns.length > 0;
  const list = $("turns");
  list.className = mode;
  list.replaceChildren(...turns.map(({ role, content }) => turn(role, content)));
  if (run) list.append(turn("assistant", run.text, run));
  growing = { node: list.querySelector(".growing"), shown: run?.text.length ?? 0 };
  stayAtEnd($("transcript"), true);
}

let growing = {};

function turn(role, content, run) {
  const element = document.createElement("article");
  element.className = `turn ${role}`;
  const who = document.createElement("h3");
  who.className = "who";
  who.textContent = role === "user" ? "You" : "Model";
  const said = document.createElement("div");
  said.className = "said";
  said.dir = "auto";
  said.textContent = content;
  if (run) said.classList.add("growing");
  element.append(who, said);
  return element;
}

/** Adds to the answer what came since it was last shown. */
export function grow(run) {
  const { node, shown } = growing;
  if (!node) return;
  const stay = atEnd($("transcript"));
  if (run.text.length > shown) node.append(run.text.slice(shown));
  growing.shown = run.text.length;
  node.classList.toggle("live", !run.done);
  node.parentElement.dataset.outcome = run.done ? run.phase : "";
  const note = { cancelled: "cancelled here", failed: run.error?.message }[run.phase];
  if (run.done && note && !node.parentElement.querySelector(".outcome")) {
    const outcome = document.createElement("p");
    outcome.className = "outcome";
    outcome.textContent = note;
    node.after(outcome);
  }
  stayAtEnd($("transcript"), stay);
}

/** A box that was read to its end is still at its end when its size changes. */
export function followEnd(box) {
  let stay = true;
  box.addEventListener("scroll", () => { stay = atEnd(box); }, { passive: true });
  new ResizeObserver(() => stayAtEnd(box, stay)).observe(box);
}

/** Whether somebody reads at the end of a scrolled box, and so wants to stay there. */
const atEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 24;

function stayAtEnd(box, stay) {
  if (stay) box.scrollTop = box.scrollHeight;
}

/** Adds narrations to the log, in the voice chosen. */
export function tell(narrations, voice) {
  const log = $("log");
  const stay = atEnd(log);
  log.append(...narrations.map((narration) => line(narration, voice)));
  $("log-empty").hidden = log.childElementCount > 0;
  stayAtEnd(log, stay);
}

/** The log told anew, from nothing. */
export function retell(narrations, voice) {
  began = undefined;
  $("log").replaceChildren();
  tell(narrations, voice);
}

let began;

function line(narration, voice) {
  const at = Date.parse(narration.timestamp);
  began ??= at;
  const item = document.createElement("li");
  item.dataset.severity = narration.severity;
  item.dataset.actor = narration.actor;
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  const [when, who, text] = ["time", "span", "span"].map((name) => document.createElement(name));
  when.dateTime = narration.timestamp;
  when.textContent = `+${((at - began) / 1000).toFixed(2)}`;
  who.className = "actor";
  who.textContent = narration.actor;
  text.className = "text";
  text.textContent = words(narration, voice);
  if (!narration[voice]) text.classList.add("instead");
  const fact = document.createElement("pre");
  fact.textContent = JSON.stringify(narration.fact ?? narration.withheld ?? {}, null, 1);
  summary.append(when, who, text);
  details.append(summary, fact);
  item.append(details);
  return item;
}

function words(narration, voice) {
  const { withheld } = narration;
  if (withheld) return `Withheld: the filter ${withheld.filter} failed (${withheld.reason}).`;
  return narration[voice] ?? narration.human ?? `${narration.action} ${narration.target}`;
}
