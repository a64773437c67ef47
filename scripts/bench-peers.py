"""Measures this worker beside llama.cpp and candle's stock llama: same model, threads and shapes, in turns.

Builds llama.cpp out of the source package of `llama-cpp-python` (once, under target/peers), takes our
programs as `make bench-peers` has built them, and prints one table of medians, spread and ratios.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

import llama_cpp

TARGETS = ["llama-bench", "llama-batched-bench", "llama-server", "llama-quantize"]
PREFILL = [128, 512, 2048]
DEPTHS = [0, 512, 2048]
BATCHES = [1, 2, 4, 8]
CLIENTS = [1, 4, 8]
FORMS = ["Q4_0", "Q8_0", "Q4_K_M"]
OURS, LLAMA, CANDLE = "ours", "llama.cpp", "candle"
START_S_MAX = 60


class Table:
    """Samples by line and by program."""

    def __init__(self) -> None:
        self.samples: dict[str, dict[str, list[float]]] = {}

    def add(self, line: str, program: str, value: float) -> None:
        self.samples.setdefault(line, {}).setdefault(program, []).append(value)

    def text(self) -> str:
        head = ["", OURS, LLAMA, "ratio", CANDLE]
        rows = [head, ["---", "---:", "---:", "---:", "---:"]]
        for line, programs in self.samples.items():
            medians = {name: statistics.median(values) for name, values in programs.items()}
            ratio = "–"
            if medians.get(LLAMA) and OURS in medians:
                ratio = f"{medians[OURS] / medians[LLAMA]:.2f}"
            cells = [shown(programs.get(name)) for name in (OURS, LLAMA)]
            rows.append([line, *cells, ratio, shown(programs.get(CANDLE))])
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def shown(values: list[float] | None) -> str:
    """Median and spread (lowest to highest)."""
    if not values:
        return "–"
    median = statistics.median(values)
    digits = 0 if median >= 100 else 1
    return f"{median:.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def lines_of(command: list[object]) -> list[dict]:
    """What a program prints as JSON, one object a line."""
    out = subprocess.run(
        list(map(str, command)), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def bench_llama(table: Table, programs: pathlib.Path, model: str, threads: int) -> None:
    common = ["-m", model, "-t", threads]
    numbers = lambda values: ",".join(map(str, values))
    prompt = [programs / "llama-bench", *common, "-r", 1, "-o", "jsonl", "-n", 0, "-p", numbers(PREFILL)]
    for result in lines_of(prompt):
        table.add(f"prefill {result['n_prompt']}, tokens/s", LLAMA, result["avg_ts"])
    decode = [programs / "llama-bench", *common, "-r", 1, "-o", "jsonl", "-n", 64, "-p", 0, "-d", numbers(DEPTHS)]
    for result in lines_of(decode):
        table.add(f"decode 64 at depth {result['n_depth']}, tokens/s", LLAMA, result["avg_ts"])
    batched = [
        programs / "llama-batched-bench", *common, "-c", 4096, "-npp", 16, "-ntg", 64,
        "-npl", numbers(BATCHES), "--output-format", "jsonl",
    ]
    for result in lines_of(batched):
        table.add(f"decode of {result['pl']} sequences, tokens/s", LLAMA, result["speed_tg"])


def bench_own(table: Table, program: pathlib.Path, name: str, model: str, threads: int) -> None:
    numbers = lambda values: ",".join(map(str, values))
    command = [program, "bare" if name == OURS else "candle", model, threads, numbers(PREFILL), numbers(DEPTHS), numbers(BATCHES)]
    for result in lines_of(command):
        table.add(f"{result['line']}, tokens/s", name, result["tokens_s"])


def forms(table: Table, programs: pathlib.Path, program: pathlib.Path, model: str, threads: int, folder: pathlib.Path) -> None:
    """The model's weights in other forms (made of the ones it has, which are not better for it)."""
    folder.mkdir(parents=True, exist_ok=True)
    for form in FORMS:
        file = folder / f"{form}.gguf"
        if not file.exists():
            command = [programs / "llama-quantize", "--allow-requantize", model, file, form, threads]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for result in lines_of([program, "bare", file, threads, 512, 0, 1]):
            if not result["line"].startswith("decode of"):
                table.add(f"{form}, {result['line']}, tokens/s", OURS, result["tokens_s"])
        command = [programs / "llama-bench", "-m", file, "-t", threads, "-r", 1, "-o", "jsonl", "-p", 512, "-n", 64]
        for result in lines_of(command):
            what = f"prefill {result['n_prompt']}" if result["n_prompt"] else f"decode {result['n_gen']} at depth 0"
            table.add(f"{form}, {what}, tokens/s", LLAMA, result["avg_ts"])


