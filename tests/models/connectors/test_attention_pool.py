import pytest
import torch

from lensmith.core.errors import ConfigError
from lensmith.models.connectors import AttentionPoolConnectorConfig
from lensmith.models.towers import VisionFeatures

TIGHT = {"atol": 1e-5, "rtol": 1e-5}
CONFIG = AttentionPoolConnectorConfig(queries=3, heads=2, head_width=4)


def build():
    torch.manual_seed(0)
    return CONFIG.build(tower_width=6, language_width=5)


def features(mask, seed=1):
    mask = torch.tensor(mask)
    return VisionFeatures(torch.randn(*mask.shape, 6, generator=torch.Generator().manual_seed(seed)), mask)


@torch.no_grad()
def test_it_is_what_loops_compute():
    connector, seen = build(), features([[True, False, True, True], [True, True, True, True]])
    result = connector(seen)
    tokens = []
    for own, mask in zip(seen.tokens_NPV, seen.mask_NP, strict=True):
        patches = torch.nn.functional.layer_norm(own[mask], (6,), eps=1e-6)
        keys, values = patches @ connector.key.weight.T, patches @ connector.value.weight.T
        for query in connector.queries:
            heads = []
            for head in (slice(0, 4), slice(4, 8)):
                shares = torch.softmax(keys[:, head] @ query[head] / 4**0.5, dim=0)
                heads.append((shares.unsqueeze(1) * values[:, head]).sum(dim=0))
            tokens.append(torch.cat(heads) @ connector.out.weight.T + connector.out.bias)
    torch.testing.assert_close(result.features_FL, torch.stack(tokens), **TIGHT)
    assert result.counts_N.tolist() == [3, 3]


def test_padding_and_holes_have_no_influence():
    connector, seen = build(), features([[True, False, True, False], [True] * 4])
    expected = connector(seen).features_FL
    changed = torch.where(seen.mask_NP.unsqueeze(2), seen.tokens_NPV, 9.0)
    torch.testing.assert_close(connector(VisionFeatures(changed, seen.mask_NP)).features_FL, expected, **TIGHT)
    alone = connector(VisionFeatures(seen.tokens_NPV[:1, ::2], seen.mask_NP[:1, ::2])).features_FL
    torch.testing.assert_close(alone, expected[:3], **TIGHT)


def test_gradients_reach_every_weight_and_each_real_patch():
    connector, seen = build(), features([[True, True, False], [True] * 3])
    tokens = seen.tokens_NPV.requires_grad_()
    connector(VisionFeatures(tokens, seen.mask_NP)).features_FL.square().sum().backward()
    assert torch.equal(tokens.grad.abs().sum(dim=2) > 0, seen.mask_NP)
    assert not [name for name, parameter in connector.named_parameters() if not parameter.grad.abs().sum() > 0]


def test_queries_read_different_patches_from_the_start():
    assert torch.pdist(build()(features([[True] * 4])).features_FL).min() > 1e-2


def test_impossible_settings_are_refused():
    for name in ("queries", "heads", "head_width"):
        with pytest.raises(ConfigError, match=name):
            AttentionPoolConnectorConfig(**{name: 0})
    assert AttentionPoolConnectorConfig().tokens_per_picture == 144
