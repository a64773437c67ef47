// A relay as an orchestrator would have it: takes a user's request, gives it to a worker, and hands
// tokens and narration on with their ids. A connection lost on either side loses nothing. No dependencies.
//   node relay.mjs PORT WORKER_URL [WORKER_URL…]      POST /ask, GET /ask/{id}/events, DELETE /ask/{id}

import { randomUUID } from "node:crypto";
import http from "node:http";

const [port, ...workers] = process.argv.slice(2);
const TRIES = 6; // to reach a worker again, with growing waits: about fifteen seconds
const AWAY_MS = Number(process.env.RELAY_AWAY_MS ?? 30_000); // a user away for longer has given up
const BODY_BYTES_MAX = 1 << 20;
const ASKS_MAX = 10_000;
const token = process.env.WORKER_TOKEN;
const auth = token ? { authorization: `Bearer ${token}` } : {};
const asks = new Map(); // id → {worker, done, timer}; the oldest finished ones are forgotten first
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** A worker that is ready, beginning with another one each time. */
async function readyWorker() {
  workers.push(workers.shift());
  for (const worker of workers) {
    const answer = await fetch(`${worker}/ready`).catch(() => undefined);
    if (answer?.ok) return worker;
  }
  return undefined;
}

/** Whole frames of a worker's stream, and its signs of life; half a frame is never handed on. */
async function* frames(body) {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    rest += text;
    for (;;) {
      const mark = rest.startsWith(":") ? "\n" : "\n\n";
      const end = rest.indexOf(mark);
      if (end < 0) break;
      yield rest.slice(0, end + mark.length);
      rest = rest.slice(end + mark.length);
    }
  }
}

const field = (frame, name) => new RegExp(`^${name}: (.*)$`, "m").exec(frame)?.[1];

/** Hands the stream of a job on to its user, from `response` on, until its end or until the user is gone. */
async function handOn(id, ask, upstream, last, user) {
  user.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache, no-transform", "x-accel-buffering": "no" });
  for (let tries = 0; ; tries += 1) {
    try {
      if (upstream?.status === 204) return user.end();
      for await (const frame of upstream?.ok ? frames(upstream.body) : []) {
        if (user.destroyed) return undefined; // the worker goes on; `userGone` decides for how long
        tries = 0;
        last = field(frame, "id") ?? last;
        if (!user.write(frame)) await Promise.race([once(user, "drain"), once(user, "close")]);
        if (["end", "error"].includes(field(frame, "event"))) {
          ask.done = true;
          return user.end();
        }
      }
    } catch { /* the connection to the worker broke: below it is made again */ }
    if (user.destroyed) return undefined;
    if (tries === TRIES || upstream?.status === 404) return user.end(lost(ask, last));
    await pause(250 * 2 ** tries);
    upstream = await events(id, ask.worker, last).catch(() => undefined);
  }
}

const once = (emitter, event) => new Promise((done) => emitter.once(event, done));

const events = (id, worker, last) =>
  fetch(`${worker}/jobs/${id}/events`, { headers: { ...auth, ...(last && { "last-event-id": last }) } });

/** The worker is gone for good: the user is told in the form that he knows, and may ask again. */
function lost(ask, last = "0") {
  ask.done = true;
  const data = { type: "error", code: "WORKER_LOST", message: "the worker is gone", retriable: true };
  return `data: ${JSON.stringify(data)}\nid: ${Number(last) + 1}\nevent: error\n\n`;
}

const cancel = (id, { worker }) => fetch(`${worker}/cancel`, {
  method: "POST", headers: { ...auth, "content-type": "application/json" }, body: JSON.stringify({ job_id: id }),
}).catch(() => undefined);

/** A user who comes back within the time goes on; for one who does not, nobody computes any more. */
function userGone(id, ask) {
  clearTimeout(ask.timer);
  if (!ask.done) ask.timer = setTimeout(() => cancel(id, ask), AWAY_MS);
}

async function begin(request, user) {
  let body = "";
  for await (const text of request.setEncoding("utf8")) {
    if ((body += text).length > BODY_BYTES_MAX) return user.writeHead(413).end();
  }
  const worker = await readyWorker();
  if (!worker) return user.writeHead(503, { "retry-after": "5" }).end();
  const id = `relay-${randomUUID()}`;
  const job = JSON.stringify({ ...JSON.parse(body), job_id: id, on_disconnect: "continue" });
  const headers = { ...auth, "content-type": "application/json", "x-correlation-id": request.headers["x-correlation-id"] ?? id };
  const upstream = await fetch(`${worker}/execute`, { method: "POST", headers, body: job });
  if (!upstream.ok) return user.writeHead(upstream.status, Object.fromEntries(upstream.headers)).end(await upstream.text());
  const ask = { worker, done: false, timer: undefined };
  for (const [old, { done }] of asks) if (asks.size >= ASKS_MAX && done) asks.delete(old);
  asks.set(id, ask);
  user.on("close", () => userGone(id, ask));
  return handOn(id, ask, upstream, undefined, user);
}

async function comeBack(id, last, user) {
  const ask = asks.get(id);
  if (!ask) return user.writeHead(404).end();
  clearTimeout(ask.timer);
  const upstream = await events(id, ask.worker, last).catch(() => undefined);
  if (upstream?.status === 204) return user.writeHead(204).end();
  user.on("close", () => userGone(id, ask));
  return handOn(id, ask, upstream, last, user);
}

const server = http.createServer((request, user) => {
  const [, root, id, rest] = request.url.split("/");
  const route = `${request.method} ${root}${id ? "/id" : ""}${rest ? `/${rest}` : ""}`;
  const answer = {
    "POST ask": () => begin(request, user),
    "GET ask/id/events": () => comeBack(id, request.headers["last-event-id"], user),
    "DELETE ask/id": async () => user.writeHead(asks.has(id) && (await cancel(id, asks.get(id))) ? 202 : 404).end(),
  }[route] ?? (() => user.writeHead(404).end());
  Promise.resolve().then(answer).catch((error) => {
    console.error(error);
    if (user.headersSent) user.destroy();
    else user.writeHead(error instanceof SyntaxError ? 400 : 502).end();
  });
});
server.listen(Number(port), "127.0.0.1", () => console.log(`relay on http://127.0.0.1:${server.address().port}`));
