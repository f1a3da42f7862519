"""`lensmith serve` as a person starts it: it says where it is, answers, and stops well; mistakes are told at once."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from lensmith.cli import main


def started(*arguments, env=None):
    """The running command and its base URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lensmith.cli", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
    )
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"serving at (http://\S+/v1)$", line.strip()):
            return process, found[1]
    process.kill()
    raise AssertionError("".join(said))


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_it_serves_the_shipped_model_and_stops_when_told(how):
    process, url = started(
        "sightseer_nano", "--port", "0", "--expose", "top-logprobs=2,no-metadata", "--served-model-name", "pages",
        env={"LENSMITH_SERVE_KEYS": "secret"},
    )  # fmt: skip
    try:
        client = httpx.Client(headers={"Authorization": "Bearer secret"}, timeout=60)
        assert httpx.get(f"{url}/models").status_code == 401
        [model] = client.get(f"{url}/models").json()["data"]
        assert (model["id"], "meta" in model) == ("pages", False)
        fields = {"model": "pages", "prompt": "<|begin|>", "max_tokens": 200, "temperature": 0}
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.post(f"{url}/completions", json=fields)))
        asking.start()
        while "lensmith_running_rows 1.0" not in httpx.get(f"{url.removesuffix('/v1')}/metrics").text:
            assert asking.is_alive()
            time.sleep(0.01)
        process.send_signal(how)
        asking.join()
        assert answers[0].json()["choices"][0]["text"]
        out, rest = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in rest


def refused(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["lensmith", "serve", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr()
    assert said.out == ""
    return stopped.value.code, said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sightseer_nano", "--expose", "top-logprob=5"], "did you mean 'top-logprobs'"),
        (["sightseer_nano", "--dtype", "float16"], "float32 or bfloat16 or int8"),
        (["sightseer_nano", "--exact", "nearly"], "original or transformers"),
        (["sightseer_nano", "--device", "nowhere"], "no such device"),
        (["sightseer_nano", "--max-model-len", "999999"], "1 to 4096"),
        (["sightseer_nano", "--host", "256.0.0.1"], "cannot listen"),
        (["{empty}"], "no language model"),
        (["{empty}/unknown"], "no language model"),
        (["{empty}/none.gguf"], "no such GGUF file"),
        (["{empty}/broken.gguf"], "cannot read this GGUF file"),
    ],
)
def test_a_mistake_is_2_and_says_what_to_do(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nothing")
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "config.json").write_text('{"model_type": "no_such_type"}')
    words = [word.format(empty=tmp_path) for word in arguments]
    status, error = refused(monkeypatch, capsys, *words, "--port", "0")
    assert status == 2
    assert said in error


def test_a_port_that_is_taken(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, error = refused(monkeypatch, capsys, "sightseer_nano", "--port", str(taken.getsockname()[1]))
    assert status == 2
    assert "cannot listen" in error
    assert "another program has this port" in error


@pytest.mark.parametrize(
    ("variables", "is_told"),
    [
        ({"LENSMITH_API_KEY": "own"}, True),
        ({"LENSMITH_API_KEYS": "former"}, True),
        ({"LENSMITH_API_KEY": "own", "LENSMITH_SERVE_KEYS": "a b"}, False),
        ({}, False),
    ],
)
def test_a_clients_own_key_is_not_taken_for_one_to_accept(monkeypatch, capsys, variables, is_told):
    for name in ("LENSMITH_API_KEY", "LENSMITH_API_KEYS", "LENSMITH_SERVE_KEYS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _, error = refused(monkeypatch, capsys, "sightseer_nano", "--host", "256.0.0.1")
    assert ("LENSMITH_SERVE_KEYS" in error) == is_told
