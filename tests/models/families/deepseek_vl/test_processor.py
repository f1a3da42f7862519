"""The processor, and what a model makes of it. The original's own numbers are in tests/parity."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.processors import ByteLevel
from transformers import AutoProcessor, AutoTokenizer

from lensmith.core.endpoint import Request
from lensmith.core.errors import CheckpointError, ConfigError, ImageError, InputError
from lensmith.core.types import Message, Picture
from lensmith.models import PictureConfig, VisionLanguageModel
from lensmith.models.families.deepseek_vl.config import deepseek_vl_config, tiny_config
from lensmith.models.families.deepseek_vl.options import Decoding, Exactness
from lensmith.models.families.deepseek_vl.pictures import DeepseekPictureConfig
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.tokenizer import BEGIN, END, IMAGE, load_tokenizer, tiny_tokenizer
from lensmith.models.inference.endpoint import LocalEndpoint
from lensmith.models.inference.prompts import PicturePrompts

TOKENS = 16
FAMILIES = [("mlp", "original"), ("mlp", "transformers"), ("hybrid", "original"), ("hybrid", "transformers")]


def make(family="mlp", exact="original"):
    config = tiny_config(family, exact=Exactness(exact))
    return config, DeepseekVlProcessor.for_model(config, tiny_tokenizer(), exact=exact)


@pytest.fixture
def processor():
    return make()[1]


def noise(seed=0, width_px=70, height_px=50):
    pixels = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("family", "exact"), FAMILIES)
def test_it_fits_its_model(family, exact):
    config, processor = make(family, exact)
    torch.manual_seed(0)
    model = VisionLanguageModel(config).eval()
    one = [{"role": "user", "content": [noise(1), "What?"]}]
    two = [{"role": "user", "content": ["And ", noise(2), " beside ", noise(3), "?"]}]
    inputs = processor.chat([one, two])
    assert set(inputs) == set(processor.model_input_names)
    assert (inputs["input_ids"] == 3).sum(dim=1).tolist() == [TOKENS, 2 * TOKENS]
    assert inputs["attention_mask"][0, 0] == 0
    assert ("low_pixel_values" in inputs) == (family == "hybrid" and exact == "transformers")
    with torch.no_grad():
        batch = model(**inputs).logits[:, -1]
        alone = torch.cat([model(**processor.chat(each)).logits[:, -1] for each in (one, two)])
    torch.testing.assert_close(batch, alone, rtol=0, atol=1e-5)


def test_the_published_models_have_576_tokens_a_picture():
    for size, exact in [("1.3b", "original"), ("7b", "original"), ("7b", "transformers")]:
        config = deepseek_vl_config(size, exact=Exactness(exact))
        config.image_token_id = 3
        processor = DeepseekVlProcessor.for_model(config, tiny_tokenizer(), exact=exact)
        assert processor.tokens_per_picture == 576
        assert processor.pictures.image_px == {"1.3b": 384, "7b": 1024}[size]
        assert processor.pictures.background == {"1.3b": (127,) * 3, "7b": (122, 116, 104)}[size]
        assert processor.pictures.normalises == ((size, exact) != ("7b", "original"))


def test_pictures_stand_where_the_parts_say(processor):
    parts = ["a ", noise(), {"type": "image", "image": noise()}, {"type": "text", "text": "b"}]
    text = processor.tokenizer.decode(processor.chat([{"role": "user", "content": parts}])["input_ids"][0])
    assert text.endswith(f"User: a {IMAGE * 2 * TOKENS}b\n\nAssistant:")
    assert text.startswith(f"{BEGIN}You are a helpful")


def test_every_way_to_give_a_picture_is_the_same(processor, tmp_path):
    file = tmp_path / "a.png"
    noise().save(file)
    url = f"data:image/png;base64,{base64.b64encode(png(noise())).decode()}"
    contents = [
        [noise(), "x"],
        [png(noise()), "x"],
        [file, "x"],
        [np.asarray(noise()), "x"],
        [Picture(data=png(noise())), "x"],
        [{"type": "image", "image": noise()}, {"type": "text", "text": "x"}],
        [{"type": "image", "path": str(file)}, "x"],
        [{"type": "image", "url": str(file)}, "x"],
        [{"type": "image_url", "image_url": {"url": url}}, "x"],
    ]
    conversations = [[{"role": "user", "content": content}] for content in contents]
    conversations.append([{"role": "User", "content": f"{IMAGE}x", "images": [str(file)]}])
    conversations.append([{"role": "User", "content": f"{IMAGE}x", "images": str(file)}])
    conversations.append([Message(role="user", parts=(Picture(data=png(noise())), "x"))])
    inputs = processor.chat(conversations)
    assert len(inputs["pixel_values"]) == len(conversations)
    assert (inputs["pixel_values"] == inputs["pixel_values"][:1]).all()
    assert (inputs["input_ids"] == inputs["input_ids"][:1]).all()


def test_strings_are_read_in_both_formats():
    for exact in ("original", "transformers"):
        prompt = make(exact=exact)[1].apply_chat_template(
            [{"role": "user", "content": "Hello"}], add_generation_prompt=True
        )
        assert prompt.endswith("\n\nUser: Hello\n\nAssistant:")


def test_apply_chat_template_is_that_of_transformers_processors(processor):
    conversation = [{"role": "user", "content": [{"type": "image", "image": noise()}, {"type": "text", "text": "x"}]}]
    prompts = processor.apply_chat_template([conversation, conversation], add_generation_prompt=True)
    assert prompts == [processor.apply_chat_template(conversation, add_generation_prompt=True)] * 2
    inputs = processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    )
    same = processor(images=[[noise()]], text=prompts[0])
    assert all(torch.equal(inputs[name], same[name]) for name in same)
    with pytest.raises(ConfigError, match="tools"):
        processor.apply_chat_template(conversation, tools=[])


def test_a_prompt_alone_needs_no_pictures(processor):
    parts = [{"type": "image"}, {"type": "text", "text": "x"}]
    for content in (parts, f"{IMAGE}x"):
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        assert prompt.endswith(f"User: {IMAGE}x\n\nAssistant:")
        assert (processor(images=noise(), text=prompt)["input_ids"] == 3).sum() == TOKENS


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda p: p(images=[[noise()], []], text=[IMAGE, f"{IMAGE} and {IMAGE}"]),
            ["sample 1", "expected: 2 pictures", "actual:   0 pictures", f"write one {IMAGE} where each picture"],
        ),
        (
            lambda p: p.chat([[{"role": "user", "content": "a"}], [{"role": "user", "content": f"{IMAGE}b"}]]),
            ["sample 1, message 0", "expected: 1 pictures", "actual:   0 pictures"],
        ),
        (
            lambda p: p.chat([{"role": "user", "content": [noise(), f"{IMAGE} literally"]}]),
            ["sample 0", "expected: 2 pictures", "actual:   1 pictures"],
        ),
        (
            lambda p: p.chat([{"role": "user", "content": IMAGE, "images": [noise(), noise()]}]),
            ["expected: 1 pictures", "actual:   2 pictures"],
        ),
        (lambda p: p.chat([{"role": "user", "content": [{"type": "image"}]}]), ["message 0: a part has no picture"]),
        (lambda p: p.chat([]), ["sample 0: a conversation without messages"]),
        (lambda p: p.chat([{"role": "tool", "content": "a"}]), ["message 0: unknown role", "tool"]),
        (lambda p: p.chat([{"role": "user", "content": [{"type": "video"}]}]), ["a part cannot be read", "video"]),
        (lambda p: p.chat([{"role": "user", "content": 3}]), ["content cannot be read"]),
        (
            lambda p: p.chat([{"role": "user", "content": [{"type": "image", "url": "https://x.org/a.png"}]}]),
            ["pictures are not fetched"],
        ),
        (
            lambda p: p.chat([{"role": "user", "content": [{"type": "image", "url": "data:image/png,xx"}]}]),
            ["data URL cannot be read"],
        ),
    ],
)
def test_what_makes_no_sense_is_named(processor, call, said):
    with pytest.raises(InputError) as caught:
        call(processor)
    for part in said:
        assert part in str(caught.value)


def test_a_missing_picture_is_named(processor):
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        processor.chat([{"role": "user", "content": [{"type": "image", "path": "nowhere.png"}]}])


@pytest.mark.parametrize(("family", "exact"), FAMILIES)
def test_it_is_saved_and_found_again(family, exact, tmp_path):
    _, processor = make(family, exact)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is DeepseekVlProcessor
    assert (again.pictures, again.tokens_per_picture, again.exact) == (processor.pictures, TOKENS, Exactness(exact))
    conversation = [{"role": "user", "content": [noise(), "x"]}]
    ours, theirs = processor.chat(conversation), again.chat(conversation)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_processor_and_model_must_agree():
    config = tiny_config("hybrid")
    with pytest.raises(ConfigError, match="whose numbers"):
        DeepseekVlProcessor.for_model(config, tiny_tokenizer(), exact="transformers")
    for pictures in (DeepseekPictureConfig(image_px=128), DeepseekPictureConfig.hybrid(), PictureConfig()):
        with pytest.raises(ConfigError, match="do not fit the tower"):
            DeepseekVlProcessor.for_model(config, tiny_tokenizer(), pictures)
    with pytest.raises(ConfigError, match="do not fit the tower"):
        DeepseekVlProcessor.for_model(
            tiny_config("mlp"), tiny_tokenizer(), DeepseekPictureConfig(image_px=64), exact="transformers"
        )
    pictures = DeepseekPictureConfig(image_px=64, decoding=Decoding.AS_SEEN, exact=Exactness.TRANSFORMERS)
    assert DeepseekVlProcessor.for_model(tiny_config("mlp"), tiny_tokenizer(), pictures).pictures == pictures
    config.image_token_id = 9
    with pytest.raises(ConfigError, match="differ in the image placeholder"):
        DeepseekVlProcessor.for_model(config, tiny_tokenizer())


# --- the tokenizer ------------------------------------------------------------------------------------------------


def published(folder, **settings):
    """A folder as the published ones are: byte-level, the first token left to the class that the settings name."""
    tiny_tokenizer().save_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = ByteLevel(trim_offsets=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"content": BEGIN, "__type": "AddedToken", "lstrip": False, "rstrip": False, "normalized": True}
    values = {"add_bos_token": True, "bos_token": named, "eos_token": END, "tokenizer_class": "LlamaTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(values | settings))
    return folder


def test_a_published_tokenizer_puts_its_first_token_and_no_last_one(tmp_path):
    tokenizer = load_tokenizer(published(tmp_path))
    text = "User: héllo\n\nAssistant:"
    assert tokenizer(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]
    assert tokenizer("a")["input_ids"][0] == 1
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.padding_side) == (END, END, "left")


def test_transformers_leaves_the_first_token_out(tmp_path):
    """Why `load_tokenizer` is needed. Where this fails, transformers has mended it."""
    assert AutoTokenizer.from_pretrained(published(tmp_path, eos_token=END))("a")["input_ids"][0] != 1


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match="no <s>"):
        load_tokenizer(published(tmp_path, bos_token="<s>"))  # noqa: S106
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a tokenizer"):
        load_tokenizer(tmp_path)


# --- prompts of requests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "exact"), FAMILIES)
def test_a_request_is_read_as_the_processor_reads_the_conversation(family, exact):
    config, processor = make(family, exact)
    torch.manual_seed(0)
    model = VisionLanguageModel(config).eval()
    messages = (
        Message(role="system", parts=("Be short.",)),
        Message(role="user", parts=(Picture(data=png(noise(1))), "What?")),
        Message(role="assistant", parts=("That.",)),
        Message(role="user", parts=("And ", Picture(data=png(noise(2))), "?")),
    )
    inputs = processor.chat(messages)
    prompt = PicturePrompts(processor).prompt(Request(messages=messages))
    assert prompt.token_ids_P.tolist() == inputs["input_ids"][0].tolist()
    expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, prompt.length :].tolist()
    endpoint = LocalEndpoint(model, processor)
    [answer] = endpoint.answer([Request(messages=messages, max_tokens=12, temperature=0.0)])
    assert answer.choices[0].token_ids_T.tolist() == expected


def test_a_placeholder_in_a_request_is_refused():
    prompts = PicturePrompts(make()[1])
    with pytest.raises(InputError, match="placeholders and pictures differ"):
        prompts.prompt(Request(messages=(Message(role="user", parts=(f"a {IMAGE}",)),)))
    with pytest.raises(ImageError):
        prompts.prompt(Request(messages=(Message(role="user", parts=(Picture(data=b"text"),)),)))
