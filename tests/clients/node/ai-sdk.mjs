// The AI SDK with its provider for compatible servers: a streamed text.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

import { report, request, version } from "./case.mjs";

await report(await version("ai"), async (found, { url, kase, tokens }) => {
  const headers = kase === "narration" ? { "X-Narration": "sse" } : {};
  const models = await (await fetch(`${url}/v1/models`)).json();
  const provider = createOpenAICompatible({ name: "rbees", baseURL: `${url}/v1`, apiKey: "none", headers });
  const result = streamText({
    model: provider(models.data[0].id), messages: request.messages, maxOutputTokens: tokens, temperature: 0,
    maxRetries: kase === "429" ? 8 : 0, includeRawChunks: true, onError: () => {},
  });
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") found.text += part.text;
    if (part.type === "raw" && part.rawValue?.narration) found.narrations += 1;
    if (part.type === "error") throw part.error;
    if (part.type === "finish" && part.finishReason !== "error") found.finish = part.rawFinishReason ?? part.finishReason;
  }
});
