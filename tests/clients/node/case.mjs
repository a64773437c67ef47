// What the clients in Node share: the request, and the one line of JSON that a case ends with.

export const request = {
  prompt: process.env.PROMPT,
  messages: [{ role: "user", content: process.env.PROMPT }],
};

/** Runs `client` and prints what it found; an error it raises is a finding too. */
export async function report(version, client) {
  const [url, kase] = process.argv.slice(2);
  const found = { version, text: "", narrations: 0 };
  try {
    await client(found, { url, kase, tokens: Number(process.env.TOKENS) });
  } catch (error) {
    Object.assign(found, { error: String(error?.message ?? error), raised: error?.name ?? "Error" });
  }
  console.log(JSON.stringify(found));
  process.exit(0);
}

/** Takes one frame of the worker's own stream. */
export function take(found, frame) {
  if (frame.type === "token") found.text += frame.t;
  else if (frame.type === "narration") found.narrations += 1;
  else if (frame.type === "end") found.finish = frame.stop_reason;
  else if (frame.type === "error") found.error = frame.code;
  return frame.type === "end" || frame.type === "error";
}

/** Takes a refusal, if the response is one. */
export function refused(found, response) {
  if (response.status === 200) return false;
  Object.assign(found, { status: response.status, retry_after: response.headers.get("retry-after") });
  return true;
}

/** The version that a package says of itself. */
export async function version(name) {
  const { readFileSync } = await import("node:fs");
  return JSON.parse(readFileSync(new URL(`./node_modules/${name}/package.json`, import.meta.url))).version;
}
