"""llama.cpp out of the source package of `llama-cpp-python`, for the scripts that compare with it.

Unpacked once, under the given folder; its programs are built when one is asked for first.
"""

import os
import pathlib
import subprocess
import sys
import tarfile

PACKAGE = "llama-cpp-python==0.3.36"
OPTIONS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
]


def run(tools: pathlib.Path, *command: object) -> None:
    """A step of the build: at the lowest priority, with the tools of the environment."""
    path = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    words = ["nice", "-n", "19", *map(str, command)]
    subprocess.run(words, check=True, env=path, stdout=sys.stderr)


def environment(folder: pathlib.Path) -> pathlib.Path:
    """The programs of a Python environment that can build."""
    tools = folder / "venv" / "bin"
    if not (tools / "ninja").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        run(tools, tools / "pip", "install", "--quiet", "cmake", "ninja", "scikit-build-core")
    return tools


def source(folder: pathlib.Path) -> pathlib.Path:
    """llama.cpp's own source, fetched if it is not there yet."""
    tools = environment(folder)
    if not any(folder.glob("llama_cpp_python-*/vendor/llama.cpp")):
        run(
            tools, tools / "pip", "download", "--quiet", "--no-deps", "--no-build-isolation",
            "--no-binary", "llama-cpp-python", "--dest", folder, PACKAGE,
        )
        with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    return next(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))


def build(folder: pathlib.Path, targets: list[str]) -> pathlib.Path:
    """The folder with llama.cpp's programs and libraries, built if one of `targets` is not there yet."""
    programs = folder / "llama.cpp-build" / "bin"
    if not all((programs / f"lib{name}.so").exists() or (programs / name).exists() for name in targets):
        tools = environment(folder)
        run(tools, "cmake", "-G", "Ninja", "-S", source(folder), "-B", programs.parent, *OPTIONS)
        run(tools, "ninja", "-C", programs.parent, *targets)
    return programs
