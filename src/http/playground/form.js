// The form: from its fields to a request, and what the worker found wrong back to its fields. Sends nothing.

import { asJson } from "./worker.js";

const $ = (id) => document.getElementById(id);
const NUMBERS = [
  "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "progress_every",
];
const FIELDS = [...NUMBERS, "seed", "stop", "system"];

export const mode = () => document.querySelector("input[name=mode]:checked").value;

/** The request as it would be sent; `turns` are what was said before, in a chat. */
export function request(text, turns) {
  const body = {};
  if (mode() === "chat") {
    const system = $("system").value.trim();
    body.messages = [...turns, { role: "user", content: text }];
    if (system) body.messages.unshift({ role: "system", content: system });
  } else {
    body.prompt = text;
  }
  for (const name of NUMBERS) body[name] = Number($(name).value);
  const stop = $("stop").value.split("\n").filter(Boolean);
  if (stop.length) body.stop = stop;
  if ($("seed").value) body.seed = $("seed").value;
  return body;
}

/** The same as a command for a shell. */
export function curl(body, guarded) {
  const json = asJson(body, 1).replaceAll("'", "'\\''");
  const token = guarded ? "  -H \"authorization: Bearer $TOKEN\" \\\n" : "";
  return `curl -N ${location.origin}/execute \\\n  -H 'content-type: application/json' \\\n${token}  -d '${json}'`;
}

/** A line about the settings for when they are folded away. */
export function summary() {
  const seed = $("seed").value;
  const parts = [`up to ${$("max_tokens").value} tokens`, `temperature ${$("temperature").value}`];
  if (seed) parts.push(`seed ${seed}`);
  return parts.join(", ");
}

/** Whether the browser finds every field right; if not, it opens the settings and says what is wrong. */
export function valid() {
  if ($("ask").checkValidity()) return true;
  $("sampling").open = true;
  $("ask").reportValidity();
  return false;
}

/** Marks the fields that the worker found wrong; says those that have no field here. */
export function mark(errors) {
  unmark();
  const rest = [];
  for (const error of errors) {
    const name = error.field.replace(/[.[].*/, "");
    const input = FIELDS.includes(name) ? $(name) : null;
    if (!input) {
      rest.push(error);
      continue;
    }
    $("sampling").open = true;
    const note = document.createElement("p");
    note.className = "wrong";
    note.id = `${name}-wrong`;
    note.textContent = error.message || error.constraint;
    input.after(note);
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", note.id);
  }
  document.querySelector("[aria-invalid]")?.focus();
  return rest;
}

export function unmark() {
  document.querySelectorAll(".wrong").forEach((note) => note.remove());
  for (const input of document.querySelectorAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }
}

export function values() {
  return Object.fromEntries(FIELDS.map((name) => [name, $(name).value]));
}

export function restore(saved = {}) {
  for (const name of FIELDS) if (name in saved) $(name).value = saved[name];
}

export function defaults() {
  for (const name of FIELDS) $(name).value = $(name).defaultValue;
}
