// eventsource-parser on fetch: the worker's own stream.

import { EventSourceParserStream } from "eventsource-parser/stream";

import { refused, report, request, take, version } from "./case.mjs";

await report(await version("eventsource-parser"), async (found, { url, tokens }) => {
  const response = await fetch(`${url}/execute`, {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: request.prompt, max_tokens: tokens, temperature: 0 }),
  });
  if (refused(found, response)) return;
  let ids = 0;
  const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  for await (const event of events) {
    const frame = JSON.parse(event.data);
    ids += 1;
    if (Number(event.id) !== ids || event.event !== frame.type) throw new Error(`frame ${ids} came as ${event.id}, ${event.event}`);
    take(found, frame);
  }
});
