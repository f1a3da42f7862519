"""Whole audits of fake endpoints with their weights on disk."""

import json
from dataclasses import replace

import numpy as np

from lensmith.audit.findings.finding import ReadOut
from lensmith.audit.probe.questions import probe_so_far
from lensmith.audit.querying.config import SessionConfig
from lensmith.audit.querying.meter import Budget
from lensmith.audit.run import AuditConfig, audit
from lensmith.core.exposure import Exposure
from lensmith.endpoints.fake.endpoint import FakeEndpoint

EVERYTHING = Exposure.everything()
WIDTH, VOCABULARY = 32, 256


def fake(exposure=EVERYTHING, **switches):
    return FakeEndpoint(**{"vocabulary": VOCABULARY, "width": WIDTH, "seed": 3, "exposes": exposure, **switches})


def session_in(folder, *, max_queries=None, **options):
    """A session of an endpoint that is nowhere, at any rate."""
    budget = Budget(queries_per_s=None, max_queries=max_queries, max_tokens=None)
    usual = {"target": "http://127.0.0.1:1/v1", "model": "fake", "folder": folder, "budget": budget}
    return SessionConfig(**usual | options)


def probe(endpoint, contexts):
    """What a probe found that could ask all its questions."""
    outcome = probe_so_far(endpoint, contexts)
    if outcome.ended_by is not None:
        raise outcome.ended_by
    return outcome.found


def audited(endpoint, folder, *, max_queries=3_000, read_outs=(ReadOut.P1,), **options):
    """`read_outs`: empty for all that exist."""
    session = session_in(folder / "audit", max_queries=max_queries)
    return audit(endpoint, AuditConfig(session=session, read_outs=read_outs, **options))


def finding(report, code):
    return next((found for found in report.findings if found.code == code), None)


def write_weights(path, **tensors):
    """A safetensors file; a double underscore in a name is a dot."""
    header, data = {}, b""
    for name, values in tensors.items():
        part = np.ascontiguousarray(values, dtype=np.float32).tobytes()
        offsets = [len(data), len(data) + len(part)]
        header[name.replace("__", ".")] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": offsets}
        data += part
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


class WithHiddenPrompt:
    """A fake behind words that its clients do not see."""

    def __init__(self, endpoint):
        self._endpoint = endpoint

    def answer(self, requests):
        return self._endpoint.answer([self._hidden(request) for request in requests])

    def supports(self):
        return self._endpoint.supports()

    def metadata(self):
        return self._endpoint.metadata()

    def _hidden(self, request):
        if request.prompt:
            return replace(request, prompt="You are a pirate. " + request.prompt)
        return replace(request, token_ids=(7, 7, 7, *request.token_ids)) if request.token_ids else request
