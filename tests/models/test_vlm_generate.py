"""transformers' own `generate` with pictures: batched as one by one, beams, samples, streams."""

import pytest
import torch
from transformers import TextStreamer

from lensmith.models.connectors import MlpConnectorConfig, PerceiverConnectorConfig
from tests.support.tiny_vlm import IMAGE_TOKEN_ID

PERCEIVER = PerceiverConnectorConfig(latents=4, depth=2, heads=4, key_heads=2, head_width=8)


@pytest.fixture
def samples(picture):
    return [
        ([picture(40, 24, 1)], "<image>what?"),
        ([picture(20, 30, 2), picture(64, 8, 3)], "<image>and <image> compare"),
        ([], "no picture at all"),
        ([picture(8, 90, 4)], "a tall one: <image>"),
    ]


def together(processor, samples):
    return processor(images=[images for images, _ in samples], text=[text for _, text in samples])


def new_tokens(model, inputs, **settings):
    settings = {"max_new_tokens": 12, "do_sample": False} | settings
    return model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("connector", [MlpConnectorConfig(), PERCEIVER], ids=["mlp", "perceiver"])
@pytest.mark.parametrize("seed", range(3))
def test_a_batch_says_what_each_says_alone(make_model, processor, samples, connector, seed):
    model = make_model(seed=seed, connector=connector)
    processor.tokens_per_picture = connector.tokens_per_picture
    alone = [new_tokens(model, together(processor, [sample]))[0] for sample in samples]
    batched = new_tokens(model, together(processor, samples))
    for wanted, row in zip(alone, batched, strict=True):
        assert row[: len(wanted)] == wanted
    assert len({tuple(row) for row in alone}) == len(samples)


def test_beams_of_a_batch_are_the_beams_of_each(model, processor, samples):
    settings = {"num_beams": 3, "num_return_sequences": 2, "min_new_tokens": 8, "max_new_tokens": 8}
    alone = [row for sample in samples for row in new_tokens(model, together(processor, [sample]), **settings)]
    assert new_tokens(model, together(processor, samples), **settings) == alone


def test_samples_of_a_prompt_all_see_its_pictures_and_the_tower_runs_once(model, processor, samples):
    inputs = together(processor, samples[:2])
    calls = []
    hook = model.vision_tower.register_forward_hook(lambda _module, arguments, _result: calls.append(arguments[0]))
    settings = {"do_sample": True, "top_k": 1, "num_return_sequences": 3}
    rows = new_tokens(model, inputs, **settings)
    hook.remove()
    assert [len(pixels) for pixels in calls] == [3]
    greedy = new_tokens(model, inputs)
    assert rows == [greedy[0]] * 3 + [greedy[1]] * 3


@pytest.mark.parametrize("use_cache", [True, False])
def test_pictures_are_encoded_with_the_prompt_only(model, processor, samples, use_cache):
    inputs = together(processor, samples[:1])
    calls = []
    model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    tokens = new_tokens(model, inputs, max_new_tokens=5, min_new_tokens=5, use_cache=use_cache)
    assert len(calls) == (1 if use_cache else 5)
    assert tokens == new_tokens(model, inputs, max_new_tokens=5, min_new_tokens=5)


def test_the_placeholder_is_never_written(model, processor, samples):
    with torch.no_grad():
        model.get_output_embeddings().weight[IMAGE_TOKEN_ID] *= 50
    inputs = together(processor, samples[:1])
    assert model(**inputs).logits[0].argmax(-1).eq(IMAGE_TOKEN_ID).any()
    for settings in ({}, {"do_sample": True}, {"num_beams": 2}):
        assert IMAGE_TOKEN_ID not in new_tokens(model, inputs, max_new_tokens=20, **settings)[0]


def test_text_streams(model, processor, samples):
    pieces = []

    class Collector(TextStreamer):
        def on_finalized_text(self, text, stream_end=False):
            pieces.append(text)

    inputs = together(processor, samples[:1])
    streamer = Collector(processor.tokenizer, skip_prompt=True)
    tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False, streamer=streamer)
    assert "".join(pieces) == processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :])


def test_text_alone_needs_no_picture(model, processor):
    inputs = processor(text=["hello", "a longer text"])
    assert set(inputs) == {"input_ids", "attention_mask"}
    rows = new_tokens(model, inputs)
    assert rows[0] == new_tokens(model, processor(text=["hello"]))[0]
