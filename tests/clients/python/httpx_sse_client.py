"""httpx with httpx-sse: the worker's own stream."""

import json
import os
import sys
from importlib.metadata import version

import httpx
from httpx_sse import connect_sse

url, _ = sys.argv[1:]
body = {"prompt": os.environ["PROMPT"], "max_tokens": int(os.environ["TOKENS"]), "temperature": 0}
found = {"version": version("httpx-sse"), "text": "", "narrations": 0}
with httpx.Client(timeout=30) as client, connect_sse(client, "POST", f"{url}/execute", json=body) as source:
    if source.response.status_code != 200:
        found |= {"status": source.response.status_code, "retry_after": source.response.headers.get("retry-after")}
    else:
        for number, event in enumerate(source.iter_sse(), 1):
            frame = json.loads(event.data)
            assert event.id == str(number) and event.event == frame["type"], event
            if frame["type"] == "token":
                found["text"] += frame["t"]
            found["narrations"] += frame["type"] == "narration"
            if frame["type"] == "end":
                found["finish"] = frame["stop_reason"]
            if frame["type"] == "error":
                found["error"] = frame["code"]
print(json.dumps(found))
