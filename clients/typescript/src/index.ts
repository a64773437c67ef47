// A client of rbees-workerd: calls typed by the contract, and a job's stream that survives lost
// connections. `contract.ts` is generated; this file is what no generator makes: the stream.

import { EventSourceParserStream } from "eventsource-parser/stream";
import createClient, { type Client } from "openapi-fetch";

import type { ExecuteRequest, paths, Problem, StreamEvent } from "./contract.js";

export type * from "./contract.js";

/** Where the worker is, and how to reach it. */
export interface Options {
  /** Its address, e.g. `http://127.0.0.1:8080`. */
  url: string;
  /** Its token, where it asks for one. */
  token?: string;
  /** Tries to take a lost stream up again, with growing waits; 10 where it is not given. */
  tries?: number;
  /** What fetches; the platform's own where it is not given. */
  fetch?: typeof fetch;
}

/** The worker does not take a request: its status, what it says, and when to come again (seconds). */
export class Refused extends Error {
  constructor(readonly status: number, readonly problem: Partial<Problem>, readonly retryAfter?: number) {
    super(problem.detail ?? `the worker answered ${status}`);
  }
}

/** A stream was lost and could not be taken up again. */
export class Lost extends Error {}

/** A worker. `calls` has every endpoint of the contract, typed; `execute` and `events` are its streams. */
export class Worker {
  readonly calls: Client<paths>;
  readonly #options: Options;
  readonly #headers: Record<string, string>;

  constructor(options: Options) {
    this.#options = options;
    this.#headers = options.token ? { authorization: `Bearer ${options.token}` } : {};
    const custom = options.fetch ? { fetch: (request: Request) => options.fetch!(request) } : {};
    this.calls = createClient<paths>({ baseUrl: options.url, headers: this.#headers, ...custom });
  }

  /**
   * Runs one inference. Yields its events, each once, up to `end` or `error`, over as many connections as
   * it takes. Leaving the loop or aborting `signal` cancels the job, unless `request` says
   * `on_disconnect: "continue"` itself.
   */
  async *execute(request: ExecuteRequest, signal?: AbortSignal): AsyncGenerator<StreamEvent, void> {
    const job = request.job_id ?? `ts-${crypto.randomUUID()}`;
    // While this reads, a lost connection must not end the job; when it is left, `cancel` does.
    const body = JSON.stringify({ ...request, job_id: job, on_disconnect: "continue" });
    const headers = { "content-type": "application/json" };
    let ended = false;
    try {
      const first = await this.#fetch("/execute", { method: "POST", headers, body, signal });
      for await (const event of this.#follow(job, first, signal)) {
        ended = event.type === "end" || event.type === "error";
        yield event;
      }
    } catch (error) {
      ended ||= error instanceof Refused;
      throw error;
    } finally {
      if (!ended && request.on_disconnect !== "continue") await this.cancel(job).catch(() => {});
    }
  }

  /** The events of a known job from its beginning, or after number `after`; ends nothing when it is left. */
  async *events(job: string, after?: number, signal?: AbortSignal): AsyncGenerator<StreamEvent, void> {
    const last = after === undefined ? undefined : String(after);
    yield* this.#follow(job, await this.#again(job, last, signal), signal, last);
  }

  /** Ends a job at its next step. */
  async cancel(job: string): Promise<void> {
    const headers = { "content-type": "application/json" };
    await this.#fetch("/cancel", { method: "POST", headers, body: JSON.stringify({ job_id: job }) });
  }

  async *#follow(job: string, first: Response, signal?: AbortSignal, last?: string): AsyncGenerator<StreamEvent, void> {
    const most = this.#options.tries ?? 10;
    let response: Response | undefined = first;
    for (let tries = 0; tries <= most; tries += 1) {
      try {
        if (response?.status === 204) return;
        for await (const event of frames(response)) {
          [last, tries] = [event.id ?? last, 0];
          const data = JSON.parse(event.data) as StreamEvent;
          yield data;
          if (data.type === "end" || data.type === "error") return;
        }
      } catch (error) {
        if (signal?.aborted) throw error; // else the connection broke: below it is made again
      }
      await pause(Math.min(250 * 2 ** tries, 10_000), signal);
      response = await this.#again(job, last, signal).catch((error: unknown) => {
        if (signal?.aborted || (error instanceof Refused && error.status < 500)) throw error;
        return undefined;
      });
    }
    throw new Lost(`the stream of ${job} was lost after event ${last ?? "0"}`);
  }

  #again(job: string, last?: string, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = last === undefined ? {} : { "last-event-id": last };
    return this.#fetch(`/jobs/${encodeURIComponent(job)}/events`, { headers, signal });
  }

  async #fetch(path: string, { headers, signal, ...rest }: { headers?: Record<string, string>; signal?: AbortSignal; method?: string; body?: string }): Promise<Response> {
    const fetches = this.#options.fetch ?? fetch;
    const response = await fetches(new URL(path, this.#options.url), {
      ...rest, headers: { ...this.#headers, ...headers }, ...(signal && { signal }),
    });
    if (response.ok) return response;
    const problem = (await response.json().catch(() => ({}))) as Partial<Problem>;
    const seconds = Number(response.headers.get("retry-after"));
    throw new Refused(response.status, problem, seconds > 0 ? seconds : undefined);
  }
}

async function* frames(response: Response | undefined) {
  if (!response?.body) return;
  const text = response.body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>);
  const reader = text.pipeThrough(new EventSourceParserStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), fail(signal.reason as Error)), { once: true });
  });
}
