"""What only the EfficientNet tower does; what every tower promises is asked in `test_towers.py`."""

from dataclasses import replace

import pytest
import torch

from lensmith.core.errors import CheckpointError, ConfigError
from lensmith.models.towers import EfficientNetTowerConfig
from lensmith.models.towers.base import patch_mask_for
from lensmith.models.towers.efficientnet import BlocksConfig
from tests.support.published_efficientnet import published

TINY = EfficientNetTowerConfig(
    width=12,
    stem_width=6,
    stages=(
        BlocksConfig(blocks=1, kernel=3, stride=1, expansion=1, width=6),
        BlocksConfig(blocks=2, kernel=5, stride=2, expansion=3, width=8),
    ),
    native_px=16,
)


def test_the_defaults_are_lite0():
    with torch.device("meta"):
        tower = EfficientNetTowerConfig().build()
    # 4,652,008 weights as published (with a classifier of 1,280 x 1,000 + 1,000), of which each norm's second vector is
    # folded into the convolution: one number for each of the 21,024 channels.
    channels = sum(module.out_channels for module in tower.modules() if isinstance(module, torch.nn.Conv2d))
    assert sum(parameter.numel() for parameter in tower.parameters()) == 4_652_008 - 1_281_000 - channels
    assert (tower.config.patch_px, tower.config.grid_side) == (32, 7)


def test_norms_are_folded_whatever_they_hold():
    tensors = published(TINY)
    tower = TINY.build()
    tower.load_published(tensors)
    weight = tensors["_blocks.0._depthwise_conv.weight"]
    scale = tensors["_blocks.0._bn1.weight"] / (tensors["_blocks.0._bn1.running_var"] + 1e-3).sqrt()
    torch.testing.assert_close(tower.blocks[0].depthwise.weight, weight * scale[:, None, None, None])
    expected = tensors["_blocks.0._bn1.bias"] - scale * tensors["_blocks.0._bn1.running_mean"]
    torch.testing.assert_close(tower.blocks[0].depthwise.bias, expected)


def test_weights_that_do_not_fit_are_named_before_any_is_taken():
    tensors = published(TINY)
    tower = TINY.build()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    del tensors["_blocks.1._bn0.running_var"]
    tensors["_conv_head.weight"] = torch.zeros(3, 3)
    tensors["_blocks.9._bn0.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match="1 missing, 1 unexpected, 1 wrong shape") as caught:
        tower.load_published(tensors)
    for said in (
        "missing: _blocks.1._bn0.running_var",
        "unexpected: _blocks.9._bn0.bias",
        "[3, 3] instead of [12, 8, 1, 1]",
    ):
        assert said in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())


def test_a_classifier_and_counters_are_no_part_of_it():
    tensors = published(TINY) | {"_fc.weight": torch.zeros(1000, 12), "_fc.bias": torch.zeros(1000)}
    tensors["_bn0.num_batches_tracked"] = torch.tensor(7)
    TINY.build().load_published(tensors)


def test_training_and_measuring_are_alike():
    tower, pixels = TINY.build(), torch.randn(2, 3, 16, 8)
    mask = patch_mask_for(pixels, None, 4)
    assert torch.equal(tower.train()(pixels, mask).tokens_NPV, tower.eval()(pixels, mask).tokens_NPV)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="less than a patch"):
        replace(TINY, native_px=3)
    for wrong in ({"stride": 3}, {"kernel": 4}, {"blocks": 0}, {"expansion": 0}):
        with pytest.raises(ConfigError, match="impossible"):
            replace(TINY.stages[0], **wrong)
