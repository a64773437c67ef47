"""The client matrix: every client × every case, against the real worker, as a table.

  plain      a stream, whole and with its finish reason
  narration  the same with narration asked for: the same text, and nothing trips over it
  idle       more than ten seconds in the queue before the first token: signs of life only
  prefill    more than ten seconds of work on the prompt before the first token
  error      the deadline comes in the middle: an error, never a clean end
  429        a full queue: the client comes again, no sooner than `Retry-After` says, or shows status and header
  drain      SIGTERM while every stream is under way: all are finished, exit 0; new requests are told 503

A client is a program: `CLIENT BASE_URL CASE` prints one JSON object: `text`, `finish`, `error`, `status`,
`retry_after`, `narrations`, `version`, as far as it has them. Usage: matrix.py [--write FILE] [--light] [--case CASE]… [NAME…]
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
from datetime import datetime

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from worker import ROOT, Worker, until  # noqa: E402

HERE = ROOT / "tests/clients"
AT = ROOT / "target/clients"
CASES = ["plain", "narration", "idle", "prefill", "error", "429", "drain"]
SIGN_OF_LIFE_S = 10
SILENCE_S = 12  # longer than the time between two signs of life
TOKENS = 16
SLOTS = 16  # more than there are clients, so that all of them are served at once


def python(name: str) -> list[str]:
    venv = "light" if name in LIGHT else "python"
    return [str(AT / venv / "bin/python"), str(HERE / f"python/{name.replace('-', '_')}_client.py")]


def node(name: str) -> list[str]:
    return ["node", str(AT / f"node/{name}.mjs")]


def rust(name: str) -> list[str]:
    return [str(AT / "rust/debug" / name)]


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
    "async-openai": (rust, "/v1", True),
    "eventsource-stream": (rust, "own", False),
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
        self.worker, self.jobs, self.retry_after = worker, [], None
        until(lambda: self._add(full))

    def _add(self, full: bool) -> bool:
        name = f"busy-{next(NUMBERS)}"
        body = {"prompt": "on and on", "max_tokens": 2000, "temperature": 0, "repetition_penalty": 0.1,
                "job_id": name, "on_disconnect": "continue"}
        try:
            post(self.worker, "/execute", body).close()
        except urllib.error.HTTPError as error:
            if error.code == 429:
                self.retry_after = int(error.headers["retry-after"])
                return True
            raise
        self.jobs.append(name)
        until(lambda: self.worker.health()["active_jobs"] > 0)
        return not full and self.worker.health()["queued_jobs"] > 0

    def leave(self) -> None:
        for name in self.jobs:
            post(self.worker, "/cancel", {"job_id": name})


def start(name: str, worker: Worker, case: str, asks: "Asks") -> subprocess.Popen:
    kind, api, _ = CLIENTS[name]
    prompt, tokens, _ = asks.of(case, api)
    environment = os.environ | {"TOKENS": str(tokens), "PROMPT": prompt}
    return subprocess.Popen([*kind(name), worker.url, case], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def result(client: subprocess.Popen) -> dict:
    try:
        out, err = client.communicate(timeout=600)
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


def run_all(case: str, names: list[str], asks: "Asks") -> dict[str, dict | Exception]:
    """What each client found in one case. Where clients do not disturb each other, they run at once."""
    if case in ("error", "429"):
        # One slot: with more, the queue could be full for a moment while there are slots for what is in it.
        arguments = {"error": ["--timeout-ms", str(asks.deadline_ms)], "429": ["--queue", "1", "--slots", "1"]}[case]
        with Worker(*arguments) as worker:
            return {name: attempt(lambda: alone(name, case, worker, asks)) for name in names}
    if case == "prefill":
        return prefill(names, asks)
    with Worker("--slots", str(SLOTS), "--grace-ms", "600000") as worker:
        busy = Occupied(worker, full=False) if case in ("idle", "drain") else None
        clients = {name: start(name, worker, case, asks) for name in names}
        if busy:
            jobs = waiting(worker, busy, len(names))
            if case == "idle":
                time.sleep(SILENCE_S)
            busy.leave()
        ended = drain(worker, jobs) if case == "drain" else None
        found = whole_streams(clients, case, asks)
        if ended:
            ended()
    return found


def whole_streams(clients: dict[str, subprocess.Popen], case: str, asks: "Asks") -> dict[str, dict | Exception]:
    return {name: attempt(lambda: streamed(name, case, result(client), asks)) for name, client in clients.items()}


def attempt(work) -> dict | Exception:
    try:
        return work()
    except (Failed, AssertionError) as failure:
        return failure


def streamed(name: str, case: str, found: dict, asks: "Asks") -> dict:
    _, _, expected = asks.of(case, CLIENTS[name][1])
    whole(found, expected)
    if case == "narration" and CLIENTS[name][1] == "own":
        check(found.get("narrations", 0) >= 3, "no narration", found)
    return found


def alone(name: str, case: str, worker: Worker, asks: "Asks") -> dict:
    """A case in which a client needs the worker for itself."""
    if case == "error":
        found = result(start(name, worker, case, asks))
        check(bool(found.get("error")), "the end looks clean", found)
        check(bool(found.get("text")), "the error came before the first token", found)
        check(not found.get("finish"), "a finish reason after an error", found)
        return found
    before = len(refusals(worker)) + 1  # the one that shows that the queue is full
    busy = Occupied(worker, full=True)
    until(lambda: len(refusals(worker)) == before)
    client = start(name, worker, case, asks)
    until(lambda: len(refusals(worker)) > before or client.poll() is not None)
    busy.leave()
    found = result(client)
    if CLIENTS[name][2]:
        _, _, expected = asks.of(case, CLIENTS[name][1])
        whole(found, expected)
        refused = at(refusals(worker)[-1])
        waited = (at(facts(worker, "request-accepted")[-1]) - refused).total_seconds()
        check(waited >= busy.retry_after, f"came again after {waited} s, told {busy.retry_after} s", found)
        found["again_s"] = busy.retry_after
    else:
        check(found.get("status") == 429, "no 429", found)
        check(int(found.get("retry_after") or 0) >= 1, "no Retry-After", found)
    return found


def facts(worker: Worker, kind: str) -> list[dict]:
    """The narrations of that kind so far."""
    return [told for told in worker.told[:] if kind in told.get("fact", {})]


def at(told: dict) -> datetime:
    return datetime.fromisoformat(told["timestamp"].replace("Z", "+00:00"))


def refusals(worker: Worker) -> list[dict]:
    return [told for told in facts(worker, "request-rejected") if told["fact"]["request-rejected"]["status"] == 429]


def waiting(worker: Worker, busy: Occupied, count: int) -> set[str]:
    """The clients' jobs, once all of them wait for their turn."""
    def jobs() -> set[str]:
        return {told["job_id"] for told in facts(worker, "request-accepted")} - set(busy.jobs)

    until(lambda: len(jobs()) >= count)
    return jobs()


