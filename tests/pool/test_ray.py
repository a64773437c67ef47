"""Promise: a pool under Ray Serve on two nodes reads what its workers tell, survives a worker killed in
the middle of an answer without losing or doubling a token, and replaces it. Real workers."""

import json
import os
import pathlib
import signal
import sys
import time

import httpx
import pytest
import ray
from httpx_sse import connect_sse
from ray import serve
from ray.cluster_utils import Cluster

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples/pool/ray"))
os.environ["PYTHONPATH"] = str(ROOT / "examples/pool/ray")  # for the replicas

import pool  # noqa: E402

BINARY = os.environ.get("WORKER", str(ROOT / "target/debug/rbees-workerd"))
MODEL = str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
ASK = {"prompt": "Once upon a time, a bee named", "max_tokens": 40, "temperature": 1.2, "seed": 2**63 + 11}


@pytest.fixture(scope="module")
def url():
    cluster = Cluster()
    for _ in range(2):
        cluster.add_node(num_cpus=4, resources={"rbees": 1}, object_store_memory=80_000_000, include_dashboard=False)
    ray.init(address=cluster.address, log_to_driver=False)
    port = 30_000 + os.getpid() % 20_000
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(pool.build({"binary": BINARY, "model": MODEL}))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


def workers(count: int, without: int | None = None) -> dict[int, dict]:
    """The replicas by their workers' process ids, once there are so many and `without` is gone."""
    handle = serve.get_deployment_handle("Worker", "default")
    until = time.monotonic() + 240
    found = {}
    while len(found) < count:
        assert time.monotonic() < until, f"only {found}"
        try:
            status = handle.status.remote().result(timeout_s=20)
        except Exception:  # a replica on its way out
            status = {"pid": without}
        if status["pid"] != without:
            found[status["pid"]] = status
        time.sleep(0.1)
    return found


def ask(url: str, body: dict, seen=lambda frames: None) -> list[dict]:
    frames = []
    with httpx.Client(timeout=120) as client, connect_sse(client, "POST", f"{url}/ask", json=body) as source:
        assert source.response.status_code == 200, source.response.read()
        for event in source.iter_sse():
            frames.append(json.loads(event.data) | {"id": int(event.id)})
            seen(frames)
    return frames


def text(frames: list[dict]) -> str:
    return "".join(frame["t"] for frame in frames if frame["type"] == "token")


def whole(frames: list[dict]) -> None:
    assert [frame["id"] for frame in frames] == list(range(1, len(frames) + 1))
    assert frames[0]["type"] == "started" and frames[-1]["type"] == "end", frames[-1]
    indexes = [frame["i"] for frame in frames if frame["type"] == "token"]
    assert indexes == sorted(set(indexes)), "no token twice"


def test_two_nodes_hold_a_worker_each_and_read_what_it_tells(url):
    found = workers(2)
    assert len({status["node"] for status in found.values()}) == 2
    for status in found.values():
        assert status["told"]["model-loaded"] == 1 and status["told"]["server-bound"] == 1


def test_a_refusal_comes_through(url):
    answer = httpx.post(f"{url}/ask", json={"prompt": "hi", "max_tokens": 0}, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == "max_tokens"


def test_a_worker_killed_in_mid_stream_is_carried_on_and_replaced(url):
    before = workers(2)
    expected = ask(url, ASK)
    whole(expected)
    killed = {}

    def kill(frames: list[dict]) -> None:
        if not killed and frames[-1]["type"] == "token" and frames[-1]["i"] >= 15:
            name = next(f["worker_id"] for f in frames if f["type"] == "narration")
            pid = next(pid for pid, status in before.items() if status["name"] == name)
            killed.update(name=name, pid=pid, at=frames[-1]["i"])
            os.kill(pid, signal.SIGKILL)

    frames = ask(url, ASK, kill)
    whole(frames)
    assert text(frames) == text(expected), "the other worker says the same"
    names = list(dict.fromkeys(f["worker_id"] for f in frames if f["type"] == "narration"))
    assert len(names) >= 2 and names[0] == killed["name"], names
    after = workers(2, killed["pid"])
    assert len({status["node"] for status in after.values()}) == 2
    print(f"\nkill -9 of {killed['name']} (pid {killed['pid']}) after token {killed['at']}:")
    for frame in frames:
        if frame["type"] == "narration":
            print(f"  {frame['id']:>3}  {frame['worker_id']}  {frame['human']}")
    print(f"  the text is the same, {len(text(frames))} characters; workers now: {sorted(after)}")
