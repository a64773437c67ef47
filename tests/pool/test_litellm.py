"""Promise: LiteLLM's proxy balances over two workers, streams through, and goes on with one when the other
is killed. Real workers, the proxy as its users start it."""

import json
import os
import pathlib
import secrets
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from worker import ROOT, Worker, until  # noqa: E402

CHAT = {"model": "hive", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 6, "temperature": 0}

KEY = f"sk-{secrets.token_hex(32)}"
USER = {"authorization": f"Bearer {KEY}"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def pool():
    """Two workers, and the proxy's address."""
    start = lambda: Worker("--model-alias", "hive", RBEES_API_TOKEN="sesame")  # noqa: E731
    with start() as one, start() as two:
        port = free_port()
        environment = os.environ | {
            "WORKER_1": f"{one.url}/v1", "WORKER_2": f"{two.url}/v1", "WORKER_TOKEN": "sesame",
            "LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True",
        }
        command = [str(pathlib.Path(sys.executable).parent / "litellm"), "--host", "127.0.0.1", "--port", str(port),
                   "--config", str(ROOT / "examples/pool/litellm/config.yaml")]
        proxy = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            until(lambda: alive(url, proxy))
            yield one, two, url
        finally:
            proxy.kill()
            proxy.wait()


def alive(url: str, proxy: subprocess.Popen) -> bool:
    assert proxy.poll() is None, f"the proxy ended with {proxy.poll()}"
    try:
        return httpx.get(f"{url}/health/liveliness", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def accepted(worker: Worker) -> int:
    return sum("request-accepted" in told.get("fact", {}) for told in worker.told[:])


def chat(url: str) -> str:
    answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=180, headers=USER)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def test_both_workers_are_used_and_say_the_same(pool):
    one, two, url = pool
    with ThreadPoolExecutor(8) as users:  # the least busy one: alone, nobody is busy
        texts = set(users.map(chat, [url] * 24))
    assert len(texts) == 1, texts
    assert accepted(one) > 0 and accepted(two) > 0, (accepted(one), accepted(two))


def test_a_stream_comes_through(pool):
    _, _, url = pool
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=CHAT | {"stream": True}, timeout=180, headers=USER) as answer:
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text == chat(url)


def test_what_a_worker_does_not_support_is_refused_by_name(pool):
    _, _, url = pool
    answer = httpx.post(f"{url}/v1/chat/completions", json=CHAT | {"n": 2}, timeout=180, headers=USER)
    assert answer.status_code == 400 and "n" in answer.json()["error"]["message"], answer.text


def test_one_killed_the_other_goes_on(pool):
    one, two, url = pool
    expected, before = chat(url), accepted(two)
    one.process.kill()
    one.process.wait()
    assert [chat(url) for _ in range(8)] == [expected] * 8
    assert accepted(two) >= before + 8
