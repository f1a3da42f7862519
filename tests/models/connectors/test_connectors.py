import pytest
import torch

from lensmith.core.errors import ConfigError
from lensmith.models.connectors import MlpConnectorConfig, PerceiverConnectorConfig
from lensmith.models.towers import VisionFeatures

PERCEIVER = PerceiverConnectorConfig(latents=5, depth=2, heads=4, key_heads=2, head_width=8)


def features(mask, width=12, seed=0):
    mask = torch.tensor(mask)
    return VisionFeatures(torch.randn(*mask.shape, width, generator=torch.Generator().manual_seed(seed)), mask)


def build(config):
    torch.manual_seed(0)
    return config.build(tower_width=12, language_width=16)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("norm", [True, False])
def test_mlp_makes_one_token_of_each_real_patch_in_order(depth, norm):
    connector = build(MlpConnectorConfig(depth=depth, norm=norm))
    seen = features([[True, False, True], [False, True, False]])
    result = connector(seen)
    assert result.counts_N.tolist() == [2, 1]
    assert result.features_FL.shape == (3, 16)
    expected = [connector.layers(seen.tokens_NPV[n, p]) for n, p in ((0, 0), (0, 2), (1, 1))]
    torch.testing.assert_close(result.features_FL, torch.stack(expected))
    assert sum(isinstance(layer, torch.nn.Linear) for layer in connector.layers) == depth


def test_perceiver_makes_its_latents_of_any_picture_and_does_not_see_padding():
    connector = build(PERCEIVER)
    seen = features([[True, True, True, False, False], [True] * 5])
    result = connector(seen)
    assert result.features_FL.shape == (10, 16)
    assert result.counts_N.tolist() == [5, 5]
    alone = connector(VisionFeatures(seen.tokens_NPV[:1, :3], seen.mask_NP[:1, :3]))
    torch.testing.assert_close(result.features_FL[:5], alone.features_FL, atol=1e-5, rtol=1e-5)
    changed = seen.tokens_NPV.clone()
    changed[0, 3:] = 9.0
    again = connector(VisionFeatures(changed, seen.mask_NP))
    torch.testing.assert_close(again.features_FL, result.features_FL, atol=1e-5, rtol=1e-5)


def test_perceiver_sees_every_real_patch():
    connector = build(PERCEIVER)
    seen = features([[True, True, True]])
    tokens = seen.tokens_NPV.requires_grad_()
    connector(VisionFeatures(tokens, seen.mask_NP)).features_FL.square().sum().backward()
    assert (tokens.grad.abs().sum(dim=2) > 0).all()


def test_latents_are_not_alike():
    result = build(PERCEIVER)(features([[True, True, True]]))
    assert torch.pdist(result.features_FL).min() > 1e-3


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (MlpConnectorConfig, {"depth": 0}),
        (PerceiverConnectorConfig, {"latents": 0}),
        (PerceiverConnectorConfig, {"heads": 6, "key_heads": 4}),
    ],
)
def test_impossible_settings_are_refused(kind, values):
    with pytest.raises(ConfigError):
        kind(**values)


def test_the_number_of_tokens_is_known_beforehand():
    assert MlpConnectorConfig().tokens_per_picture is None
    assert PERCEIVER.tokens_per_picture == 5
