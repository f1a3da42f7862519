"""`lensmith guard` as a person types it: it listens, guards, stops when told to, and says what is wrong."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from lensmith.cli.app import app
from lensmith.core.errors import ConfigError, InputError
from lensmith.core.exposure import Exposure, Sampled, Taken
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.endpoints.fake.server import FakeServer
from lensmith.guard.config import (
    GuardConfig,
    OnExtraction,
    OnRefusal,
    Paths,
    PatternConfig,
    ResourceLimits,
    Timeouts,
    TokenNaming,
    UnknownFields,
)
from lensmith.guard.run import guard_exposure, read_keys

UPSTREAM = "http://127.0.0.1:1/v1"

# Runs the command with modules that it must do without.
WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "fastapi"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from lensmith.cli import main
main()
"""


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WITHOUT, "guard", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


def test_it_guards_without_torch_and_stops_when_told_to():
    endpoint = FakeEndpoint(vocabulary=61, width=8, metadata={"n_embd": 8})
    with FakeServer(endpoint, dialect="llama-server", api_key="sk-up") as url:
        process = start("--upstream", url, "--expose", "top-logprobs=3", "--port", "0", LENSMITH_UPSTREAM_KEY="sk-up")
        try:
            line = process.stderr.readline()
            address = re.search(r"guard on (http://\S+)/v1 for", line)[1]
            assert "exposes top-logprobs=3,no-metadata" in line
            body = {"model": "fake", "messages": [{"role": "user", "content": "x"}], "logprobs": True}
            for top, status in ((3, 200), (4, 400)):
                asked = {**body, "top_logprobs": top}
                assert httpx.post(f"{address}/v1/chat/completions", json=asked).status_code == status
            listing = httpx.get(f"{address}/v1/models")
            assert "n_embd" not in listing.text
            assert "server" not in listing.headers
            assert 'refused_total{reason="refused:top_logprobs"} 1' in httpx.get(f"{address}/metrics").text
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            rest = process.communicate()[1]
    assert "Traceback" not in rest


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--expose", "top-logprobs=5"], "--upstream"),
        (["--upstream", "localhost:8000"], "upstream: not a base URL"),
        (["--upstream", "http://user:pass@host/v1"], "upstream: not a base URL"),
        (["--upstream", UPSTREAM, "--expose", "top-logprob=5"], "did you mean"),
        (["--upstream", UPSTREAM, "--on-refusal", "maybe"], "reject, strip"),
        (["--upstream", UPSTREAM, "--keys-file", "/nowhere/keys"], "no such file"),
        (["--upstream", UPSTREAM, "--host", "203.0.113.1"], "cannot listen"),
    ],
)
def test_mistakes_end_as_a_message(arguments, problem):
    process = start(*arguments)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert problem in stderr
    assert "Traceback" not in stderr


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        process = start("--upstream", UPSTREAM, "--port", port)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert f"127.0.0.1:{port}" in stderr
    assert "another program has this port" in stderr


def test_a_clients_own_key_does_not_close_the_guard_and_that_is_said():
    """The one who set it may think that it does."""
    own = {"LENSMITH_API_KEY": "sk-own"}
    for environment, is_said in ((own, True), ({**own, "LENSMITH_GUARD_KEYS": "sk-a sk-b"}, False)):
        process = start("--upstream", UPSTREAM, "--port", "0", **environment)
        try:
            said = ""
            while "guard on" not in said:
                said += process.stderr.readline()
            assert ("everybody may ask" in said) == ("LENSMITH_GUARD_KEYS" in said) == is_said
            url = re.search(r"guard on (http://\S+/v1) for", said)[1]
            statuses = [
                httpx.get(f"{url}/models", headers={"authorization": f"Bearer {key}"}).status_code
                for key in ("sk-own", "sk-a", "sk-b")
            ]
            assert statuses == ([502] * 3 if is_said else [401, 502, 502])
        finally:
            process.kill()
            process.communicate()


def config_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> GuardConfig:
    """What the command would run, as a person types it."""
    configs: list[GuardConfig] = []
    monkeypatch.setattr("lensmith.guard.run.run_guard", lambda config, **_: configs.append(config))
    result = CliRunner().invoke(app, ["guard", "--upstream", UPSTREAM, *arguments])
    assert result.exit_code == 0, result.output
    return configs[0]


def test_options_become_the_configuration(monkeypatch):
    typed = """
        --expose text-only --api-key sk-a --on-refusal strip --on-extraction block --bias-per-prompt 5 --window-s 60
        --requests-per-minute 7 --pass-field top_a --refuse-field min_p --refuse-field top_k --paths chat
        --concurrent-per-client 3 --upstream-taken after-bias --upstream-top-logprobs 9 --naming ids --body-mib 2
        --timeout-s 8 --unknown-fields refuse --remote-pictures --upstream-key sk-up --metrics-key sk-m
    """
    config = config_of(monkeypatch, *typed.split())
    assert list(config.keys) == ["sk-a"]
    assert "sk-a" not in config.keys["sk-a"]
    assert config == GuardConfig(
        upstream=UPSTREAM,
        exposure=Exposure.text_only(),
        keys=config.keys,
        upstream_key="sk-up",
        metrics_key="sk-m",
        upstream_taken=Taken.AFTER_BIAS,
        upstream_top_logprobs=9,
        unknown_fields=UnknownFields.REFUSE,
        on_refusal=OnRefusal.STRIP,
        token_naming=TokenNaming.IDS,
        pass_fields=("top_a",),
        refuse_fields=("min_p", "top_k"),
        paths=Paths.CHAT,
        remote_pictures=True,
        limits=ResourceLimits(body_bytes=2 << 20, concurrent_per_client=3),
        timeouts=Timeouts(silence_s=8),
        patterns=PatternConfig(window_s=60, requests_per_minute=7, bias_per_prompt=5, on_extraction=OnExtraction.BLOCK),
    )


def test_without_options_it_is_the_configuration_of_the_library(monkeypatch):
    usual = guard_exposure("top-logprobs=5,no-logit-bias")
    assert config_of(monkeypatch) == GuardConfig(upstream=UPSTREAM, exposure=usual)


def test_metadata_is_told_only_where_it_is_named():
    assert not guard_exposure("top-logprobs=5").metadata
    assert not guard_exposure("everything").metadata
    assert guard_exposure("top-logprobs=5, metadata").metadata
    assert guard_exposure("sampled-logprob=hidden").sampled_logprob is Sampled.HIDDEN


def test_frozen_noise_has_a_secret_seed():
    first, second = (guard_exposure("noise-nats=0.1,noise=frozen").noise_seed for _ in range(2))
    assert first != second
    assert min(first, second) > 2**32
    assert guard_exposure("noise-nats=0.1,noise=frozen,noise-seed=7").noise_seed == 7
    assert guard_exposure("noise-nats=0.1").noise_seed == 0


def test_keys_come_from_options_and_a_file(tmp_path: Path):
    path = tmp_path / "keys"
    path.write_text("# customers\nann sk-a\n\nsk-b\n")
    keys = read_keys(["sk-c"], path)
    assert keys["sk-a"] == "ann"
    assert keys.keys() == {"sk-a", "sk-b", "sk-c"}
    assert all(key not in name for key, name in keys.items())
    for content in (b"ann sk-a more\n", b"ann sk-a\nbob sk-a\n", b"# nobody\n", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises((InputError, ConfigError)):
            read_keys([], path)
    with pytest.raises(InputError, match="not a file of keys"):
        read_keys([], tmp_path)
