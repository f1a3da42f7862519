import pytest
import torch

from lensmith.core.errors import ConfigError
from lensmith.models.connectors import HybridMlpConnectorConfig
from lensmith.models.towers import VisionFeatures


def build(**changes):
    torch.manual_seed(0)
    return HybridMlpConnectorConfig(**({"high_width": 12} | changes)).build(tower_width=20, language_width=16)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_each_stream_is_projected_to_a_half_high_first(depth):
    connector = build(depth=depth)
    tokens = torch.randn(2, 3, 20)
    result = connector(VisionFeatures(tokens, torch.ones(2, 3, dtype=torch.bool)))
    high = tokens[..., :12] @ connector.high_proj.weight.T + connector.high_proj.bias
    low = tokens[..., 12:] @ connector.low_proj.weight.T + connector.low_proj.bias
    wanted = torch.cat([high, low], dim=-1)
    for index in range(depth - 1):
        linear = connector.layers[2 * index + 1]
        wanted = torch.nn.functional.gelu(wanted) @ linear.weight.T + linear.bias
    torch.testing.assert_close(result.features_FL, wanted.flatten(0, 1), atol=1e-5, rtol=1e-5)
    assert result.counts_N.tolist() == [3, 3]


def test_tokens_that_are_not_real_are_left_out():
    connector, tokens = build(), torch.randn(2, 3, 20)
    mask = torch.tensor([[True, False, True], [False, True, False]])
    result = connector(VisionFeatures(tokens, mask))
    assert result.counts_N.tolist() == [2, 1]
    wanted = connector(VisionFeatures(tokens, torch.ones_like(mask))).features_FL[mask.flatten()]
    torch.testing.assert_close(result.features_FL, wanted)


def test_gradients_reach_every_weight_and_the_tokens():
    connector, tokens = build(depth=3), torch.randn(2, 3, 20, requires_grad=True)
    connector(VisionFeatures(tokens, torch.ones(2, 3, dtype=torch.bool))).features_FL.square().sum().backward()
    assert (tokens.grad.abs() > 0).all()
    assert all((parameter.grad.abs() > 0).any() for parameter in connector.parameters())


def test_the_published_connector_has_the_published_names_and_sizes():
    with torch.device("meta"):
        weights = HybridMlpConnectorConfig().build(tower_width=2048, language_width=4096).state_dict()
    assert {name: tuple(value.shape) for name, value in weights.items() if "weight" in name} == {
        "high_proj.weight": (2048, 1024),
        "low_proj.weight": (2048, 1024),
        "layers.1.weight": (4096, 4096),
    }


def test_impossible_settings_are_refused():
    for name in ("high_width", "depth"):
        with pytest.raises(ConfigError, match=f"{name}: at least one"):
            HybridMlpConnectorConfig(**{name: 0})
    with pytest.raises(ConfigError, match="nothing left"):
        build(high_width=20)
    with pytest.raises(ConfigError, match="no half"):
        HybridMlpConnectorConfig(high_width=12).build(tower_width=20, language_width=15)
