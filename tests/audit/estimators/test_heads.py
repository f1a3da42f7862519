"""Contexts that come from more than one head: their widths are never added up."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from lensmith.audit.estimators.heads import Heads
from lensmith.audit.estimators.spectrum import Spectra, WholeLimits
from lensmith.audit.estimators.width import Status, estimate_width
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from tests.support.fake_audits import EVERYTHING, audited, fake, finding
from tests.support.last_layers import PRECISIONS, SPECTRA, Norm, make_layer, told

_SEVERAL = "more than one head"


def _layers(count: int, width: int, *, spectrum: str = "moderate", norm: Norm = Norm.RMS):
    return [make_layer(width, 900, spectrum=spectrum, norm=norm, seed=100 * seed) for seed in range(count)]


def _routed(layers, contexts: int, shares, *, precision: str = "float32", tokens: int | None = None) -> np.ndarray:
    """Each context's outputs from one of the layers, chosen at random."""
    chosen = np.random.default_rng(7).choice(len(layers), contexts, p=shares)
    outputs = np.stack([layer.logits(contexts, np.random.default_rng(3 + n)) for n, layer in enumerate(layers)])
    return told(outputs[chosen, np.arange(contexts)], precision)[:, : tokens or 2 * contexts]


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_widths_of_two_replicas_are_not_added_up(spectrum, precision):
    layers, seen = _layers(2, 32, spectrum=spectrum), 0
    for shares, contexts in (((0.5, 0.5), 90), ((0.5, 0.5), 160), ((0.75, 0.25), 190), ((0.9, 0.1), 440)):
        found = estimate_width(_routed(layers, contexts, shares, precision=precision, tokens=500), noise_nats=1e-6)
        assert found.status is Status.UNRESOLVED, (shares, contexts, found)
        assert found.width is found.interval is None
        # A gap that noise nearly fills says less of where contexts come from, and is not believed either.
        if found.gaps and found.gaps[-1].ratio > 12:
            assert found.heads is Heads.SEVERAL, (shares, contexts, found)
            assert _SEVERAL in found.reason
            assert found.at_least is None
            seen += 1
    assert seen >= 1


@pytest.mark.parametrize("widths", [(32, 32, 32), (32, 48), (48, 16)])
def test_nor_those_of_more_replicas_or_of_other_widths(widths):
    layers = [
        make_layer(width, 900, spectrum="moderate", norm=Norm.RMS, seed=width + n) for n, width in enumerate(widths)
    ]
    found = estimate_width(_routed(layers, 240, [1 / len(widths)] * len(widths)))
    assert (found.status, found.heads) == (Status.UNRESOLVED, Heads.SEVERAL)


@pytest.mark.parametrize("bits", [4, 8])
def test_nor_those_of_a_quantised_replica(bits):
    layer = make_layer(32, 900, spectrum="moderate", norm=Norm.RMS, seed=0)
    step = np.abs(layer.head_VH).max(axis=1, keepdims=True) / 2 ** (bits - 1)
    quantised = replace(layer, head_VH=np.round(layer.head_VH / step) * step)
    found = estimate_width(_routed([layer, quantised], 120, (0.5, 0.5)))
    assert (found.status, found.heads) == (Status.UNRESOLVED, Heads.SEVERAL)


def test_replicas_that_share_a_head_have_its_width():
    layer = make_layer(64, 900, spectrum="moderate", norm=Norm.RMS, seed=0)
    other = replace(layer, gain_H=np.random.default_rng(5).uniform(0.3, 2, 64))
    for contexts in (90, 160, 400):
        found = estimate_width(_routed([layer, other], contexts, (0.5, 0.5)))
        assert (found.status, found.width, found.heads) == (Status.EXACT, 64, Heads.ONE)


def test_contexts_that_nothing_else_explains_are_no_width_yet():
    """Fewer contexts of the second replica than it is wide, left by chance in both parts that confirm."""
    one, other = _layers(2, 32)
    outputs = told(
        np.concatenate([one.logits(60, np.random.default_rng(0)), other.logits(3, np.random.default_rng(1))])
    )
    seen = set()
    for seed in range(60):
        found = estimate_width(outputs, seed=seed, noise_nats=1e-6)
        assert (found.status, found.at_least) == (Status.UNRESOLVED, None)
        assert found.heads is Heads.SOME_ALONE
        seen.add(found.reason)
    assert Heads.SOME_ALONE.value in seen


@pytest.mark.parametrize("is_precise", [True, False])
def test_combinations_that_give_nothing_are_the_same_however_they_are_found(is_precise):
    outputs = told(make_layer(48, 400, spectrum="moderate", norm=Norm.RMS, seed=0).logits(90, np.random.default_rng(0)))
    contexts = np.arange(5, 85)
    down_to = 1e-9 if is_precise else 1e-3
    whole, iterated = (
        Spectra(outputs, limits=limits).nothing(contexts, 32, down_to=down_to)
        for limits in (WholeLimits(), WholeLimits(qr_side=0, vectors_side=0))
    )
    centred = outputs[contexts] - outputs[contexts].mean(axis=1, keepdims=True)
    for space in (whole, iterated):
        np.testing.assert_allclose(space.T @ space, np.eye(32), atol=1e-9)
        assert np.abs(space.T @ centred).max() < 1e-4
    assert not np.array_equal(whole, iterated)
    np.testing.assert_allclose(whole @ whole.T, iterated @ iterated.T, atol=1e-5)


class _Router:
    """Two endpoints of which one answers, always the same for the same prompt."""

    def __init__(self, *endpoints):
        self._endpoints = endpoints

    def answer(self, requests):
        return [self._chosen(request).answer([request])[0] for request in requests]

    def supports(self):
        return self._endpoints[0].supports()

    def metadata(self):
        return self._endpoints[0].metadata()

    def _chosen(self, request):
        digest = hashlib.sha256(repr((request.prompt, request.token_ids)).encode()).digest()
        return self._endpoints[digest[0] % 2]


@pytest.mark.parametrize("kind", ["another model", "quantised", "wider"])
def test_an_audit_behind_a_router_claims_no_width(tmp_path, kind):
    if kind == "quantised":
        head_VH = fake().truth.head_VH
        step = np.abs(head_VH).max(axis=1, keepdims=True) / 128
        other = fake(head_VH=np.round(head_VH / step) * step)
    else:
        other = FakeEndpoint(vocabulary=256, width=48 if kind == "wider" else 32, seed=9, exposes=EVERYTHING)
    report = audited(_Router(fake(), other), tmp_path)
    assert finding(report, "WIDTH") is None
    assert report.width is report.width_interval is None
    assert _SEVERAL in report.width_note
    assert report.spent.queries < 300, "more contexts come from as many heads"
    assert any(_SEVERAL in reason for reason in report.unresolved)
