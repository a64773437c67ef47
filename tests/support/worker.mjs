// The real worker for tests in Node: starts it on a port of the system's choice, reads its narration,
// and gives a door before it that can be slammed. Whoever starts one ends it with `stop`.

import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BINARY = process.env.WORKER ?? path.join(ROOT, "target/debug/rbees-workerd");
const MODEL = process.env.MODEL ?? path.join(ROOT, "models/SmolLM2-135M-Instruct.Q4_1.gguf");

/** A worker that takes work, with everything it told so far in `told`. */
export async function startWorker(args = [], env = {}) {
  const child = spawn(BINARY, ["serve", "--model", MODEL, "--port", "0", "--exit-with-parent", ...args], {
    stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env },
  });
  const worker = { child, told: [], stderr: "", url: undefined };
  child.stderr.on("data", (bytes) => { worker.stderr += bytes; });
  readline.createInterface({ input: child.stdout }).on("line", (line) => {
    worker.told.push(JSON.parse(line));
  });
  worker.ended = once(child, "exit").then(([code]) => code);
  worker.stop = () => {
    child.kill("SIGKILL");
    return worker.ended;
  };
  const bound = await fact(worker, "server-bound");
  worker.url = `http://${bound.address}`;
  await until(async () => (await fetch(`${worker.url}/ready`)).ok);
  return worker;
}

/** The first fact of that kind, as soon as it is told. */
export async function fact(worker, kind) {
  let found;
  await until(() => {
    if (worker.child.exitCode !== null) throw new Error(`the worker ended: ${worker.stderr}`);
    found = worker.told.find((narration) => narration.fact?.[kind]);
    return found;
  });
  return found.fact[kind];
}

/** Waits until `is` holds; only a hang gets to the end of its patience. */
export async function until(is, patience_ms = 120_000) {
  const end = Date.now() + patience_ms;
  while (!(await is())) {
    if (Date.now() > end) throw new Error(`never came true: ${is}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

/** A door before a worker: connections through it can be cut, and it can be kept shut. */
export async function door(url) {
  const inside = new URL(url);
  const open = new Set();
  const state = { shut: false, cuts: 0 };
  const server = net.createServer((outer) => {
    if (state.shut) return outer.destroy();
    const inner = net.connect(Number(inside.port), inside.hostname);
    for (const [from, to] of [[outer, inner], [inner, outer]]) {
      from.pipe(to);
      from.on("error", () => {});
      from.on("close", () => to.destroy());
    }
    open.add(outer);
    outer.on("close", () => open.delete(outer));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => open.forEach((socket) => socket.destroy()),
    shut: (shut) => { state.shut = shut; },
    close: () => new Promise((done) => {
      open.forEach((socket) => socket.destroy());
      server.close(done);
    }),
  };
}
