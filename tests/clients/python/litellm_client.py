"""LiteLLM as a library: a streamed chat."""

import json
import os
import sys
from importlib.metadata import version

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch a list of prices

import litellm
import openai

url, case = sys.argv[1:]
model = openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data[0].id
headers = {"X-Narration": "sse"} if case == "narration" else {}
found = {"version": version("litellm"), "text": ""}
try:
    for chunk in litellm.completion(
        model=f"openai/{model}", api_base=f"{url}/v1", api_key="none", temperature=0, stream=True,
        messages=[{"role": "user", "content": os.environ["PROMPT"]}],
        max_tokens=int(os.environ["TOKENS"]), max_retries=8 if case == "429" else 0, extra_headers=headers,
    ):
        found["text"] += chunk.choices[0].delta.content or ""
        found["finish"] = chunk.choices[0].finish_reason or found.get("finish")
except Exception as error:
    found |= {"error": str(error), "raised": type(error).__name__}
print(json.dumps(found))
