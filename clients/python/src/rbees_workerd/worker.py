"""A worker's calls and streams, typed by the contract. A stream survives lost connections."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, cast

import httpx
from httpx_sse import connect_sse

from .contract import ExecuteRequest, Health, JobState, Problem, StreamEvent

# A sign of life comes every ten seconds; three times that is silence.
TIMEOUT = httpx.Timeout(10, read=30)


class Refused(Exception):
    """The worker does not take a request: its status, what it says, and when to come again (seconds)."""

    def __init__(self, status: int, problem: Problem, retry_after: int | None):
        super().__init__(problem.get("detail", f"the worker answered {status}"))
        self.status, self.problem, self.retry_after = status, problem, retry_after


class Lost(Exception):
    """A stream was lost and could not be taken up again."""


class Worker:
    """A worker at `url`; `token` where it asks for one. To be closed, or used as a context."""

    def __init__(self, url: str, token: str | None = None, tries: int = 10, **client: Any):
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, **client)
        self._tries = tries

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def execute(self, request: ExecuteRequest) -> Iterator[StreamEvent]:
        """Runs one inference. Yields its events, each once, up to `end` or `error`, over as many
        connections as it takes. A generator that is closed before cancels the job, unless the request says
        `on_disconnect: continue` itself."""
        job = request.get("job_id") or f"py-{uuid.uuid4()}"
        # While this reads, a lost connection must not end the job; when it is left, `cancel` does.
        body = {**request, "job_id": job, "on_disconnect": "continue"}
        ended = False
        try:
            for event in self._follow(job, {"method": "POST", "url": "/execute", "json": body}, None):
                ended = event["type"] in ("end", "error")
                yield event
        except Refused:
            ended = True
            raise
        finally:
            if not ended and request.get("on_disconnect") != "continue":
                try:
                    self.cancel(job)
                except (Refused, httpx.TransportError):
                    pass  # it is not there, or not any more

    def events(self, job: str, after: int | None = None) -> Iterator[StreamEvent]:
        """The events of a known job from its beginning, or after number `after`."""
        last = None if after is None else str(after)
        return self._follow(job, self._again(job, last), last)

    def cancel(self, job: str) -> JobState:
        """Ends a job at its next step."""
        return cast(JobState, self._json(self._client.post("/cancel", json={"job_id": job})))

    def job(self, job: str) -> JobState:
        """How far a job is."""
        return cast(JobState, self._json(self._client.get(f"/jobs/{job}")))

    def health(self) -> Health:
        """How the worker is, and what it has."""
        return cast(Health, self._json(self._client.get("/health")))

    def ready(self) -> bool:
        """Whether it takes work."""
        return self._client.get("/ready").status_code == 200

    def _follow(self, job: str, call: dict[str, Any], last: str | None) -> Iterator[StreamEvent]:
        tries, reached = 0, False
        while tries <= self._tries:
            try:
                with connect_sse(self._client, **call) as source:
                    if source.response.status_code == 204:
                        return
                    if source.response.status_code != 200:
                        source.response.read()
                        self._json(source.response)
                    reached = True
                    for event in source.iter_sse():
                        last, tries = event.id, 0
                        frame = cast(StreamEvent, json.loads(event.data))
                        yield frame
                        if frame["type"] in ("end", "error"):
                            return
            except httpx.TransportError:
                if not reached:
                    raise
            except Refused as refused:
                if not reached or refused.status < 500:
                    raise
            time.sleep(min(0.25 * 2**tries, 10))
            tries += 1
            call = self._again(job, last)
        raise Lost(f"the stream of {job} was lost after event {last or 0}")

    @staticmethod
    def _again(job: str, last: str | None) -> dict[str, Any]:
        return {"method": "GET", "url": f"/jobs/{job}/events", "headers": {"last-event-id": last} if last else {}}

    @staticmethod
    def _json(response: httpx.Response) -> Any:
        if response.is_success:
            return response.json()
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        after = response.headers.get("retry-after", "")
        raise Refused(response.status_code, problem, int(after) if after.isdecimal() else None)
