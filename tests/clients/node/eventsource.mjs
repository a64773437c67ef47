// eventsource, which is a browser's EventSource: it can only GET, so it reads a job that was begun before.

import { EventSource } from "eventsource";

import { refused, report, request, take, version } from "./case.mjs";

await report(await version("eventsource"), async (found, { url, tokens }) => {
  const job = `eventsource-${process.pid}`;
  const begun = await fetch(`${url}/execute`, {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: request.prompt, max_tokens: tokens, temperature: 0, job_id: job, on_disconnect: "continue" }),
  });
  if (refused(found, begun)) return;
  await begun.body.cancel();
  const source = new EventSource(`${url}/jobs/${job}/events`);
  let ids = 0;
  await new Promise((done, fail) => {
    const kinds = ["started", "narration", "token", "metrics", "end"];
    const each = (event) => {
      if (Number(event.lastEventId) !== (ids += 1)) fail(new Error(`frame ${ids} came as ${event.lastEventId}`));
      if (take(found, JSON.parse(event.data))) done();
    };
    for (const kind of kinds) source.addEventListener(kind, each);
    // `error` is both a frame's name and what it calls a lost connection; only the frame has data.
    source.addEventListener("error", (event) => { if (event.data) each(event); });
  });
  // It comes again after every end: only the 204 stops it.
  await new Promise((done) => {
    source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED) done(); });
    setTimeout(done, 5_000);
  });
  if (!found.error && source.readyState !== EventSource.CLOSED) throw new Error("it comes again for ever");
  source.close();
});
