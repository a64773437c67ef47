// @microsoft/fetch-event-source: the worker's own stream. Made for browsers, so Node lends it a window.

import { refused, report, request, take, version } from "./case.mjs";

globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
const { fetchEventSource } = await import("@microsoft/fetch-event-source");

class Done extends Error {}

await report(await version("@microsoft/fetch-event-source"), async (found, { url, tokens }) => {
  let ids = 0;
  await fetchEventSource(`${url}/execute`, {
    method: "POST", headers: { "content-type": "application/json" }, openWhenHidden: true,
    body: JSON.stringify({ prompt: request.prompt, max_tokens: tokens, temperature: 0 }),
    async onopen(response) { if (refused(found, response)) throw new Done(); },
    onmessage(event) {
      if (Number(event.id) !== (ids += 1)) throw new Error(`frame ${ids} came as ${JSON.stringify(event)}`);
      take(found, JSON.parse(event.data));
    },
    onerror(error) { throw error; },
  }).catch((error) => { if (!(error instanceof Done)) throw error; });
});
