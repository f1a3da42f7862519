"""schemathesis against the server's own OpenAPI schema: whatever is sent, the server does not fail."""

from collections import Counter

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from lensmith.serve import schema
from tests.support.serve_models import tiny_server

OPERATIONS = {"/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/{name}", "/health", "/metrics"}
BOUNDED = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}

EXAMPLES = [20, pytest.param(400, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]


@pytest.fixture(scope="module")
def server():
    # Short texts, so that 128 answers of any length are soon there.
    with tiny_server(slots=16, max_length=48) as (url, engine):
        yield url.removesuffix("/v1"), engine


def fuzz(server, path, mode, examples):
    """Sends so many requests of one path, valid or not, and counts the statuses."""
    root, engine = server
    statuses = Counter()
    api = schemathesis.openapi.from_url(f"{root}/openapi.json")
    [operation] = [found.ok() for found in api.get_all_operations() if found.ok().path == path]

    @settings(max_examples=examples, **BOUNDED)
    @given(operation.as_strategy(generation_mode=mode))
    def send(case):
        response = case.call_and_validate(checks=[not_a_server_error], timeout=60)
        statuses[response.status_code] += 1

    send()
    assert engine.is_alive
    assert engine.open_requests == 0
    return statuses


@pytest.mark.parametrize("path", sorted(OPERATIONS))
@pytest.mark.parametrize("examples", EXAMPLES)
def test_valid_requests(server, path, examples):
    if path == "/v1/models/{name}":  # no name that is made up is a model's
        fuzz(server, path, GenerationMode.POSITIVE, examples)
        return
    # Which requests are made depends on what else this process has imported, as hypothesis takes constants from there:
    # where none of few made sense, more are made.
    sensible = (fuzz(server, path, GenerationMode.POSITIVE, times * examples)[200] for times in (1, 5, 20))
    assert any(sensible), "no request made sense, so nothing was tested"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("examples", EXAMPLES)
def test_invalid_requests(server, path, examples):
    assert fuzz(server, path, GenerationMode.NEGATIVE, examples)[400]


def test_the_schema_describes_every_path(server):
    document = httpx.get(f"{server[0]}/openapi.json").json()
    assert set(document["paths"]) == OPERATIONS
    for path, body in (("/v1/completions", schema.COMPLETION), ("/v1/chat/completions", schema.CHAT)):
        told = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(told["properties"]) == set(body["properties"]) >= {"logit_bias", "stream", "logprobs", "n", "seed"}
