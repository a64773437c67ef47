"""openai-python: a streamed chat."""

import json
import os
import sys

import openai

url, case = sys.argv[1:]
client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=8 if case == "429" else 0)
found = {"version": openai.__version__, "text": "", "narrations": 0}
options = {"stream_options": {"include_usage": True}}
if case == "narration":
    options = {"extra_body": {"stream_options": {"include_narration": True}}}
try:
    model = client.models.list().data[0].id
    messages = [{"role": "user", "content": os.environ["PROMPT"]}]
    for chunk in client.chat.completions.create(
        model=model, messages=messages, max_tokens=int(os.environ["TOKENS"]), temperature=0, stream=True, **options
    ):
        found["narrations"] += "narration" in (chunk.model_extra or {})
        for choice in chunk.choices:
            found["text"] += choice.delta.content or ""
            found["finish"] = choice.finish_reason or found.get("finish")
except openai.APIStatusError as error:
    found |= {"status": error.status_code, "retry_after": error.response.headers.get("retry-after"), "error": str(error)}
except openai.APIError as error:
    found |= {"error": str(error), "raised": type(error).__name__}
print(json.dumps(found))
