// Asks a worker with fetch: tokens on stdout as they come, narration on stderr. A connection that is lost
// is made again after the last frame seen. Usage: node execute.mjs 'PROMPT' [MAX_TOKENS]

import { randomUUID } from "node:crypto";
import { EventSourceParserStream } from "eventsource-parser/stream";

type Frame =
  | { type: "started"; job_id: string; model: string }
  | { type: "narration"; actor: string; human?: string; cute?: string; story?: string }
  | { type: "token"; t: string; i: number }
  | { type: "metrics"; tokens_per_sec: number; resident_bytes: number }
  | { type: "end"; tokens_out: number; stop_reason: string }
  | { type: "error"; code: string; message: string; retriable: boolean };

const WORKER = process.env.WORKER_URL ?? "http://127.0.0.1:8080";
const TRIES = 10;
const headers: Record<string, string> = { "content-type": "application/json" };
if (process.env.WORKER_TOKEN) headers.authorization = `Bearer ${process.env.WORKER_TOKEN}`;

/** The frames of a new job, each once, over as many connections as it takes. */
async function* follow(request: object): AsyncGenerator<Frame> {
  const job = `node-${randomUUID()}`;
  const body = JSON.stringify({ ...request, job_id: job, on_disconnect: "continue" });
  let call = () => fetch(`${WORKER}/execute`, { method: "POST", headers, body });
  let last: string | undefined;
  for (let tries = 0; tries < TRIES; tries += 1) {
    try {
      const response = await call();
      if (response.status !== 200 || !response.body) {
        throw new Refused(`${response.status}: ${await response.text()}`);
      }
      const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
      for await (const event of events) {
        last = event.id ?? last;
        const frame = JSON.parse(event.data) as Frame;
        yield frame;
        if (frame.type === "end" || frame.type === "error") return;
      }
    } catch (error) {
      if (error instanceof Refused || last === undefined) throw error;
    }
    await new Promise((done) => setTimeout(done, Math.min(1000 * 2 ** tries, 10_000)));
    const again = { ...headers, "last-event-id": last ?? "" };
    call = () => fetch(`${WORKER}/jobs/${job}/events`, { headers: again });
  }
  throw new Error("the worker stayed away");
}

class Refused extends Error {}

const [prompt = "The capital of France is", most = "64"] = process.argv.slice(2);
for await (const frame of follow({ prompt, max_tokens: Number(most), temperature: 0 })) {
  if (frame.type === "token") process.stdout.write(frame.t);
  else if (frame.type === "narration") console.error(`${frame.actor}: ${frame.human ?? "withheld"}`);
  else if (frame.type === "error") throw new Error(`${frame.code}: ${frame.message}`);
}
process.stdout.write("\n");
