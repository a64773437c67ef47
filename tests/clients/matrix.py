"""The client matrix: every client × every case, against the real worker, as a table.

  plain      a stream, whole and with its finish reason
  narration  the same with narration asked for: the same text, and nothing trips over it
  idle       more than ten seconds of silence before the first token: signs of life only
  error      the deadline comes in the middle: an error, never a clean end
  429        a full queue: the client comes again after `Retry-After`, or shows status and header
  drain      SIGTERM in the middle: the stream is finished, exit 0; new requests are told 503

A client is a program: `CLIENT BASE_URL CASE` prints one JSON object: `text`, `finish`, `error`, `status`,
`retry_after`, `narrations`, `version`, as far as it has them. Usage: matrix.py [--write FILE] [NAME…]
"""

import argparse
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from worker import ROOT, Worker, until  # noqa: E402

HERE = ROOT / "tests/clients"
AT = ROOT / "target/clients"
CASES = ["plain", "narration", "idle", "error", "429", "drain"]
SILENCE_S = 12  # longer than the time between two signs of life
TOKENS = 16
# In the middle of 2,000 tokens: shorter for a model that is very fast.
DEADLINE_MS = os.environ.get("DEADLINE_MS", "4000")


def python(name: str) -> list[str]:
    venv = "light" if name in LIGHT else "python"
    return [str(AT / venv / "bin/python"), str(HERE / f"python/{name.replace('-', '_')}_client.py")]


def node(name: str) -> list[str]:
    return ["node", str(AT / f"node/{name}.mjs")]


LIGHT = ["openai-python", "httpx-sse"]
# Name, command, which API it speaks, whether it comes again by itself after a 429.
CLIENTS = {
    "openai-python": (python, "/v1", True),
    "openai-node": (node, "/v1", True),
    "langchain": (python, "/v1", True),
    "litellm": (python, "/v1", True),
    "ai-sdk": (node, "/v1", True),
    "httpx-sse": (python, "own", False),
    "eventsource-parser": (node, "own", False),
    "eventsource": (node, "own", False),
    "fetch-event-source": (node, "own", False),
}


class Failed(Exception):
    """A client did not do what its case asks."""


def check(holds: bool, why: str, result: dict) -> None:
    if not holds:
        raise Failed(f"{why}: {json.dumps(result)[:600]}")


def post(worker: Worker, path: str, body: dict) -> dict:
    request = urllib.request.Request(worker.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=600)


NUMBERS = itertools.count()


class Occupied:
    """Keeps the engine busy with jobs that do not end by themselves, until it is left; `full`: the queue too."""

    def __init__(self, worker: Worker, full: bool):
        self.worker, self.jobs = worker, []
        until(lambda: self._add(full))

    def _add(self, full: bool) -> bool:
        name = f"busy-{next(NUMBERS)}"
        body = {"prompt": "on and on", "max_tokens": 2000, "temperature": 0, "repetition_penalty": 0.1,
                "job_id": name, "on_disconnect": "continue"}
        try:
            post(self.worker, "/execute", body).close()
        except urllib.error.HTTPError as error:
            if error.code == 429:
                return True
            raise
        self.jobs.append(name)
        until(lambda: self.worker.health()["active_jobs"] > 0)
        return not full and self.worker.health()["queued_jobs"] > 0

    def leave(self) -> None:
        for name in self.jobs:
            post(self.worker, "/cancel", {"job_id": name})


