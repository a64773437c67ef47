"""Perplexity of a model by llama.cpp, beside what the worker's own test makes of it: same text, tokens and window.

Prints llama.cpp's figure for the tokens that the test has written to a file (one id a line): a single window,
every token after the first, keys and values in 16 bits. Run by `make perplexity`.
"""

import argparse
import math
import os
import pathlib
import subprocess
import sys

BINDINGS = ["numpy", "typing_extensions", "diskcache", "jinja2"]


def bindings(folder: pathlib.Path) -> None:
    """Goes on in the environment of llama-cpp-python's bindings, with the library that was built."""
    if "LLAMA_CPP_LIB_PATH" in os.environ:
        return
    import llama_cpp as peer

    library = peer.build(folder, ["llama"])
    tools = peer.environment(folder)
    peer.run(tools, tools / "pip", "install", "--quiet", *BINDINGS)
    package = peer.source(folder).parent.parent
    environment = {**os.environ, "LLAMA_CPP_LIB_PATH": str(library.resolve()), "PYTHONPATH": str(package)}
    # Not the folder of this script first, which has a module of the same name as the bindings.
    command = [tools / "python", "-P", pathlib.Path(__file__).resolve(), *sys.argv[1:]]
    sys.exit(subprocess.run(list(map(str, command)), env=environment, check=False).returncode)


def perplexity(model: str, tokens: list[int], threads: int) -> float:
    import llama_cpp
    import numpy

    whole = llama_cpp.Llama(model, n_ctx=len(tokens), n_batch=len(tokens), n_threads=threads,
                            n_threads_batch=threads, logits_all=True, verbose=False)
    whole.eval(tokens)
    rows = numpy.array(whole.scores[: len(tokens) - 1], dtype=numpy.float64)
    most = rows.max(axis=1, keepdims=True)
    norms = numpy.log(numpy.exp(rows - most).sum(axis=1)) + most[:, 0]
    chosen = rows[numpy.arange(len(tokens) - 1), tokens[1:]]
    return math.exp(float((norms - chosen).mean()))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--tokens", required=True, type=pathlib.Path)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--peers", type=pathlib.Path, default=pathlib.Path("target/peers"))
    chosen = arguments.parse_args()
    bindings(chosen.peers)
    tokens = [int(line) for line in chosen.tokens.read_text().split()]
    found = perplexity(chosen.model, tokens, chosen.threads)
    print(f"llama.cpp: perplexity {found:.4f} over {len(tokens) - 1} tokens of one window")


if __name__ == "__main__":
    main()
