"""Learning to read: what the batches hold, in cases small enough to write down, and what each loss asks."""

import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from lensmith.core.errors import ConfigError, InputError
from lensmith.data.webpages.export import Columns, pack_boxes, write_shards
from lensmith.data.webpages.grammar.pages import generate_page
from lensmith.data.webpages.grammar.stylesheet import UTILITIES
from lensmith.data.webpages.markup.alignment import Alignment
from lensmith.models.config import IGNORED_LABEL
from lensmith.models.families.sightseer.processor import IMAGE, markup_pieces, train_tokenizer
from lensmith.models.pictures import PictureConfig
from lensmith.models.towers import SiglipTowerConfig
from lensmith.models.towers.conv import CELL_HEIGHT_PX, CELL_WIDTH_PX
from lensmith.recipes import recipe_named
from lensmith.recipes.sightseer import build_model
from lensmith.train import StepContext
from lensmith.train.objectives.reading import ReadingConfig, ReadingModel, character_loss, page_loss
from lensmith.train.objectives.reading_batches import (
    CHARACTER_CLASSES,
    CHARACTERS,
    ReadingBatches,
    ReadingPage,
    load_pages,
)

RECIPE = recipe_named("sightseer_test")
CONTEXT = StepContext(step=0, micro=0, total_steps=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["fun with 12 oxen, and a “zebra” & more"] * 3
    tags = re.findall(r"<([a-z0-9]+)", "".join(generate_page(8, index).html for index in range(50)))
    return train_tokenizer(texts, markup=markup_pieces(tags, UTILITIES), vocabulary_size=RECIPE.vocabulary_size)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    shards = write_shards(tmp_path_factory.mktemp("pages"), count=7, seed=8, shard_pages=4, columns=Columns.READING)
    return load_pages(shards.shards)


@pytest.fixture
def reader(tokenizer):
    return ReadingModel(build_model(RECIPE, tokenizer), RECIPE.reading)


def batches_of(pages, tokenizer, **changes):
    arguments = {"image_token_id": tokenizer.convert_tokens_to_ids(IMAGE), "batch_pages": 2, "seed": 3}
    picture = changes.pop("picture", RECIPE.picture)
    return ReadingBatches(pages, tokenizer, picture, **(arguments | changes))


def same(one, other) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else all(map(torch.equal, a, b)) and len(a) == len(b)
        for a, b in pairs
    )


# --- a page small enough to write down ----------------------------------------------------------------------------

SMALL = PictureConfig(patch_px=16, max_width_px=32, max_height_px=64)


def small_page(body, boxes, picture=None):
    """A page of 32 x 32 px; `boxes`: index in the body -> left, top, right, bottom."""
    stream = io.BytesIO()
    (picture or Image.effect_noise((32, 32), 90).convert("RGB")).save(stream, "PNG")
    boxes_C4 = np.zeros((len(body), 4), np.float32)
    for index, box in boxes.items():
        boxes_C4[index] = box
    alignment = Alignment(boxes_C4=boxes_C4, shown_C=boxes_C4[:, 2] > boxes_C4[:, 0])
    return ReadingPage(png=stream.getvalue(), body=body, boxes=pack_boxes(alignment))


BODY = "<p>123</p>"
BOXES = {
    **dict.fromkeys(range(3), (8, 4, 24, 12)),  # <p>, where its text begins
    3: (8, 4, 24, 12),  # 1: half in the upper left patch, half in the upper right one
    4: (4, 12, 12, 28),  # 2: a quarter in the upper left patch, three in the lower left one
    5: (20, 20, 30, 30),  # 3: all in the lower right patch
}


def test_a_sequence_is_patches_then_begin_then_the_body_then_end(tokenizer):
    batch = batches_of([small_page(BODY, BOXES)], tokenizer, picture=SMALL, batch_pages=1).batch_at(0, 0)
    image, begin, end = (tokenizer.convert_tokens_to_ids(token) for token in (IMAGE, "<|begin|>", "<|end|>"))
    body = tokenizer.convert_tokens_to_ids(["<p>", "1", "2", "3", "</p>"])
    padding = 64 - 4 - 7
    assert batch.input_ids_NS.tolist() == [[image] * 4 + [begin, *body, end] + [tokenizer.pad_token_id] * padding]
    assert batch.labels_NS.tolist() == [[IGNORED_LABEL] * 5 + [*body, end] + [IGNORED_LABEL] * padding]
    assert batch.target_tokens == 6
    assert batch.pixels_N3HW.shape == (1, 3, 64, 32)  # padded below to four rows of patches
    assert batch.patch_mask_NHpWp.tolist() == [[[True, True], [True, True], [False, False], [False, False]]]
    assert batch.pixels_N3HW[:, :, 32:].eq(0).all()


