// Server-sent events out of a response's body, by the rules of the HTML standard. Knows no worker.

/** Yields `{id, event, data, retry}` for each block that has data; `id` stays what it last was. */
export async function* events(body) {
  let block = fresh("");
  for await (const line of lines(body)) {
    if (line === "") {
      if (block.data.length) yield { ...block, data: block.data.join("\n") };
      block = fresh(block.id);
    } else if (!line.startsWith(":")) {
      take(block, line);
    }
  }
}

const fresh = (id) => ({ id, event: "message", data: [], retry: undefined });

function take(block, line) {
  const colon = line.indexOf(":");
  const name = colon < 0 ? line : line.slice(0, colon);
  const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (name === "data") block.data.push(value);
  else if (name === "event") block.event = value;
  else if (name === "id" && !value.includes("\0")) block.id = value;
  else if (name === "retry" && /^\d+$/.test(value)) block.retry = Number(value);
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      // A carriage return at the very end may be half of a pair: it waits for what follows.
      const whole = rest.split(/\r\n|\n|\r(?!$)/);
      rest = whole.pop();
      yield* whole;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
