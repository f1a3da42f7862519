"""Which paths there are, who may use them, and what is counted."""

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lensmith.core.exposure import Exposure
from tests.support.guard_bed import CHAT, OPEN, PATH, READS, Recorder, ask, guard_before, send


@pytest.mark.parametrize(
    "path",
    "/ /v1 /v1/embeddings /embeddings /tokenize /detokenize /props /slots /server_info /get_server_info /model_info "
    "/get_model_info /completion /completions /generate /v1/responses /v1/chat/completions/ /v1//completions "
    "/v1/../completion /v1/completions%2f.. /infill /rerank /docs /openapi.json /version /reset".split(),
)
def test_other_paths_are_not_there(path):
    for body in (None, CHAT):
        reply, recorder = send(body, path=path)
        assert reply.status == 404
        assert recorder.bodies == []


def test_one_model_is_told_as_in_the_list():
    """OpenAI's client asks for it by name; nothing but the list is asked of the server."""
    asked = []

    async def models(request: Request) -> Response:
        asked.append(request.url.path)
        return JSONResponse({"object": "list", "data": [{"id": "org/m", "n_embd": 8}, {"id": "other"}]})

    guard = guard_before(Starlette(routes=[Route("/{path:path}", models)]), Exposure(metadata=False))
    found = asyncio.run(ask(guard.app(), "/v1/models/org/m", None))
    assert (found.status, found.body["object"], "n_embd" in found.body) == (200, "model", False)
    for name in ("m", "", "org%2fx"):
        missing = asyncio.run(ask(guard.app(), f"/v1/models/{name}", None))
        assert (missing.status, missing.body["error"]["code"]) == (404, "model_not_found")
    assert set(asked) == {"/v1/models"}


def test_another_method_is_refused():
    reply, _ = send(None, path=PATH)
    assert reply.status == 405
    assert reply.body["error"]["type"] == "invalid_request_error"


def test_only_known_keys_may_ask_and_nobody_else_reads_the_metrics():
    recorder = Recorder()
    guard = guard_before(recorder.app, OPEN, keys={"sk-a": "ann"}, metrics_key="sk-m")

    async def run(path: str, body: Any, key: str | None) -> int:
        headers = {} if key is None else {"authorization": key}
        return (await ask(guard.app(), path, body, headers=headers)).status

    for key in (None, "", "Bearer", "Bearer sk-b", "sk-a", "Basic sk-a", "Bearer sk-m"):
        assert asyncio.run(run(PATH, CHAT, key)) == 401
        assert asyncio.run(run("/v1/models", None, key)) == 401
    assert recorder.bodies == []
    assert asyncio.run(run(PATH, CHAT, "Bearer sk-a")) == 200
    assert asyncio.run(run("/metrics", None, "Bearer sk-a")) == 404
    assert asyncio.run(run("/metrics", None, "Bearer sk-m")) == 200
    assert asyncio.run(run("/health", None, None)) == 200


def test_metrics_tell_what_was_refused_and_name_no_key():
    guard = guard_before(Recorder().app, Exposure(), keys={"sk-a": "ann"})

    async def run() -> str:
        app, headers = guard.app(), {"authorization": "Bearer sk-a"}
        await ask(app, PATH, {**CHAT, **READS, "prompt_logprobs": 1}, headers=headers)
        await ask(app, PATH, {**CHAT, "logit_bias": {"1": 1000}}, headers=headers)
        await ask(app, PATH, {**CHAT, "surprise": 1}, headers=headers)
        return (await ask(app, "/metrics", None)).body

    text = asyncio.run(run())
    assert 'lensmith_guard_refused_total{reason="refused:logit_bias"} 1' in text
    assert 'lensmith_guard_refused_total{reason="invalid_value"} 1' in text
    assert 'lensmith_guard_stripped_total{field="other"} 1' in text
    assert 'lensmith_guard_requests_total{path="chat/completions",status="200"} 1' in text
    assert "ann" not in text.replace("cannot", "")
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ", "lensmith_guard_"))