def test_pointers_are_the_share_of_a_token_that_each_patch_holds(tokenizer):
    batch = batches_of([small_page(BODY, BOXES)], tokenizer, picture=SMALL, batch_pages=1).batch_at(0, 0)
    assert batch.pointers[0].tolist() == [
        [0.5, 0.5, 0, 0],  # <p>
        [0.5, 0.5, 0, 0],  # 1
        [0.25, 0, 0.75, 0],  # 2
        [0, 0, 0, 1],  # 3
        [0, 0, 0, 0],  # </p> shows nowhere
        [0, 0, 0, 0],  # nor does the end
    ]
    assert batch.is_text[0].tolist() == [0, 1, 1, 1, 0, 0]


def test_patches_that_were_left_out_hold_nothing(tokenizer):
    # A plain picture: only its first and its last patch are kept.
    plain = small_page(BODY, BOXES, Image.new("RGB", (32, 32), (9, 9, 9)))
    sparse = replace(SMALL, drop_repeated_patches=True)
    batch = batches_of([plain], tokenizer, picture=sparse, batch_pages=1).batch_at(0, 0)
    assert batch.patch_mask_NHpWp[0].flatten()[:4].tolist() == [True, False, False, True]
    assert batch.pointers[0].tolist() == [[1, 0], [1, 0], [1, 0], [0, 1], [0, 0], [0, 0]]
    assert (batch.input_ids_NS == tokenizer.convert_tokens_to_ids(IMAGE)).sum() == 2


def test_a_piece_that_wraps_points_to_where_it_begins(tokenizer):
    # "ox" as one token, its x on the next line.
    assert tokenizer.tokenize("ox") == ["ox"]
    page = small_page("ox", {0: (20, 0, 28, 16), 1: (0, 16, 8, 32)})
    batch = batches_of([page], tokenizer, picture=SMALL, batch_pages=1).batch_at(0, 0)
    assert batch.pointers[0].tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]
    page = small_page("ox", {0: (12, 0, 16, 16), 1: (16, 0, 28, 16)})
    batch = batches_of([page], tokenizer, picture=SMALL, batch_pages=1).batch_at(0, 0)
    assert batch.pointers[0].tolist() == [[0.25, 0.75, 0, 0], [0, 0, 0, 0]]


def test_cells_are_labelled_by_character_and_ignored_below_the_page(tokenizer):
    batch = batches_of([small_page(BODY, BOXES)], tokenizer, picture=SMALL, batch_pages=1).batch_at(0, 0)
    one, two, three = (CHARACTERS.index(digit) + 1 for digit in "123")
    below = [IGNORED_LABEL] * 8
    assert batch.cells_Nhw[0].tolist() == [
        [0, 0, one, one, one, one, 0, 0],
        [0, two, two, 0, 0, 0, 0, 0],
        [0, two, two, 0, 0, three, three, 0],
        [0, 0, 0, 0, 0, three, three, 0],  # the middle of this row is where 2 ends
        *[below] * 4,
    ]


def test_characters_without_a_class_share_the_last_one(tokenizer):
    page = small_page("<p>漢</p>", {3: (0, 0, 32, 32)})
    batch = batches_of([page], tokenizer, picture=SMALL, batch_pages=1).batch_at(0, 0)
    assert batch.cells_Nhw[0, :4].eq(CHARACTER_CLASSES - 1).all()


def test_every_character_of_generated_pages_has_a_class():
    written = set("".join(generate_page(1, index).html for index in range(300)))
    assert {char for char in written if not char.isspace()} <= set(CHARACTERS)
    assert len(set(CHARACTERS)) == len(CHARACTERS) == CHARACTER_CLASSES - 2


# --- real pages in batches ----------------------------------------------------------------------------------------


