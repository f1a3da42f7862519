"""A tiny model of the make: it learns, it is saved and recognised, and it answers."""

import json
from dataclasses import replace

import pytest
import torch

from lensmith.core.endpoint import Request
from lensmith.core.types import Message, Picture
from lensmith.models import VisionLanguageModel
from lensmith.models.connectors import AttentionPoolConnectorConfig, CAbstractorConfig, PoolConnectorConfig
from lensmith.models.families import registry
from lensmith.models.families.mm1 import TOY, Mm1Processor, is_mm1, mm1_toy_config
from lensmith.models.families.mm1.processor import tiny_tokenizer
from lensmith.models.inference.endpoint import LocalEndpoint
from lensmith.models.inference.loading import load_answering
from lensmith.models.language.experts import ExpertsConfig
from tests.support.tiny_deepseek import save_own, tiny_model

PARTS = {
    "c_abstractor": TOY,
    "pool": replace(TOY, connector=PoolConnectorConfig(side=2)),
    "attention_pool": replace(TOY, connector=AttentionPoolConnectorConfig(queries=5, heads=2, head_width=8)),
    "experts": replace(TOY, decoder=replace(TOY.decoder, experts=ExpertsConfig(count=4))),
}
FAMILY = registry.FAMILIES["mm1"]


@pytest.fixture(params=PARTS)
def made(request):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    config = mm1_toy_config(tokenizer, PARTS[request.param])
    model = VisionLanguageModel(config).eval()
    return model, Mm1Processor.for_model(config, tokenizer)


def test_what_is_saved_is_recognised_and_comes_back(made, picture, tmp_path):
    model, processor = made
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert registry.family_of(tmp_path) is FAMILY
    again, reader = FAMILY.load(tmp_path)
    assert again.config == model.config
    assert (type(reader), reader.to_dict()) == (Mm1Processor, processor.to_dict())
    given = {"images": [picture(70, 40), picture(30, 64)], "text": ["<image>a", "<image>bc"]}
    with torch.no_grad():
        expected, actual = model(**processor(**given)).logits, again(**reader(**given)).logits
    assert torch.equal(actual, expected)


def test_all_parts_learn(made, picture):
    model, processor = made
    inputs = processor(images=[picture(70, 40), picture(30, 64)], text=["<image>"] * 2, targets=["a cat", "b"])
    model(**inputs).loss.backward()
    silent = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum()]
    # The bias of keys moves all attention logits of a query alike, which softmax does not see.
    assert [name for name in silent if "k_proj.bias" not in name] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_it_answers_in_every_precision(made, picture, tmp_path, dtype):
    model, processor = made
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    endpoint = LocalEndpoint.around(load_answering(tmp_path, dtype=dtype), slots=3)
    requests = []
    for number, words in enumerate(("What?", "", "A longer question: what is it?")):
        picture(30 + number, 20, number).save(tmp_path / "one.png")
        parts = (Picture(data=(tmp_path / "one.png").read_bytes()), words)
        requests.append(Request(messages=(Message(role="user", parts=parts),), max_tokens=8, temperature=0.0))
    together = endpoint.answer(requests)
    assert all(answer.choices[0].token_ids_T.size for answer in together)
    if dtype is torch.float32:
        for request, answer in zip(requests, together, strict=True):
            alone = endpoint.answer([request])[0]
            assert alone.choices[0].token_ids_T.tolist() == answer.choices[0].token_ids_T.tolist()


def test_higher_resolution_gives_as_many_tokens_of_the_same_model(made, picture):
    model, processor = made
    processor.pictures = replace(processor.pictures, image_px=96)
    inputs = processor(images=picture(70, 40), text="<image>")
    assert inputs["pixel_values"].shape == (1, 3, 96, 96)
    with torch.no_grad():
        assert model(**inputs).image_features.shape[0] == processor.tokens_per_picture


def test_other_models_are_not_taken_for_this_make(made, tmp_path):
    model, processor = made
    assert not is_mm1(tmp_path)
    assert not is_mm1(save_own(tmp_path / "deepseek", tiny_model("mlp")))
    model.config.save_pretrained(tmp_path)
    assert not is_mm1(tmp_path), "no processor"
    processor.save_pretrained(tmp_path)
    assert is_mm1(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    values["connector"] = {"kind": "mlp"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert not is_mm1(tmp_path)


def test_the_tiny_model_is_asked_about_a_picture_and_sees_it(picture, tmp_path):
    assert FAMILY.tiny is not None
    model, processor = FAMILY.tiny()
    assert isinstance(model.config.connector, CAbstractorConfig)
    assert sum(weight.numel() for weight in model.parameters()) < 1_000_000
    model.save_pretrained(tmp_path / "tiny")
    processor.save_pretrained(tmp_path / "tiny")
    prompts = load_answering(tmp_path / "tiny").prompts
    picture(30, 20).save(tmp_path / "one.png")
    question = Message(role="user", parts=(Picture(data=(tmp_path / "one.png").read_bytes()), "What?"))
    prompt = prompts.prompt(Request(messages=(question,)))
    assert prompts.tokenizer.decode(prompt.token_ids_P) == "<s>" + 16 * "<image>" + "What?"
    assert len(prompt.pictures) == 1
    with torch.no_grad():
        one, two = (model(**processor(images=picture(64, 64, seed), text="<image>")).logits for seed in (0, 1))
    assert (one - two).abs().max() > 1e-4
