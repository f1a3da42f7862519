import ast
import inspect
from pathlib import Path

import pytest
import torch

from lensmith.core.errors import InputError, ShapeError
from lensmith.models import vlm
from lensmith.models.connectors import PerceiverConnectorConfig
from lensmith.models.towers import PICTURE_INPUTS
from lensmith.models.vlm import next_token_loss
from tests.support.tiny_vlm import IMAGE_TOKEN_ID, tiny_llama

TIGHT = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def batch(processor, picture):
    """Two samples of unlike length; the second has two pictures of unlike sizes."""
    return processor(
        images=[[picture(40, 24, 1)], [picture(20, 30, 2), picture(64, 8, 3)]],
        text=["<image>a", "<image>and<image>"],
        targets=["red", "a longer answer"],
        padding_side="right",
    )


def reference_loss(logits, labels):
    """Cross-entropy written out, one position after the other."""
    terms = [
        -torch.log_softmax(logits[row, at].double(), -1)[labels[row, at + 1]]
        for row in range(labels.shape[0])
        for at in range(labels.shape[1] - 1)
        if labels[row, at + 1] != -100
    ]
    return torch.stack(terms)


def test_the_loss_is_the_mean_over_labels_of_the_next_token(model, batch):
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    terms = reference_loss(model(**inputs).logits, labels)
    assert len(terms) == int((labels != -100).sum())

    short = model(**batch)
    full = model(**batch, return_logits=True)

    assert short.logits is None
    assert full.logits.shape == (*labels.shape, 260)
    torch.testing.assert_close(short.loss.double(), terms.mean(), **TIGHT)
    torch.testing.assert_close(full.loss.double(), terms.mean(), **TIGHT)
    torch.testing.assert_close(model(**batch, num_items_in_batch=7).loss.double(), terms.sum() / 7, **TIGHT)


def test_both_ways_to_the_loss_give_the_same_gradients(make_model, batch):
    gradients = []
    for return_logits in (False, True):
        model = make_model().train()
        model(**batch, return_logits=return_logits).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradient, gradients[1][name], **TIGHT)


def test_without_any_label_the_loss_is_zero_and_has_a_gradient(model, batch):
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = model(**batch).loss
    loss.backward()
    assert loss.item() == 0


def test_the_loss_is_float32_in_bfloat16(model, batch):
    loss = model.to(torch.bfloat16)(**batch).loss
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_logits_and_labels_of_unlike_number_are_refused():
    with pytest.raises(ShapeError, match="differ in number"):
        next_token_loss(torch.zeros(3, 5), torch.tensor([[1, 2, -100]]))


def test_padding_on_either_side_changes_nothing(model, processor, picture):
    samples = [([picture(40, 24, 1)], "<image>a", "red"), ([picture(20, 30, 2)], "<image>b", "a longer answer")]
    alone = [processor(images=[images], text=[text], targets=[target]) for images, text, target in samples]
    expected = [model(**inputs, return_logits=True).logits[0] for inputs in alone]
    for side in ("left", "right"):
        images, texts, targets = zip(*samples, strict=True)
        together = processor(images=list(images), text=list(texts), targets=list(targets), padding_side=side)
        logits = model(**together, return_logits=True).logits
        for row, wanted in enumerate(expected):
            torch.testing.assert_close(logits[row][together["attention_mask"][row] == 1], wanted, **TIGHT)


def test_a_mask_that_hides_only_the_right_end_is_not_built(model, batch, monkeypatch):
    seen = []
    original = model.language_model.forward

    def spy(*arguments, **named):
        seen.append(named["attention_mask"])
        return original(*arguments, **named)

    monkeypatch.setattr(model.language_model, "forward", spy)
    model(**batch)
    assert batch["attention_mask"].min() == 0
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    model(**inputs)
    left = batch["attention_mask"].flip(1)
    model(**(batch | {"attention_mask": left}))
    assert seen[0] is None
    assert torch.equal(seen[1], batch["attention_mask"])
    assert torch.equal(seen[2], left)