def test_batches_of_real_pages_fit_together(pages, tokenizer, reader):
    batches = batches_of(pages, tokenizer)
    for index in range(batches.batches_per_epoch):
        batch = batches.batch_at(index, 0)
        count, _, height_px, width_px = batch.pixels_N3HW.shape
        assert batch.cells_Nhw.shape == (count, height_px // CELL_HEIGHT_PX, width_px // CELL_WIDTH_PX)
        assert batch.input_ids_NS.shape == batch.labels_NS.shape
        assert batch.input_ids_NS.shape[1] % 64 == 0
        assert height_px % 64 == 0
        for row in range(count):
            kept = int(batch.patch_mask_NHpWp[row].sum())
            assert (batch.input_ids_NS[row] == reader.model.config.image_token_id).sum() == kept
            shares = batch.pointers[row].sum(1)
            assert batch.pointers[row].shape == ((batch.labels_NS[row] != IGNORED_LABEL).sum(), kept)
            assert ((shares - 1).abs().lt(1e-5) | shares.eq(0)).all()
            # Text points somewhere, but for a space on plain ground, whose patch was left out, and the hints of form
            # fields, which are no text to a renderer.
            written = batch.labels_NS[row][batch.labels_NS[row] != IGNORED_LABEL]
            is_ink = torch.tensor([not tokenizer.decode(token).isspace() for token in written])
            hidden = (batch.is_text[row] > 0) & is_ink & shares.eq(0)
            if "placeholder" not in tokenizer.decode(written):
                assert not hidden.any(), tokenizer.decode(written[hidden])
            assert hidden.float().mean() < 0.2


def test_where_a_pointer_leads_there_is_ink(pages, tokenizer):
    batch = batches_of(pages, tokenizer).batch_at(0, 0)
    pixels = batch.pixels_N3HW[0].unfold(1, 16, 16).unfold(2, 16, 16)  # 3, Hp, Wp, 16, 16
    contrast = (pixels.amax((0, 3, 4)) - pixels.amin((0, 3, 4)))[batch.patch_mask_NHpWp[0]]
    best = batch.pointers[0].argmax(1)[(batch.is_text[0] > 0) & (batch.pointers[0].amax(1) > 0.5)]
    assert len(best) > 50
    assert (contrast[best] > 0.4).float().mean() > 0.97


def test_batches_are_a_pure_function_of_their_number(pages, tokenizer):
    one, other = batches_of(pages, tokenizer), batches_of(pages, tokenizer)
    forwards = [one.batch_at(step, 0) for step in range(7)]
    backwards = [other.batch_at(step, 0) for step in reversed(range(7))][::-1]
    assert all(map(same, forwards, backwards))
    assert same(one.batch_at(2, 0), forwards[2])
    assert not same(forwards[0], forwards[1])
    again = batches_of(pages, tokenizer, seed=4)
    assert not all(same(again.batch_at(step, 0), forwards[step]) for step in range(3))


def test_micro_batches_count_through_the_run(pages, tokenizer):
    whole, parts = batches_of(pages, tokenizer), batches_of(pages, tokenizer, accumulate=3)
    for step, micro in ((0, 0), (0, 2), (1, 1), (2, 2)):
        assert same(parts.batch_at(step, micro), whole.batch_at(step * 3 + micro, 0))


def test_an_epoch_holds_every_page_at_most_once_and_all_that_fill_a_batch(tokenizer):
    # Bodies tell pages apart; sizes differ, so that the order by size has work to do.
    pages = [small_page("1" * (index + 1), {0: (0, 0, 8, 8)}) for index in range(101)]
    batches = batches_of(pages, tokenizer, picture=SMALL, batch_pages=3)
    assert batches.batches_per_epoch == 33
    orders = []
    for epoch in range(2):
        seen = []
        for index in range(33):
            batch = batches.batch_at(epoch * 33 + index, 0)
            seen.append(tuple(len(pointers) - 1 for pointers in batch.pointers))
        lengths = [length for group in seen for length in group]
        assert len(set(lengths)) == len(lengths) == 99
        spreads = [max(group) - min(group) for group in seen]
        assert sum(spreads) / len(spreads) < 5  # pages of like size go together; at random it would be 50
        orders.append(seen)
    assert orders[0] != orders[1]


def test_pages_that_are_too_tall_are_left_out_and_too_few_are_refused(pages, tokenizer):
    lowest = min(page.height_px for page in pages)
    low = replace(RECIPE.picture, max_height_px=-(-lowest // 16) * 16)
    assert all(
        page.height_px <= low.max_height_px for page in batches_of(pages, tokenizer, picture=low, batch_pages=1).pages
    )
    with pytest.raises(InputError, match="too few pages") as caught:
        batches_of(pages, tokenizer, picture=low, batch_pages=8)
    assert "of 7" in str(caught.value)


def test_shards_without_boxes_are_refused(tmp_path):
    shards = write_shards(tmp_path, count=1, seed=8)
    with pytest.raises(InputError, match="has no boxes") as caught:
        load_pages(shards.shards)
    assert "--columns reading" in caught.value.hint
    with pytest.raises(InputError, match="no pages"):
        load_pages([])


# --- the losses ---------------------------------------------------------------------------------------------------


def test_the_character_loss_sees_each_cell_where_it_lies(reader):
    # The stem's first channels say the truth; the head passes them on.
    labels = torch.tensor([[[0, 5, 5], [7, 0, IGNORED_LABEL]]])
    cells = torch.zeros(1, reader.tower.config.stem_width, 2, 3)
    for row in range(2):
        for column in range(3):
            cells[0, max(int(labels[0, row, column]), 0), row, column] = 50.0
    with torch.no_grad():
        reader.character_head.weight.copy_(torch.eye(*reader.character_head.weight.shape))
        reader.character_head.bias.zero_()
    told = reader.character_loss(cells, labels)
    assert told.loss < 1e-6
    assert told.right == 1
    moved = reader.character_loss(cells.roll(1, dims=3), labels)
    assert moved.loss > 10
    assert moved.right < 1


def test_empty_cells_count_less_and_cells_beyond_the_page_not_at_all(reader):
    with torch.no_grad():
        reader.character_head.weight.zero_()
        reader.character_head.bias.zero_()
        reader.character_head.bias[0] = math.log(3 * (CHARACTER_CLASSES - 1))  # "none" with probability 3/4
    cells = torch.randn(1, reader.tower.config.stem_width, 1, 4)
    labels = torch.tensor([[[0, 0, 9, IGNORED_LABEL]]])
    with torch.no_grad():
        told = reader.character_loss(cells, labels)
    full, empty = -math.log(1 / 4 / (CHARACTER_CLASSES - 1)), -math.log(3 / 4)
    weight = reader.config.empty_cell_weight
    assert float(told.loss) == pytest.approx((full + 2 * weight * empty) / (1 + 2 * weight), rel=1e-5)
    assert told.right == 0


def test_the_pointer_loss_is_that_of_the_models_own_attention(pages, tokenizer, reader):
    batch = batches_of(pages, tokenizer).batch_at(0, 0)
    reader.model.set_attn_implementation("eager")
    with torch.no_grad():
        outputs = reader.model(
            input_ids=batch.input_ids_NS,
            pixel_values=batch.pixels_N3HW,
            patch_mask=batch.patch_mask_NHpWp,
            output_attentions=True,
            output_hidden_states=True,
        )
        told = reader.pointer_loss(outputs.hidden_states, batch)
    losses, hits = [], []
    for layer in reader.config.pointer_layers:
        for row, target_TF in enumerate(batch.pointers):
            tokens, patches = target_TF.shape
            looks = outputs.attentions[layer][row, : reader.config.pointer_heads, patches : patches + tokens, :patches]
            for head in range(reader.config.pointer_heads):
                for token in range(tokens):
                    if target_TF[token].sum() > 0:
                        losses.append(-(target_TF[token] * looks[head, token].log()).sum())
                        hits.append(target_TF[token, looks[head, token].argmax()] > 0)
    torch.testing.assert_close(told.loss, torch.stack(losses).mean(), rtol=1e-4, atol=1e-5)
    assert float(told.right) == pytest.approx(float(torch.stack(hits).float().mean()), abs=0.01)


def test_a_batch_without_visible_text_teaches_what_it_can(pages, tokenizer, reader):
    batch = batches_of(pages, tokenizer).batch_at(0, 0)
    blank = replace(
        batch,
        pointers=tuple(torch.zeros_like(pointer_TF) for pointer_TF in batch.pointers),
        is_text=tuple(torch.zeros_like(is_text_T) for is_text_T in batch.is_text),
    )
    parts = page_loss(reader, blank, CONTEXT)
    parts.loss_sum.backward()
    assert parts.scalars["pointer"] == parts.scalars["pieces"] == 0
    assert torch.isfinite(parts.loss_sum)
    assert all(torch.isfinite(weight.grad).all() for weight in reader.parameters() if weight.grad is not None)


def test_each_patch_is_asked_for_the_text_that_it_holds(tokenizer, reader):
    batch = batches_of([small_page(BODY, BOXES)], tokenizer, picture=SMALL, batch_pages=1).batch_at(0, 0)
    one, two, three = tokenizer.convert_tokens_to_ids(["1", "2", "3"])
    # What each patch holds, of the text, scaled to 1: the upper left one half of 1 and a quarter of 2, and so on.
    held = [{one: 2 / 3, two: 1 / 3}, {one: 1.0}, {two: 1.0}, {three: 1.0}]
    hidden = torch.randn(1, batch.input_ids_NS.shape[1], RECIPE.decoder.width)
    language = reader.model.language_model
    shares = language.lm_head(language.model.norm(hidden))[0, :4].log_softmax(1)
    expected = [
        -sum(share * shares[patch, token] for token, share in parts.items()) for patch, parts in enumerate(held)
    ]
    told = reader.piece_loss(hidden, batch)
    torch.testing.assert_close(told.loss, torch.stack(expected).mean())
    right = [int(shares[patch].argmax()) in parts for patch, parts in enumerate(held)]
    assert float(told.right) == pytest.approx(sum(right) / 4)


def test_the_losses_fall_on_two_pages(pages, tokenizer, reader):
    batch = batches_of(pages, tokenizer).batch_at(0, 0)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3)
    reports = []
    for _ in range(8):
        parts = page_loss(reader, batch, CONTEXT)
        assert parts.samples == 2
        assert parts.target_tokens == batch.target_tokens
        assert all(math.isfinite(value) for value in parts.scalars.values())
        (parts.loss_sum / parts.target_tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
        reports.append({name: float(value) for name, value in parts.scalars.items()})
    for name in ("next_token", "characters", "pieces", "pointer"):
        assert reports[-1][name] < 0.9 * reports[0][name], (name, reports[0][name], reports[-1][name])


def test_the_sum_of_the_losses_is_weighted_as_configured(pages, tokenizer):
    batch = batches_of(pages, tokenizer).batch_at(0, 0)
    weights = {"character_weight": 0.25, "piece_weight": 2.0, "pointer_weight": 0.0}
    reader = ReadingModel(build_model(RECIPE, tokenizer), replace(RECIPE.reading, **weights))
    with torch.no_grad():
        parts = page_loss(reader, batch, CONTEXT)
    scalars = parts.scalars
    expected = scalars["next_token"] + 0.25 * scalars["characters"] + 2 * scalars["pieces"]
    assert float(parts.loss_sum / parts.target_tokens) == pytest.approx(float(expected), rel=1e-5)


def test_the_first_lesson_teaches_the_stem_alone(pages, tokenizer, reader):
    batch = batches_of(pages, tokenizer).batch_at(1, 0)
    parts = character_loss(reader, batch, CONTEXT)
    parts.loss_sum.backward()
    taught = {name for name, parameter in reader.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("model.vision_tower.conv_quarter") for name in taught)
    assert "character_head.weight" in taught
    assert not any("language_model" in name or "connector" in name or "to_token" in name for name in taught)
    assert set(parts.scalars) == {"characters", "characters_right"}


# --- what cannot be taught ----------------------------------------------------------------------------------------


def test_a_tower_without_cells_is_refused(tokenizer):
    tower = SiglipTowerConfig(width=24, hidden_width=48, layers=1, heads=2, patch_px=16, native_px=64)
    with pytest.raises(ConfigError, match="only a convolutional tower") as caught:
        ReadingModel(build_model(replace(RECIPE, tower=tower), tokenizer), RECIPE.reading)
    assert caught.value.actual == "siglip"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pointer_layers": (1, 3)}, "no such layer"),
        ({"pointer_layers": (-1,)}, "no such layer"),
        ({"pointer_heads": 3}, "not so many"),
        ({"pointer_heads": 0}, "not so many"),
    ],
)
def test_layers_and_heads_that_are_not_there_are_refused(tokenizer, changes, words):
    with pytest.raises(ConfigError, match=words):
        ReadingModel(build_model(RECIPE, tokenizer), ReadingConfig(**({"pointer_layers": (1,)} | changes)))
