"""A pool of workers under Ray Serve: it starts them on several nodes, watches and replaces them, and
carries an answer on where another worker took over. Start: serve run pool:build binary=… model=…

A replica is one worker process and its reader: stdout is narration, one JSON object a line.
"""

import asyncio
import itertools
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import ray
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from httpx_sse import aconnect_sse
from ray import serve

log = logging.getLogger("ray.serve")
START_S = 120  # a worker has to load its model
GRACE_S = 35  # what a worker may take to finish its jobs (--grace-ms), and a little more
TRIES = 8  # workers that one answer may go through
TIMEOUT = httpx.Timeout(10, read=30)  # a sign of life comes every ten seconds


class WorkerLost(Exception):
    """The worker ended, or can't be reached: another one may do what it was asked."""


class Refused(Exception):
    """The worker does not take this request; another one would not either, or not now."""

    def __init__(self, status: int, problem: dict, retry_after: str | None = None):
        super().__init__(status, problem, retry_after)
        self.status, self.problem, self.retry_after = status, problem, retry_after


@serve.deployment(
    num_replicas=2,
    # A node offers `rbees` for each worker that it can hold: start it with --resources='{"rbees": 1}'.
    ray_actor_options={"num_cpus": 1, "resources": {"rbees": 1}},
    health_check_period_s=2,
    health_check_timeout_s=10,
    graceful_shutdown_timeout_s=GRACE_S,
    max_ongoing_requests=64,
)
class Worker:
    """One worker process on this node."""

    def __init__(self, binary: str, model: str):
        self.node = ray.get_runtime_context().get_node_id()
        self.name = f"ray-{self.node[:12]}-{os.getpid()}"
        # `--exit-with-parent`: it ends with this actor, also when the actor is killed.
        command = [binary, "serve", "--model", model, "--port", "0", "--worker-id", self.name,
                   "--narration", "json", "--exit-with-parent"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.told: Counter[str] = Counter()
        self.url = ""
        bound = threading.Event()
        threading.Thread(target=self._read, args=(bound,), daemon=True).start()
        if not bound.wait(START_S):
            raise WorkerLost("the worker never said where it listens")
        self.client = httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT)
        until = time.monotonic() + START_S
        while self._state() != 200:
            if time.monotonic() > until or self.process.poll() is not None:
                raise WorkerLost(f"the worker never became ready (exit code {self.process.poll()})")
            time.sleep(0.1)

    def _read(self, bound: threading.Event) -> None:
        """Reads the narration to its end: what is told is logged by how much it matters, and counted."""
        for line in self.process.stdout:
            narration = json.loads(line)
            fact = narration.get("fact") or {"withheld": {}}
            kind = next(iter(fact))
            self.told[kind] += 1
            level = logging.getLevelName(narration["severity"].upper().replace("WARN", "WARNING"))
            log.log(level, "%s: %s", narration["worker_id"], narration.get("human", kind))
            if kind == "server-bound":
                self.url = f"http://{fact[kind]['address']}"
                bound.set()

    def _state(self) -> int:
        try:
            return httpx.get(f"{self.url}/ready", timeout=5).status_code
        except httpx.TransportError:
            return 0

    def check_health(self) -> None:
        """Ray Serve replaces a replica whose worker has ended, or is stalled."""
        if self.process.poll() is not None:
            raise WorkerLost(f"the worker ended with {self.process.returncode}")
        if (state := self._state()) != 200:
            raise WorkerLost(f"the worker is not ready ({state or 'no answer'})")

    def status(self) -> dict:
        """Where it is and how often it told what."""
        return {"node": self.node, "name": self.name, "pid": self.process.pid, "told": dict(self.told)}

    async def execute(self, request: dict) -> AsyncIterator[dict]:
        """The frames of one job."""
        try:
            async with aconnect_sse(self.client, "POST", "/execute", json=request) as source:
                if source.response.status_code != 200:
                    await source.response.aread()
                    raise Refused(source.response.status_code, source.response.json(), source.response.headers.get("retry-after"))
                async for event in source.aiter_sse():
                    yield json.loads(event.data)
        except httpx.TransportError as error:
            raise WorkerLost(f"the worker at {self.url} is gone: {error}") from None

    def __del__(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(GRACE_S)


def event(number: int, frame: dict) -> str:
    """A frame as the worker itself would write it."""
    return f"data: {json.dumps(frame, ensure_ascii=False)}\nid: {number}\nevent: {frame['type']}\n\n"


app = FastAPI()  # what it uses stands above it: Serve takes a copy of it here


@serve.deployment
@serve.ingress(app)
class Pool:
    """What users call: one answer, however many workers it takes."""

    def __init__(self, workers):
        self.workers = workers

    @app.post("/ask")
    async def ask(self, request: Request):
        frames = self._frames(await request.json())
        try:
            first = await anext(frames)  # a refusal comes before the stream
        except Refused as refused:
            headers = {"retry-after": refused.retry_after} if refused.retry_after else {}
            return JSONResponse(refused.problem, refused.status, headers)
        return StreamingResponse(self._events(first, frames), media_type="text/event-stream")

    async def _events(self, first: dict, rest: AsyncIterator[dict]) -> AsyncIterator[str]:
        ids = itertools.count(1)
        yield event(next(ids), first)
        async for frame in rest:
            yield event(next(ids), frame)

    async def _frames(self, request: dict) -> AsyncIterator[dict]:
        """The frames of one answer. Where a worker is lost, another one gets the same request with the
        same seed, so it says the same; what the user has is left out."""
        have = -1
        for tries in range(TRIES):
            try:
                async for frame in self.workers.options(stream=True).execute.remote(request):
                    if frame["type"] == "started":
                        if tries:
                            continue
                        # The name of the job belongs to a worker; the seed makes the answer.
                        request = {**request, "seed": frame["seed"]}
                        request.pop("job_id", None)
                    elif frame["type"] == "token":
                        if frame["i"] <= have:
                            continue
                        have = frame["i"]
                    yield frame
                    if frame["type"] == "end":
                        return
                    if frame["type"] == "error":
                        if frame["code"] != "SHUTTING_DOWN":
                            return
                        break  # it drains: another one goes on
            except (WorkerLost, ray.exceptions.RayActorError) as error:
                log.warning("carrying on elsewhere from token %d: %s", have + 1, error)
            except Refused as refused:
                if refused.status != 503 or tries + 1 == TRIES:
                    raise
            await asyncio.sleep(min(0.25 * 2**tries, 5))  # until Serve knows who is gone
        message = f"{TRIES} workers were lost"
        yield {"type": "error", "code": "WORKER_LOST", "message": message, "retriable": True}


def build(args: dict):
    """The application; `args`: `binary`, `model`, `replicas`."""
    workers = Worker.options(num_replicas=int(args.get("replicas", 2)))
    return Pool.bind(workers.bind(args["binary"], args["model"]))
