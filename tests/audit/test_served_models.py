"""Audits over HTTP of random models behind `lensmith serve`: the exact width wherever something is open."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lensmith.audit.findings.finding import ReadOut, Verdict
from lensmith.audit.querying.contexts import ContextForm
from lensmith.audit.run import AuditConfig, audit
from lensmith.audit.weights.head import open_weights
from lensmith.core.exposure import Exposure, Sampled, Taken, Together
from lensmith.endpoints.http.client import connect
from lensmith.models.families.sightseer import SHIPPED, load
from lensmith.models.inference.endpoint import Answering
from lensmith.serve.engine import Engine
from lensmith.serve.run import running
from tests.support.fake_audits import session_in

WIDTH, VOCABULARY = 48, 512
EVERYTHING = replace(Exposure.everything(), metadata=False)
NO_STEERING = replace(EVERYTHING, logit_bias=0.0, allowed_ids=0)
HIDDEN = replace(Exposure(), metadata=False)


@pytest.fixture(scope="module")
def answering():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    return Answering.of(LlamaForCausalLM(config).eval(), byte_tokenizer(), name="random")


def byte_tokenizer():
    """A tokenizer of bytes, with ids of its own for the rest of the vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [f"w{number}" for number in range(VOCABULARY - len(alphabet) - 1)]
    tokenizer = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")  # noqa: S106 (a token of text)


def audited(answering, exposure, tmp_path, **options):
    asked = {key: options.pop(key) for key in ("form",) if key in options}
    max_queries = options.pop("max_queries", 60_000)
    engine = Engine(answering, exposure, slots=16)
    with running(engine) as url, connect(url, concurrency=16) as client:
        session = session_in(tmp_path / "audit", max_queries=max_queries, target=url, model=client.model, **asked)
        config = AuditConfig(session=session, **options)
        return audit(client, config, texts=client.vocabulary, server=client.dialect.name)


OPEN = {
    "whole vocabulary": (EVERYTHING, ReadOut.P1),
    "chosen ids": (replace(HIDDEN, wanted_ids=32), ReadOut.P2),
    "prompt logprobs": (replace(HIDDEN, echo=True, sampled_logprob=Sampled.SHOWN, logit_bias=0.0), ReadOut.P5),
    "top moved by a bias": (replace(HIDDEN, logprobs_taken=Taken.AFTER_BIAS), ReadOut.P3),
    "forced token": (replace(HIDDEN, sampled_logprob=Sampled.SHOWN), ReadOut.P4A),
    "allow-list": (
        replace(HIDDEN, sampled_logprob=Sampled.SHOWN, allowed_ids=1, logit_bias=0.0),
        ReadOut.P4B,
    ),
    "single top": (replace(HIDDEN, logprobs_taken=Taken.AFTER_BIAS, top_logprobs=1), ReadOut.P6),
    "greedy token": (replace(HIDDEN, top_logprobs=0, sampled_logprob=Sampled.HIDDEN), ReadOut.P7),
    "bias or logprobs": (replace(HIDDEN, bias_with_logprobs=Together.REFUSED), ReadOut.P7),
}
SMALL = 1e-4
"""An error up to a rotation, relative to the layer, that float32 logprobs leave far behind."""
DEAR = {ReadOut.P6, ReadOut.P7, ReadOut.P4A, ReadOut.P4B, ReadOut.P5}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if OPEN[name][1] in DEAR else []) for name in OPEN],
)
def test_the_exact_width_is_found_through_whatever_is_open(answering, tmp_path, name):
    exposure, read_out = OPEN[name]
    # With more, an audit goes on to the layer up to a rotation.
    report = audited(answering, exposure, tmp_path, max_queries=60_000 if read_out in DEAR else 5_000)
    assert (report.width, report.verdict) == (WIDTH, Verdict.FINDINGS)
    assert next(finding for finding in report.findings if finding.code == "WIDTH").read_out is read_out


@pytest.mark.timeout(1800)
def test_the_image_and_the_layer_up_to_a_rotation_follow(answering, tmp_path):
    weights = answering.model.state_dict()
    truth = tmp_path / "model.safetensors"
    save_file({name: weights[name].contiguous() for name in ("lm_head.weight", "model.norm.weight")}, truth)
    report = audited(
        answering, EVERYTHING, tmp_path, read_outs=(ReadOut.P1,), truth=open_weights(truth), max_queries=3_000
    )
    evidence = {finding.code: finding.evidence for finding in report.findings}
    assert evidence["ROTATION"]["rank"] == WIDTH
    assert evidence["ROTATION"]["error_up_to_rotation"] < SMALL < evidence["ROTATION"]["error_of_linear_map"]
    assert evidence["IMAGE"]["error_nats"] < SMALL
    assert evidence["IMAGE"]["error_unrelated_nats"] > 1e3 * SMALL


@pytest.mark.parametrize(
    "exposure",
    [Exposure.text_only(), replace(HIDDEN, logit_bias=0.0), replace(HIDDEN, logit_bias=0.0, top_logprobs=1)],
    ids=["text only", "top-20", "top-1"],
)
def test_what_is_closed_is_clean(answering, tmp_path, exposure):
    report = audited(answering, exposure, tmp_path)
    assert (report.width, report.verdict) == (None, Verdict.CLEAN)


@pytest.mark.parametrize(
    "exposure",
    [
        replace(EVERYTHING, decimals=1, logit_bias=0.0, allowed_ids=0),
        replace(EVERYTHING, noise_nats=1.0, logit_bias=0.0),
    ],
    ids=["one decimal", "noise of a nat"],
)
def test_what_is_blurred_is_right_or_unresolved(answering, tmp_path, exposure):
    report = audited(answering, exposure, tmp_path, max_queries=2_000)
    assert report.width in (None, WIDTH)


@pytest.mark.timeout(1800)
def test_a_vision_language_model_is_read_through_its_pictures(tmp_path):
    model, processor = load(SHIPPED["sightseer_nano"])
    answering = Answering.of(model, processor, name="sightseer_nano")
    report = audited(
        answering, replace(EVERYTHING, logit_bias=0.0), tmp_path, form=ContextForm.PICTURE, read_outs=(ReadOut.P1,)
    )
    assert report.width == model.config.get_text_config().hidden_size
