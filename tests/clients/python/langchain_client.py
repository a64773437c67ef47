"""LangChain: a streamed chat."""

import json
import os
import sys
from importlib.metadata import version

import openai
from langchain_openai import ChatOpenAI

url, case = sys.argv[1:]
model = openai.OpenAI(base_url=f"{url}/v1", api_key="none").models.list().data[0].id
headers = {"X-Narration": "sse"} if case == "narration" else {}
chat = ChatOpenAI(
    base_url=f"{url}/v1", api_key="none", model=model, temperature=0, max_tokens=int(os.environ["TOKENS"]),
    max_retries=8 if case == "429" else 0, default_headers=headers,
)
found = {"version": version("langchain-openai"), "text": ""}
try:
    for chunk in chat.stream(os.environ["PROMPT"]):
        found["text"] += chunk.text if isinstance(chunk.text, str) else chunk.text()
        found["finish"] = chunk.response_metadata.get("finish_reason") or found.get("finish")
except Exception as error:
    found |= {"error": str(error), "raised": type(error).__name__}
print(json.dumps(found))
