import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lensmith.core.errors import ConfigError, InputError
from lensmith.models import PictureConfig, VisionLanguageProcessor
from lensmith.models.connectors import PerceiverConnectorConfig
from tests.support.tiny_vlm import IMAGE_TOKEN_ID

PICTURES = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96)


def test_one_placeholder_a_patch_and_padding_on_the_left(processor, picture):
    inputs = processor(
        images=[[picture(24, 16)], [picture(8, 8), picture(16, 8)]], text=["<image>abc", "x<image><image>"]
    )
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (2, 9)
    assert (inputs["input_ids"] == IMAGE_TOKEN_ID).sum(dim=1).tolist() == [6, 3]
    assert inputs["attention_mask"].tolist() == [[1] * 9, [0] * 5 + [1] * 4]
    assert inputs["input_ids"][1, :5].eq(0).all()
    assert inputs["pixel_values"].shape == (3, 3, 16, 24)
    assert inputs["patch_mask"].dtype == torch.bool
    assert inputs["patch_mask"].sum(dim=(1, 2)).tolist() == [6, 1, 2]


def test_placeholders_stand_where_the_text_says(processor, picture):
    inputs = processor(images=[picture(16, 8)], text="ab<image>cd")
    assert processor.tokenizer.decode(inputs["input_ids"][0]) == "ab<image><image>cd"


def test_a_flat_list_is_shared_out_by_the_placeholders(processor, picture):
    pictures = [picture(8, 8, seed) for seed in range(3)]
    texts = ["<image>a", "b", "<image><image>c"]
    flat = processor(images=pictures, text=texts)
    nested = processor(images=[pictures[:1], [], pictures[1:]], text=texts)
    assert all(torch.equal(flat[name], nested[name]) for name in nested)
    single = processor(images=pictures[0], text="<image>a")
    assert torch.equal(single["pixel_values"], flat["pixel_values"][:1])


def test_dropped_patches_have_no_placeholder(processor, picture):
    processor.pictures = PictureConfig(patch_px=8, max_width_px=64, max_height_px=96, drop_repeated_patches=True)
    page = np.full((32, 32, 3), 255, dtype=np.uint8)
    inputs = processor(images=[page], text="<image>")
    assert inputs["input_ids"].shape == (1, 2)
    assert inputs["patch_mask"].shape == (1, 4, 4)


def test_a_connector_with_a_fixed_number_gets_that_number(make_config, tokenizer, picture):
    config = make_config(connector=PerceiverConnectorConfig(latents=5))
    processor = VisionLanguageProcessor.for_model(config, tokenizer, PICTURES)
    inputs = processor(images=[picture(24, 16), picture(8, 8)], text="<image><image>")
    assert inputs["input_ids"].shape == (1, 10)


@pytest.mark.parametrize("side", ["left", "right"])
def test_labels_are_the_target_and_the_end_of_text(processor, picture, side):
    inputs = processor(
        images=[[picture(16, 8)], []], text=["<image>q", "why"], targets=["yes", "because"], padding_side=side
    )
    assert inputs["labels"].shape == inputs["input_ids"].shape == (2, 11)
    for row, (prompt, target) in enumerate([("<image><image>q", "yes"), ("why", "because")]):
        real = inputs["attention_mask"][row] == 1
        ids, labels = inputs["input_ids"][row][real], inputs["labels"][row][real]
        assert processor.tokenizer.decode(ids) == prompt + target + "</s>"
        assert processor.tokenizer.decode(labels[labels != -100]) == target + "</s>"
        assert labels[: -len(target) - 1].eq(-100).all()
        assert inputs["labels"][row][~real].eq(-100).all()
        assert real[0 if side == "right" else -1]


def test_pictures_alone_and_text_alone(processor, picture):
    assert set(processor(images=[picture(8, 8)])) == {"pixel_values", "patch_mask"}
    assert set(processor(text="abc")) == {"input_ids", "attention_mask"}
    with pytest.raises(InputError, match="nothing to prepare"):
        processor()


def test_plain_lists_can_be_had(processor):
    assert processor(text=["ab", "c"], return_tensors=None)["attention_mask"] == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("counts", "texts", "said"),
    [
        ([1, 1], ["<image>", "<image><image>"], ["sample 1", "expected: 2 pictures", "actual:   1 pictures"]),
        ([1, 0], ["<image>", "<image>"], ["sample 1", "expected: 1 pictures", "actual:   0 pictures"]),
        ([1], ["no placeholder"], ["sample 0", "expected: 0 pictures", "actual:   1 pictures"]),
        ([1, 1, 1], ["<image>", "<image>"], ["expected: 2", "actual:   3"]),
        (3, ["<image>", "<image>"], ["expected: 2 pictures", "[1, 1] a sample", "actual:   3 pictures"]),
        (None, ["<image>"], ["sample 0", "expected: 1 pictures", "actual:   0 pictures"]),
    ],
)
def test_a_mismatch_of_pictures_and_text_names_both_counts(processor, picture, counts, texts, said):
    one = picture(8, 8)
    images = None if counts is None else [one] * counts if isinstance(counts, int) else [[one] * n for n in counts]
    with pytest.raises(InputError) as caught:
        processor(images=images, text=texts)
    for part in said:
        assert part in str(caught.value)


def test_truncation_may_not_cut_into_a_picture(processor, picture):
    with pytest.raises(InputError) as caught:
        processor(images=[picture(32, 32)], text="<image>abc", truncation=True, max_length=10)
    assert "16 placeholders" in str(caught.value)
    assert "10 placeholders" in str(caught.value)


def test_other_media_are_refused(processor):
    with pytest.raises(InputError, match="videos"):
        processor(text="a", videos=["clip.mp4"])


def test_processor_and_model_must_agree(make_config, tokenizer):
    with pytest.raises(ConfigError, match="differ in the patch"):
        VisionLanguageProcessor.for_model(make_config(), tokenizer, PictureConfig(patch_px=16))
    config = make_config()
    config.image_token_id = 7
    with pytest.raises(ConfigError, match="differ in the image placeholder"):
        VisionLanguageProcessor.for_model(config, tokenizer, PICTURES)
    with pytest.raises(ConfigError, match="does not know the image placeholder"):
        VisionLanguageProcessor(tokenizer, PICTURES, image_token="<picture>")  # noqa: S106


def test_a_tokenizer_needs_an_end_and_a_padding_token(tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>")  # noqa: S106
    with pytest.raises(ConfigError, match="no pad_token"):
        VisionLanguageProcessor(bare, PICTURES)


def test_conversations_become_prompts(processor, picture):
    processor.chat_template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}"
    )
    content = [{"type": "image", "image": picture(16, 8)}, {"type": "text", "text": "what?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert processor.tokenizer.decode(inputs["input_ids"][0]) == "<image><image>what?"
    assert torch.equal(inputs["pixel_values"], processor(images=[picture(16, 8)])["pixel_values"])
