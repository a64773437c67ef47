"""openai-python's own generated tests against the real worker, for the endpoints that it has. They come
with its source package. What is left out is named with its reason in docs/clients.md, and here."""

import os
import pathlib
import subprocess
import sys
import tarfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from worker import ROOT, Worker  # noqa: E402

AT = ROOT / "target/clients/openai-tests"
PACKAGE = next(line for line in (ROOT / "tests/clients/python/all.txt").read_text().splitlines() if line.startswith("openai=="))
FILES = ["test_models.py", "test_completions.py", "chat/test_completions.py"]
# Endpoints that a worker has not, and requests in which every parameter is set, refused ones among them.
LEFT_OUT = "not delete and not update and not with_all_params and not (chat and (retrieve or list))"


def source() -> pathlib.Path:
    """The folder of the source package, fetched once."""
    folder = AT / PACKAGE.replace("==", "-")
    if not folder.exists():
        AT.mkdir(parents=True, exist_ok=True)
        # The system's pip: it builds the package's metadata, which fetches what that needs.
        python = os.environ.get("PYTHON") or "python3"
        subprocess.run([python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", AT, PACKAGE], check=True)
        with tarfile.open(AT / f"{folder.name}.tar.gz") as archive:
            archive.extractall(AT, filter="data")
    return folder


def main() -> int:
    folder = source()
    # Its tests name models of OpenAI's, and most no length: side by side they take less long.
    with Worker("--model-alias", "gpt-6-astra", "--model-alias", "gpt-3.5-turbo-instruct") as worker:
        command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider",
                   "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=session", "-n", "6", "-q",
                   "--tb=short", "-k", LEFT_OUT, *(f"tests/api_resources/{file}" for file in FILES), *sys.argv[1:]]
        environment = os.environ | {"TEST_API_BASE_URL": f"{worker.url}/v1"}
        return subprocess.run(command, cwd=folder, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
