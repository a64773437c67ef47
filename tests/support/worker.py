"""The real worker for tests in Python: starts it on a port of the system's choice and reads its narration."""

import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("WORKER", str(ROOT / "target/debug/rbees-workerd"))
MODEL = os.environ.get("MODEL", str(ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
PATIENCE_S = 180  # only a hang gets to its end


class Worker:
    """A worker that takes work; ends with its block."""

    def __init__(self, *arguments: str, **environment: str):
        command = [BINARY, "serve", "--model", MODEL, "--port", "0", "--exit-with-parent", *arguments]
        self.process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.told: list[dict] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.url = f"http://{self.fact('server-bound')['address']}"
        until(lambda: self.get("/ready") == 200)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.told.append(json.loads(line))

    def fact(self, kind: str) -> dict:
        """The first fact of that kind, as soon as it is told."""
        def found():
            assert self.process.poll() is None, f"the worker ended with {self.process.poll()}"
            return next((told["fact"][kind] for told in list(self.told) if kind in told.get("fact", {})), None)
        return until(found)

    def get(self, path: str) -> int:
        try:
            return urllib.request.urlopen(self.url + path, timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code

    def health(self) -> dict:
        return json.load(urllib.request.urlopen(f"{self.url}/health", timeout=30))

    def drain(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def until(found):
    """Waits until `found` gives something, and gives that."""
    end = time.monotonic() + PATIENCE_S
    while not (value := found()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
    return value
