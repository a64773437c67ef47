"""Asks a worker with httpx: tokens on stdout as they come, narration on stderr.

A connection that is lost is made again after the last frame seen. Usage: execute.py 'PROMPT' [MAX_TOKENS]
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator

import httpx
from httpx_sse import connect_sse

WORKER = os.environ.get("WORKER_URL", "http://127.0.0.1:8080")
TRIES = 10
# A sign of life comes every ten seconds; three times that is silence.
TIMEOUT = httpx.Timeout(10, read=30)


def follow(client: httpx.Client, request: dict) -> Iterator[dict]:
    """The frames of a new job, each once, over as many connections as it takes."""
    job = f"python-{uuid.uuid4()}"
    body = request | {"job_id": job, "on_disconnect": "continue"}
    call = {"method": "POST", "url": "/execute", "json": body}
    last = None
    for tries in range(TRIES):
        try:
            with connect_sse(client, **call) as source:
                if source.response.status_code != 200:
                    source.response.read()
                    raise SystemExit(f"{source.response.status_code}: {source.response.text}")
                for event in source.iter_sse():
                    last = event.id
                    frame = json.loads(event.data)
                    yield frame
                    if frame["type"] in ("end", "error"):
                        return
        except httpx.TransportError as error:
            if last is None:
                raise SystemExit(f"the worker can't be reached: {error}") from error
        time.sleep(min(2**tries, 10))
        call = {"method": "GET", "url": f"/jobs/{job}/events", "headers": {"last-event-id": last}}
    raise SystemExit("the worker stayed away")


def main() -> None:
    prompt, most = sys.argv[1], int((sys.argv[2:] or ["64"])[0])
    token = os.environ.get("WORKER_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=WORKER, headers=headers, timeout=TIMEOUT) as client:
        for frame in follow(client, {"prompt": prompt, "max_tokens": most, "temperature": 0}):
            match frame["type"]:
                case "token":
                    print(frame["t"], end="", flush=True)
                case "narration":
                    print(f"{frame['actor']}: {frame.get('human', 'withheld')}", file=sys.stderr, flush=True)
                case "error":
                    raise SystemExit(f"{frame['code']}: {frame['message']}")
    print()


if __name__ == "__main__":
    main()
