"""The client of clients/python: a stream through lost connections, one that is left, and two refusals."""

import json
import sys

from rbees_workerd import Refused, Worker

through, straight, ask, long = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
found = {"text": "", "narrations": 0}
with Worker(through, token="sesame") as worker:
    for event in worker.execute(ask):
        if event["type"] == "token":
            found["text"] += event["t"]
        found["narrations"] += event["type"] == "narration"
    assert event["type"] == "end", event
with Worker(straight, token="sesame") as worker:
    assert worker.ready() and worker.health()["status"] == "ready"
    events = worker.execute({**long, "job_id": "left-py"})
    next(event for event in events if event["type"] == "token")
    events.close()
    try:
        list(worker.execute({**ask, "max_tokens": 0}))
    except Refused as refused:
        found |= {"refused": refused.status, "field": refused.problem["errors"][0]["field"]}
with Worker(straight, token="wrong") as worker:
    try:
        list(worker.execute(ask))
    except Refused as refused:
        found["unknown"] = refused.status
print(json.dumps(found))
