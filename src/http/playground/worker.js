// The worker's endpoints as the page uses them: calls with the token, refusals as errors, and a job's
// stream that survives lost connections. Shows nothing.

import { events } from "./sse.js";

const TOKEN = "rbees-token";

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (text) => (text ? sessionStorage.setItem(TOKEN, text) : sessionStorage.removeItem(TOKEN)),
};

/** An answer that is no success: `status`, the problem as the worker said it, when to come again. */
export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    super(problem.detail ?? `the worker answered ${status}`);
    Object.assign(this, { status, problem, retryAfter });
  }
}

/** The worker could not be reached at all. */
export class Unreachable extends Error {}

async function call(path, { headers = {}, body, ...options } = {}) {
  const sent = { ...headers };
  if (token.get()) sent.authorization = `Bearer ${token.get()}`;
  if (body !== undefined) sent["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { ...options, headers: sent, body, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("the worker can’t be reached");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const seconds = Number(response.headers.get("retry-after"));
  throw new Refused(response.status, problem, seconds > 0 ? seconds : undefined);
}

export const health = async () => (await call("health")).json();

/** The chain of filters in service. */
export const filters = async () => (await call("filters")).json();

/** How far loading is, or whatever else keeps the worker from taking work. */
export async function readiness() {
  try {
    return await (await call("ready")).json();
  } catch (error) {
    if (error instanceof Refused) return error.problem;
    throw error;
  }
}

export const cancel = (id) => call("cancel", post({ job_id: id }));

const post = (json) => ({ method: "POST", body: asJson(json) });

/**
 * A request as JSON. Seeds have 64 bits and JavaScript's numbers 53, so a seed is kept as its digits
 * and written and read as text. (Inside a JSON string every quote is escaped: no prompt can match.)
 */
export const asJson = (request, indent) =>
  JSON.stringify(request, null, indent).replace(/"seed":( ?)"(\d+)"/, '"seed":$1$2');

function parse(json) {
  const frame = JSON.parse(json);
  if (frame.type === "started") frame.seed = /"seed":(\d+)/.exec(json)?.[1];
  return frame;
}

/**
 * The frames of a job, each once, from its first; ends after `end` or `error`.
 * With `request` the job is begun, without it the stream of a known one is taken up. A connection
 * that breaks is made again after the last frame seen; `lost` is told when it is gone and back.
 */
export async function* follow(id, { request, signal, lost = () => {} }) {
  let [last, wait, tries] = ["", 1000, 0];
  const again = () => call(`jobs/${encodeURIComponent(id)}/events`, {
    signal, headers: last ? { "last-event-id": last } : {},
  });
  let response = await (request ? call("execute", { signal, ...post(request) }) : again());
  for (;;) {
    try {
      if (response.status === 204) return;
      for await (const frame of events(response.body)) {
        if (frame.retry) wait = frame.retry;
        if (tries) lost(false);
        [last, tries] = [frame.id, 0];
        const data = parse(frame.data);
        yield data;
        if (data.type === "end" || data.type === "error") return;
      }
    } catch (error) {
      if (signal?.aborted) throw error;
      // A broken connection: what the frames held is kept, the rest is asked for below.
    }
    response = null;
    while (!response) {
      lost(true);
      await pause(Math.min(wait * 2 ** tries, 10_000), signal);
      tries += 1;
      response = await again().catch((error) => {
        const passing = error instanceof Unreachable || error.status >= 500;
        if (passing && tries < 10) return null;
        throw error;
      });
    }
  }
}

function pause(ms, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      fail(signal.reason);
    }, { once: true });
  });
}

/** A name for a job that nobody else chooses; works on plain http too, where there is no UUID. */
export function jobName() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return `play-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