def test_what_is_cached_gives_what_is_computed_anew(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    inputs = {name: value[:1] for name, value in inputs.items()}
    whole = model(**inputs).logits
    cut = inputs["input_ids"].shape[1] - 3
    first = model(
        **(inputs | {name: inputs[name][:, :cut] for name in ("input_ids", "attention_mask")}), use_cache=True
    )
    second = model(
        input_ids=inputs["input_ids"][:, cut:],
        attention_mask=inputs["attention_mask"],
        past_key_values=first.past_key_values,
    )
    torch.testing.assert_close(torch.cat([first.logits, second.logits], dim=1), whole, **TIGHT)


def test_a_picture_changes_what_is_said_and_the_order_of_pictures_matters(model, processor, picture):
    one, two = picture(24, 24, 1), picture(24, 24, 2)
    texts = ["<image>and<image>"]
    logits = [model(**processor(images=[order], text=texts)).logits[0, -1] for order in ([one, two], [two, one])]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


def test_pictures_may_come_encoded_already(model, batch):
    features = model.get_image_features(batch["pixel_values"], batch["patch_mask"])
    assert features.counts_N.tolist() == batch["patch_mask"].sum(dim=(1, 2)).tolist()
    expected = model(**batch)
    encoded = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    actual = model(**encoded, image_features=features.features_FL)
    torch.testing.assert_close(actual.loss, expected.loss)
    torch.testing.assert_close(actual.image_features, expected.image_features)


def test_embeddings_may_be_given_in_place_of_ids(model):
    ids = torch.tensor([[1, 5, 6]])
    expected = model(input_ids=ids).logits
    torch.testing.assert_close(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, expected)


def test_what_cannot_be_read_is_refused(model, batch):
    ids, pixels = batch["input_ids"], batch["pixel_values"]
    with pytest.raises(ShapeError, match="placeholders and image features differ"):
        model(input_ids=ids, pixel_values=pixels)  # without patch_mask the padding counts too
    with pytest.raises(ShapeError, match="no pictures"):
        model(input_ids=ids)
    with pytest.raises(InputError, match="twice"):
        model(input_ids=ids, pixel_values=pixels, image_features=torch.zeros(1, 32))
    with pytest.raises(InputError, match="nothing to read"):
        model(attention_mask=batch["attention_mask"])
    with pytest.raises(InputError, match="which say where they stand"):
        model(inputs_embeds=torch.zeros(1, 3, 32), pixel_values=pixels)
    with pytest.raises(ShapeError, match="multiples of 8"):
        model(input_ids=ids, pixel_values=torch.zeros(1, 3, 12, 16))
    with pytest.raises(ShapeError, match="patch_mask does not fit"):
        model(input_ids=ids, pixel_values=pixels, patch_mask=batch["patch_mask"][:, :1])


def test_gradient_checkpointing_gives_the_same_gradients(make_model, batch):
    gradients = []
    for checkpointing in (False, True):
        model = make_model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model(**batch).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, **TIGHT)


def test_hidden_states_are_those_of_the_language_model(model, batch):
    outputs = model(**batch, output_hidden_states=True)
    assert len(outputs.hidden_states) == 3
    assert outputs.hidden_states[0].shape == (*batch["input_ids"].shape, 32)


def test_the_vocabulary_can_grow(make_model):
    model = make_model(language=tiny_llama(tie_word_embeddings=True))
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    before = model(input_ids=torch.tensor([[1, 5, 6]])).logits
    model.resize_token_embeddings(270)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.get_text_config().vocab_size == 270
    after = model(input_ids=torch.tensor([[1, 5, 6]])).logits
    assert after.shape[-1] == 270
    torch.testing.assert_close(after[..., :260], before, **TIGHT)
    assert model(input_ids=torch.tensor([[1, 265]]), labels=torch.tensor([[-100, 265]])).loss.isfinite()


def test_constructors_decide_how_weights_start(make_model):
    model = make_model(connector=PerceiverConnectorConfig(latents=4, heads=4, key_heads=2, head_width=8))
    # transformers' own default would have made all of these standard deviations equal.
    assert 0.01 < model.connector.latents.std() < 0.04
    assert model.connector.project.gate.weight.std() > 0.05
    assert model.connector.norm.weight.eq(1).all()


def test_the_same_seed_gives_the_same_model(make_model):
    one, same, other = make_model(seed=1), make_model(seed=1), make_model(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_padding_beside_a_picture_has_no_influence(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    expected = model(**inputs).logits
    padding = ~batch["patch_mask"].repeat_interleave(8, dim=1).repeat_interleave(8, dim=2).unsqueeze(1)
    assert padding.any()
    changed = torch.where(padding, 5.0, batch["pixel_values"])
    torch.testing.assert_close(model(**(inputs | {"pixel_values": changed})).logits, expected, **TIGHT)


def test_ids_name_the_placeholder(model):
    assert model.config.image_token_id == IMAGE_TOKEN_ID
    assert model.generation_config.suppress_tokens == [IMAGE_TOKEN_ID]


def test_what_comes_of_pictures_is_opened_by_processor_and_tower_only():
    folder = Path(vlm.__file__).parent
    files = [folder / "vlm.py", folder / "splice.py", *folder.glob("inference/*.py"), *folder.glob("scoring/*.py")]
    assert len(files) > 10
    for file in files:
        words = {
            getattr(node, field)
            for node in ast.walk(ast.parse(file.read_text()))
            for field in ("id", "arg", "attr", "value")
            if isinstance(getattr(node, field, None), str)
        }
        assert not words & set(PICTURE_INPUTS), file


def test_generation_and_trainers_find_the_picture_inputs_in_the_signature(model, processor, picture):
    assert set(PICTURE_INPUTS) <= inspect.signature(model.forward).parameters.keys()
    inputs = processor(images=[picture(16, 16, 1)], text=["<image>what?"])
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[0] == 1
    with pytest.raises(ValueError, match="tile_counts"):
        model.generate(**inputs, tile_counts=torch.tensor([1]), max_new_tokens=2)