def peak_mib(process: subprocess.Popen) -> float:
    """The most memory that a process has had in use."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def served(table: Table, name: str, command: list[object], port: int, client: pathlib.Path) -> None:
    """Starts a server, lets 1, 4 and 8 clients ask it, and ends it."""
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            path = "/ready" if name == OURS else "/health"
            wait_for(f"http://127.0.0.1:{port}{path}", server)
            for clients in CLIENTS:
                for result in lines_of([client, "served", f"127.0.0.1:{port}", name, clients]):
                    for what in ("first_ms", "gap_p50_ms", "gap_p99_ms", "tokens_s"):
                        label = {
                            "first_ms": "time to first token, ms",
                            "gap_p50_ms": "between tokens p50, ms",
                            "gap_p99_ms": "between tokens p99, ms",
                            "tokens_s": "tokens/s of all",
                        }[what]
                        table.add(f"served, {clients} clients: {label}", name, result[what])
            table.add(f"served, up to {max(CLIENTS)} clients: peak memory, MiB", name, peak_mib(server))
        finally:
            server.terminate()
            server.wait()


def wait_for(url: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"the server for {url} ended with {server.returncode} before it was ready")
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing answered at {url} within {START_S_MAX} s")


def machine() -> str:
    """The processor, in words."""
    try:
        found = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores, {platform.system()}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--worker", required=True, type=pathlib.Path)
    arguments.add_argument("--bench", required=True, type=pathlib.Path)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--only", choices=["bare", "served", "forms", "all"], default="all")
    arguments.add_argument("--peers", type=pathlib.Path, default=pathlib.Path("target/peers"))
    chosen = arguments.parse_args()
    programs = llama_cpp.build(chosen.peers, TARGETS)
    # candle's thread count, and what our own takes where no flag says otherwise
    os.environ["RAYON_NUM_THREADS"] = str(chosen.threads)
    table = Table()
    model, threads = chosen.model, chosen.threads
    for turn in range(chosen.rounds):
        print(f"round {turn + 1} of {chosen.rounds}", file=sys.stderr)
        if chosen.only in ("forms", "all"):
            forms(table, programs, chosen.bench, model, threads, chosen.peers / "forms")
        if chosen.only in ("bare", "all"):
            bench_own(table, chosen.bench, OURS, model, threads)
            bench_llama(table, programs, model, threads)
        if chosen.only in ("served", "all"):
            port = free_port()
            ours = [chosen.worker, "serve", "--model", model, "--port", port]
            served(table, OURS, ours, port, chosen.bench)
            port = free_port()
            llama = [
                programs / "llama-server", "-m", model, "--port", port, "-t", threads,
                "-np", max(CLIENTS), "-c", 1024 * max(CLIENTS),
            ]
            served(table, LLAMA, llama, port, chosen.bench)
    if chosen.only in ("bare", "all"):
        bench_own(table, chosen.bench, CANDLE, model, threads)
    print(f"{machine()}; {llama_cpp.PACKAGE}; {chosen.rounds} rounds, {threads} threads, {pathlib.Path(model).name}\n")
    print(table.text())


if __name__ == "__main__":
    main()
