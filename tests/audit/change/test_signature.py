"""Whether outputs come from a known model: itself under other words is the same, anything else is not."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from lensmith.audit.change.signature import Origin, SignatureConfig, check_signature, judge
from lensmith.audit.estimators.image import learn_image, load_image, off_image, off_image_at, save_image
from lensmith.audit.stages.image import IMAGE_FILE
from lensmith.cli.app import app
from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure, Noise, Sampled
from lensmith.endpoints.fake.endpoint import Lattice
from lensmith.endpoints.fake.server import FakeServer
from tests.support.fake_audits import EVERYTHING, VOCABULARY, WithHiddenPrompt, audited, fake, session_in


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited")
    audited(fake(), folder, max_queries=300)
    return load_image(folder / "audit" / IMAGE_FILE)


def checked(endpoint, image, folder, *, max_queries=20_000, **options):
    asked = {key: options.pop(key) for key in ("form", "seed", "target", "model", "budget") if key in options}
    session = session_in(folder, max_queries=max_queries, **asked)
    return check_signature(endpoint, image, SignatureConfig(session=session, **options))


def nudged(rank, size):
    """The same fake with a change of its head of this rank."""
    head_VH, rng = fake().truth.head_VH, np.random.default_rng(1)
    change_VH = rng.standard_normal((len(head_VH), rank)) @ rng.standard_normal((rank, head_VH.shape[1]))
    return fake(head_VH=head_VH + size * head_VH.std() / change_VH.std() * change_VH)


READ_OUTS = {
    "P1": EVERYTHING,
    "P2": replace(Exposure(), wanted_ids=16),
    "P4a": replace(Exposure(), sampled_logprob=Sampled.SHOWN),
    "P7": replace(Exposure(), top_logprobs=0, sampled_logprob=Sampled.HIDDEN),
}


@pytest.mark.parametrize(
    "through", [pytest.param(name, marks=[pytest.mark.slow] if name == "P7" else []) for name in READ_OUTS]
)
def test_the_same_model_is_the_same_through_any_read_out(tmp_path, image, through):
    check = checked(fake(READ_OUTS[through]), image, tmp_path, outputs=4)
    assert (check.origin, check.read_out, check.exit_code) == (Origin.SAME, through, 0)


def test_another_prompt_is_the_same_model(tmp_path, image):
    check = checked(WithHiddenPrompt(fake()), image, tmp_path)
    assert check.origin is Origin.SAME
    assert check.residual_nats < check.expected_nats


def test_what_is_expected_of_rounded_outputs_is_what_is_left(tmp_path):
    exposure = replace(EVERYTHING, decimals=3)
    audited(fake(exposure), tmp_path)
    check = checked(WithHiddenPrompt(fake(exposure)), load_image(tmp_path / "audit" / IMAGE_FILE), tmp_path / "check")
    assert check.origin is Origin.SAME
    assert check.residual_nats == pytest.approx(check.expected_nats, rel=0.2)


@pytest.mark.parametrize("exposure", [EVERYTHING, READ_OUTS["P2"]], ids=["P1", "P2"])
def test_another_model_is_another(tmp_path, image, exposure):
    check = checked(fake(exposure, seed=4), image, tmp_path)
    assert (check.origin, check.exit_code) == (Origin.ANOTHER, 1)
    assert check.residual_nats == pytest.approx(check.unrelated_nats, rel=0.1)


@pytest.mark.parametrize("rank", [1, 4])
def test_a_head_with_a_change_of_low_rank_is_another(tmp_path, image, rank):
    assert checked(nudged(rank, 0.01), image, tmp_path).origin is Origin.ANOTHER


def test_a_change_below_the_noise_is_no_change(tmp_path, image):
    assert checked(nudged(1, 1e-9), image, tmp_path).origin is Origin.SAME


@pytest.mark.parametrize(
    ("exposure", "switches"),
    [
        (replace(EVERYTHING, decimals=2), {}),
        (replace(EVERYTHING, noise_nats=0.1, noise=Noise.FRESH), {}),
        (EVERYTHING, {"lattice": Lattice.BFLOAT16}),
        (EVERYTHING, {"jitter_nats": 1e-3}),
    ],
    ids=str,
)
def test_the_same_model_told_more_coarsely_is_never_called_another(tmp_path, image, exposure, switches):
    assert checked(fake(exposure, **switches), image, tmp_path).origin is not Origin.ANOTHER
    assert checked(fake(exposure, seed=4, **switches), image, tmp_path / "other").origin is Origin.ANOTHER


@pytest.mark.parametrize(
    ("exposure", "options"),
    [
        (Exposure.text_only(), {}),
        (replace(EVERYTHING, noise_nats=30.0, noise=Noise.FRESH, logit_bias=0.0), {}),
        (READ_OUTS["P4a"], {"max_queries": 200}),
        (EVERYTHING, {"vocabulary": 30}),
    ],
    ids=["text only", "drowned in noise", "no budget", "another vocabulary"],
)
def test_what_cannot_be_told_is_said_to_be_so(tmp_path, image, exposure, options):
    switches = {"vocabulary": options.pop("vocabulary", VOCABULARY)}
    check = checked(fake(exposure, **switches), image, tmp_path, **options)
    assert (check.origin, check.exit_code) == (Origin.COULD_NOT_TELL, 3)
    assert check.reason


def test_a_part_of_the_tokens_says_what_all_of_them_say():
    rng = np.random.default_rng(0)
    outputs = rng.standard_normal((60, 12)) @ rng.standard_normal((12, 400)) + 1e-3 * rng.standard_normal((60, 400))
    image = learn_image(outputs[:40], 12)
    whole, same = off_image(image, outputs[40:]), off_image_at(image, np.arange(400), outputs[40:])
    np.testing.assert_allclose(same.rms_K, whole.rms_K, rtol=1e-4)
    np.testing.assert_allclose(same.expected_K, whole.expected_K, rtol=1e-4)
    some = rng.permutation(400)[:40]
    part = off_image_at(image, some, outputs[40:][:, some])
    assert (part.rms_K / part.expected_K).mean() == pytest.approx(1, abs=0.15)
    noisy = outputs[40:][:, some] + 0.1 * rng.standard_normal((20, 40))
    assert judge(image, some, noisy, noise_nats=image.noise_nats).origin is Origin.ANOTHER
    assert judge(image, some, noisy, noise_nats=0.1).origin is Origin.SAME
    with pytest.raises(InputError, match="too few tokens"):
        off_image_at(image, some[:13], outputs[:, some[:13]])


def test_the_command_exits_with_the_verdict(tmp_path, image):
    save_image(image, tmp_path / "image.npz")
    for endpoint, status in ((fake(), 0), (fake(seed=4), 1), (fake(Exposure.text_only()), 3)):
        with FakeServer(endpoint) as url:
            words = ["audit", "signature", str(tmp_path / "image.npz"), url, "--model", "fake", "--rate", "10000"]
            result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / str(status)), "--json"])
        assert result.exit_code == status, result.output
    (tmp_path / "image.npz").write_bytes(b"PK")
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "broken")])
    assert result.exit_code == 2 or isinstance(result.exception, InputError)
