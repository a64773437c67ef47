"""Client of rbees-workerd. `contract` is generated from openapi.yaml; `worker` is the stream and the calls."""

from .contract import ExecuteRequest, Health, JobState, Narration, Problem, StreamEvent
from .worker import Lost, Refused, Worker

__all__ = ["ExecuteRequest", "Health", "JobState", "Lost", "Narration", "Problem", "Refused", "StreamEvent", "Worker"]
