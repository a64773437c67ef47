// openai-node: a streamed chat.

import { report, request, version } from "./case.mjs";
import OpenAI from "openai";

await report(await version("openai"), async (found, { url, kase, tokens }) => {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: kase === "429" ? 8 : 0 });
  const model = (await client.models.list()).data[0].id;
  const extra = kase === "narration" ? { include_narration: true } : { include_usage: true };
  const stream = await client.chat.completions.create({
    model, messages: request.messages, max_tokens: tokens, temperature: 0, stream: true, stream_options: extra,
  });
  for await (const chunk of stream) {
    found.narrations += "narration" in chunk ? 1 : 0;
    for (const choice of chunk.choices) {
      found.text += choice.delta.content ?? "";
      found.finish = choice.finish_reason ?? found.finish;
    }
  }
});