def start(name: str, worker: Worker, case: str, texts: dict[str, str]) -> subprocess.Popen:
    kind, api, _ = CLIENTS[name]
    prompt, tokens = (texts[f"{api} long"], 2000) if case == "error" else (PROMPT, TOKENS)
    environment = os.environ | {"TOKENS": str(tokens), "PROMPT": prompt}
    return subprocess.Popen([*kind(name), worker.url, case], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def result(client: subprocess.Popen) -> dict:
    try:
        out, err = client.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        client.kill()
        raise Failed("it hangs") from None
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if not lines:
        raise Failed(f"no result (exit {client.returncode}): {err[-600:]}")
    return json.loads(lines[-1])


def whole(found: dict, expected: str) -> None:
    check(not found.get("error"), "an error", found)
    check(found.get("text") == expected, f"not the text {expected!r}", found)
    check(found.get("finish") in ("length", "stop", "MAX_TOKENS", "EOS"), "no finish reason", found)


def run_all(case: str, names: list[str], texts: dict[str, str]) -> dict[str, dict | Exception]:
    """What each client found in one case. Where clients do not disturb each other, they run at once."""
    arguments = {"error": ["--timeout-ms", DEADLINE_MS], "429": ["--queue", "1"], "drain": ["--grace-ms", "200000"]}.get(case, [])
    found = {}
    with Worker(*arguments) as worker:
        if case in ("error", "429"):
            for name in names:
                found[name] = attempt(lambda: alone(name, case, worker, texts))
            return found
        busy = Occupied(worker, full=False) if case == "idle" else None
        clients = {name: start(name, worker, case, texts) for name in names}
        if busy:
            time.sleep(SILENCE_S)
            busy.leave()
        ended = drain(worker, len(names)) if case == "drain" else None
        for name, client in clients.items():
            found[name] = attempt(lambda: streamed(name, case, result(client), texts[CLIENTS[name][1]]))
        if ended:
            ended()
    return found


def attempt(work) -> dict | Exception:
    try:
        return work()
    except (Failed, AssertionError) as failure:
        return failure


def streamed(name: str, case: str, found: dict, expected: str) -> dict:
    whole(found, expected)
    if case == "narration" and CLIENTS[name][1] == "own":
        check(found.get("narrations", 0) >= 3, "no narration", found)
    return found


def alone(name: str, case: str, worker: Worker, texts: dict[str, str]) -> dict:
    """A case in which a client needs the worker for itself."""
    if case == "error":
        found = result(start(name, worker, case, texts))
        check(bool(found.get("error")), "the end looks clean", found)
        check(bool(found.get("text")), "the error came before the first token", found)
        check(not found.get("finish"), "a finish reason after an error", found)
        return found
    busy, before = Occupied(worker, full=True), refusals(worker)
    client = start(name, worker, case, texts)
    until(lambda: refusals(worker) > before)
    busy.leave()
    found = result(client)
    if CLIENTS[name][2]:
        whole(found, texts[CLIENTS[name][1]])
    else:
        check(found.get("status") == 429, "no 429", found)
        check(int(found.get("retry_after") or 0) >= 1, "no Retry-After", found)
    return found


def refusals(worker: Worker) -> int:
    return sum(told.get("fact", {}).get("request-rejected", {}).get("status") == 429 for told in worker.told[:])


def drain(worker: Worker, jobs: int):
    """Begins the drain once every client's job is known; gives what checks the worker's end."""
    until(lambda: sum("request-accepted" in told.get("fact", {}) for told in worker.told[:]) >= jobs)
    worker.drain()
    worker.fact("server-shutdown")
    try:
        post(worker, "/execute", {"prompt": "hi", "max_tokens": 1})
        raise Failed("new work is taken while it drains")
    except urllib.error.HTTPError as error:
        check(error.code == 503 and int(error.headers["retry-after"]) >= 1, "no 503 with Retry-After", {})
    return lambda: check(worker.ended() == 0, "the worker did not end well", {})


def expected(worker: Worker) -> dict[str, str]:
    """What the worker says to each API, without any client between; and `… long`: to what it says no end."""
    model = json.load(urllib.request.urlopen(f"{worker.url}/v1/models", timeout=30))["data"][0]["id"]

    def chat(prompt: str, tokens: int) -> tuple[str, bool]:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "temperature": 0}
        choice = json.load(post(worker, "/v1/chat/completions", body))["choices"][0]
        return choice["message"]["content"], choice["finish_reason"] == "length"

    def own(prompt: str, tokens: int) -> tuple[str, bool]:
        stream = post(worker, "/execute", {"prompt": prompt, "max_tokens": tokens, "temperature": 0}).read().decode()
        frames = [json.loads(data) for data in re.findall(r"^data: (.*)$", stream, re.M)]
        text = "".join(frame["t"] for frame in frames if frame["type"] == "token")
        return text, frames[-1].get("stop_reason") == "MAX_TOKENS"

    found = {}
    for api, ask in (("/v1", chat), ("own", own)):
        found[api], _ = ask(PROMPT, TOKENS)
        endless = next((prompt for prompt in ENDLESS if ask(prompt, 300)[1]), None)
        assert endless, f"the model answers all of ENDLESS within 300 tokens ({api}): add a prompt that it does not"
        found[f"{api} long"] = endless
    return found


# Greedy answers to some of these run in circles: whichever does so on the model at hand is taken.
ENDLESS = ["Count from one to one thousand, one number a line.", "on and on", "Tell a story that never ends.",
           *(f"Repeat the word {word} for ever." for word in ("bee", "hive", "honey", "wax", "queen", "drone"))]
PROMPT = "Once upon a time, a bee named"


def table(cells: dict[tuple[str, str], str], versions: dict[str, str], names: list[str]) -> str:
    lines = ["| client | version | speaks | " + " | ".join(CASES) + " |", "|---" * (3 + len(CASES)) + "|"]
    for name in names:
        row = [name, versions.get(name, "?"), CLIENTS[name][1], *(cells[name, case] for case in CASES)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def write(path: pathlib.Path, text: str) -> None:
    """Puts the table between its two marks, so that what is written around it stays."""
    begin, end = "<!-- matrix: made by `make test-clients` -->", "<!-- end of the matrix -->"
    whole = path.read_text()
    before, rest = whole.split(begin)
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=pathlib.Path)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("names", nargs="*", default=list(CLIENTS))
    options = parser.parse_args()
    names, cases = options.names or list(CLIENTS), options.case or CASES
    with Worker() as worker:
        texts = expected(worker)
    cells = {(name, case): "–" for name in names for case in CASES}
    versions: dict[str, str] = {}
    failures = 0
    for case in cases:
        began = time.monotonic()
        for name, found in run_all(case, names, texts).items():
            if isinstance(found, Exception):
                failures += 1
                cells[name, case] = "FAILS"
                print(f"{name}, {case}: {found}", file=sys.stderr)
            else:
                versions[name] = found.get("version", "?")
                cells[name, case] = note(case, found)
            print(f"{case}, {name}: {cells[name, case]}", flush=True)
        print(f"{case}: {time.monotonic() - began:.0f} s", flush=True)
    text = table(cells, versions, names)
    print(text)
    if options.write and not failures:
        write(options.write, text)
    print(f"{len(names) * len(cases) - failures} passed, {failures} failed")
    sys.exit(1 if failures else 0)


def note(case: str, found: dict) -> str:
    """What a cell says besides that it went well."""
    if case == "narration":
        return f"{found['narrations']} seen" if found.get("narrations") else "unseen, unharmed"
    if case == "429":
        return f"shown, after {found['retry_after']} s" if found.get("retry_after") else "shown" if found.get("status") else "comes again"
    if case == "error":
        return "raised" if found.get("raised") else "told"
    return "yes"


if __name__ == "__main__":
    main()