def drain(worker: Worker, jobs: set[str]):
    """Begins the drain when every client's stream is under way; gives what checks how it went."""
    until(lambda: jobs <= {told.get("job_id") for told in facts(worker, "tokens-generated")})
    worker.drain()
    worker.fact("server-shutdown")
    try:
        post(worker, "/execute", {"prompt": "hi", "max_tokens": 1})
        raise Failed("new work is taken while it drains")
    except urllib.error.HTTPError as error:
        check(error.code == 503 and int(error.headers["retry-after"]) >= 1, "no 503 with Retry-After", {})

    def ended() -> None:
        check(worker.ended() == 0, "the worker did not end well", {})
        began = facts(worker, "server-shutdown")[0]["sequence"]
        late = {told["job_id"] for told in facts(worker, "inference-completed") if told["sequence"] > began}
        check(jobs <= late, "streams had ended before the drain began", {"ended": len(jobs - late)})

    return ended


def prefill(names: list[str], asks: "Asks") -> dict[str, dict | Exception]:
    """All clients at once with a prompt so long that it is worked on for longer than a sign of life takes."""
    words = asks.words(len(names))
    while True:
        with Worker("--slots", str(SLOTS), "--kv-mib", "4096", "--prefix-cache", "false") as worker:
            asks.read(worker, "prefill", " ".join(f"bee {number % 7}" for number in range(words // 2)), 4)
            before = len(worker.told)
            found = whole_streams({name: start(name, worker, "prefill", asks) for name in names}, "prefill", asks)
            seconds = min(read_for(worker.told[before:]))
        if seconds > SIGN_OF_LIFE_S or words >= MOST_WORDS or any(isinstance(one, Exception) for one in found.values()):
            check(seconds > SIGN_OF_LIFE_S, "the model reads too fast for this case", {"seconds": seconds})
            print(f"prefill: {seconds:.0f} s at least, {words} words", flush=True)
            return found
        words = min(words * 2, MOST_WORDS)


def read_for(told: list[dict]) -> list[float]:
    """How long each job's prompt was worked on, seconds."""
    began, ended = {}, {}
    for one in told:
        fact = one.get("fact", {})
        if "inference-started" in fact:
            began[one["job_id"]] = at(one)
        if "prefill-progress" in fact:
            ended[one["job_id"]] = at(one)
    return [(ended[job] - began[job]).total_seconds() for job in began if job in ended] or [0.0]


MOST_WORDS = 6000


class Asks:
    """What clients ask in each case, and what the worker answers without any client between."""

    def __init__(self, worker: Worker, cases: list[str]):
        self._of: dict[tuple[str, str], tuple[str, int, str]] = {}
        began = time.monotonic()
        self.read(worker, "short", PROMPT, TOKENS)
        took = (time.monotonic() - began) / 2
        # Long enough for some tokens of an answer, short enough to come in the middle of 2,000.
        self.deadline_ms = int(os.environ.get("DEADLINE_MS", max(1.0, 1.5 * took) * 1000))
        self.long = min(600, max(3 * TOKENS, int(2 * self.deadline_ms / 1000 * TOKENS / took)))
        if "prefill" in cases:
            began = time.monotonic()
            post(worker, "/execute", {"prompt": "wax " * 400, "max_tokens": 1, "temperature": 0}).read()
            self._words_a_second = 400 / (time.monotonic() - began)
        if {"error", "drain"} & set(cases):
            for api in ("/v1", "own"):
                self._endless(worker, api)

    def of(self, case: str, api: str) -> tuple[str, int, str]:
        """Prompt, most tokens, and the text (in `error`: its beginning)."""
        known = {"error": "long", "drain": "long", "prefill": "prefill"}.get(case, "short")
        prompt, tokens, text = self._of[known, api]
        return prompt, 2000 if case == "error" else tokens, text

    def words(self, clients: int) -> int:
        """How many words keep so many clients waiting for half a minute in all."""
        return min(MOST_WORDS, max(300, int(30 * self._words_a_second / clients)))

    def read(self, worker: Worker, known: str, prompt: str, tokens: int) -> None:
        for api in ("/v1", "own"):
            text, _ = ask(worker, api, prompt, tokens)
            self._of[known, api] = prompt, tokens, text

    def _endless(self, worker: Worker, api: str) -> None:
        for prompt in ENDLESS:
            text, cut = ask(worker, api, prompt, self.long)
            if cut:
                self._of["long", api] = prompt, self.long, text
                return
        raise AssertionError(f"the model answers all of ENDLESS within {self.long} tokens ({api}): add a prompt")


def ask(worker: Worker, api: str, prompt: str, tokens: int) -> tuple[str, bool]:
    """The worker's greedy answer, and whether its length was what ended it."""
    if api == "/v1":
        model = json.load(urllib.request.urlopen(f"{worker.url}/v1/models", timeout=30))["data"][0]["id"]
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "temperature": 0}
        choice = json.load(post(worker, "/v1/chat/completions", body))["choices"][0]
        return choice["message"]["content"], choice["finish_reason"] == "length"
    stream = post(worker, "/execute", {"prompt": prompt, "max_tokens": tokens, "temperature": 0}).read().decode()
    frames = [json.loads(data) for data in re.findall(r"^data: (.*)$", stream, re.M)]
    text = "".join(frame["t"] for frame in frames if frame["type"] == "token")
    return text, frames[-1].get("stop_reason") == "MAX_TOKENS"


# Greedy answers to some of these run in circles: whichever does so on the model at hand is taken.
ENDLESS = ["Count from one to one thousand, one number a line.", "on and on", "Tell a story that never ends.",
           *(f"Repeat the word {word} for ever." for word in ("bee", "hive", "honey", "wax", "queen", "drone")),
           # Text that is in a circle already, for endpoints that continue it as it is.
           "bee " * 60 + "bee", "la " * 60 + "la", "0, " * 60 + "0,", "honey wax " * 40 + "honey"]
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
    parser.add_argument("--light", action="store_true", help="what is quick and needs nothing but Python")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    names = options.names or (LIGHT if options.light else list(CLIENTS))
    cases = options.case or [case for case in CASES if not (options.light and case == "prefill")]
    with Worker() as worker:
        asks = Asks(worker, cases)
    cells = {(name, case): "–" for name in names for case in CASES}
    versions: dict[str, str] = {}
    failures = 0
    for case in cases:
        began = time.monotonic()
        for name, found in run_all(case, names, asks).items():
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
        return f"shown, after {found['retry_after']} s" if found.get("retry_after") else f"comes again, told {found['again_s']} s"
    if case == "error":
        return "raised" if found.get("raised") else "told"
    return "yes"


if __name__ == "__main__":
    main()
