"""Multiple choice end to end: real files, a tiny model, results on disk, and models that should get nothing right."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM

from lensmith.core.errors import InputError
from lensmith.evaluate.choice.file import read_questions
from lensmith.evaluate.choice.question import Mode, Normalise
from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl.config import tiny_config
from lensmith.models.families.deepseek_vl.options import Decoding
from lensmith.models.families.deepseek_vl.pictures import DeepseekPictureConfig
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer
from lensmith.models.inference.endpoint import Answering
from lensmith.models.scoring.model import ScoredModel
from lensmith.workflows.choice import ChoiceSettings, evaluate
from tests.support.tiny_vlm import CHAT_TEMPLATE, byte_tokenizer, tiny_chat_model, tiny_llama

MODES = [ChoiceSettings(mode=Mode.GENERATION, max_new_tokens=3)] + [
    ChoiceSettings(normalise=normalise) for normalise in Normalise
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def text_model(seed=0, **options):
    torch.manual_seed(seed)
    config = tiny_llama(max_position_embeddings=512)
    return ScoredModel(
        Answering.of(AutoModelForCausalLM.from_config(config).eval(), byte_tokenizer(), name="tiny", **options)
    )


def picture_model(template=CHAT_TEMPLATE, seed=0, **options):
    torch.manual_seed(seed)
    model, processor = tiny_chat_model()
    processor.chat_template = template
    return ScoredModel(Answering.of(model.eval(), processor, name="tiny", **options))


def png(seed=0):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def questions(tmp_path):
    """Writes questions and reads them: `questions(12)`, with `bad` lines in between, with a change to each."""

    def make(count, *, bad=(), pictures=True, options=4, **changes):
        lines = []
        for number in range(count):
            (tmp_path / f"{number // 3}.png").write_bytes(png(number // 3))
            values = {
                "id": f"q{number}",
                "question": f"What about {number * 7919 % 1009}?",
                "options": [f"{word} {number}" for word in ("one", "another", "third", "what else?")][:options],
                "answer": number % options,
                "category": "even" if number % 2 == 0 else "odd",
            }
            lines.append(json.dumps(values | ({"picture": f"{number // 3}.png"} if pictures else {}) | changes))
        for place, line in bad:
            lines.insert(place, line if isinstance(line, str) else json.dumps(line))
        (tmp_path / "q.jsonl").write_text("\n".join(lines) + "\n")
        return read_questions(tmp_path / "q.jsonl")

    return make


@pytest.mark.parametrize("settings", MODES, ids=lambda settings: settings.how.label)
def test_every_mode_answers_every_question(questions, settings, tmp_path):
    told = []
    summary = evaluate(
        picture_model(),
        questions(10),
        settings,
        out=tmp_path / "r.jsonl",
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert (summary.mode, summary.normalise) == (settings.how.mode, settings.how.normalise)
    assert summary.accuracy.n == 10
    assert told[-1] == (10, 10)
    head, *records = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert [record["id"] for record in records] == [f"q{number}" for number in range(10)]
    for record in (head, *records):
        assert record["mode"] == settings.how.mode.value
        assert record["normalise"] == (settings.how.normalise and settings.how.normalise.value)
    for record in records:
        [asked] = record["asked"]
        if settings.mode is Mode.GENERATION:
            assert "scores" not in asked
        else:
            assert asked["chosen"] == "ABCD"[int(np.argmax(asked["scores"]))]
        assert record["right"] == (asked["chosen"] == asked["answer"])


@pytest.mark.parametrize("circular", [False, True], ids=["plain", "circular"])
def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not(questions, tmp_path, circular):
    settings, file = ChoiceSettings(circular=circular), questions(11)
    whole = evaluate(picture_model(), file, settings, out=tmp_path / "whole.jsonl")

    class StoppedError(Exception):
        pass

    def stop(done, total):
        if done >= 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        evaluate(picture_model(), file, settings, out=tmp_path / "r.jsonl", on_progress=stop)
    lines = (tmp_path / "r.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 4
    (tmp_path / "r.jsonl").write_bytes(b"".join(lines) + b'{"id": "q4", "li')  # killed while it wrote
    asked = []
    rest = evaluate(
        picture_model(), file, settings, out=tmp_path / "r.jsonl", on_progress=lambda *done: asked.append(done)
    )
    assert asked[0] == (8, 11)
    assert rest == whole
    assert_near_records(tmp_path / "r.jsonl", tmp_path / "whole.jsonl")


def test_results_of_pictures_that_are_read_otherwise_are_not_continued(questions, tmp_path):
    def model(decoding):
        config = tiny_config("mlp")
        torch.manual_seed(0)
        pictures = DeepseekPictureConfig(image_px=config.vision.native_px, decoding=decoding)
        processor = DeepseekVlProcessor.for_model(config, tiny_tokenizer(), pictures)
        return ScoredModel(Answering.of(VisionLanguageModel(config).eval(), processor, name="tiny"))

    file = questions(4)
    evaluate(model(Decoding.STORED), file, ChoiceSettings(), out=tmp_path / "r.jsonl")
    evaluate(model(None), file, ChoiceSettings(), out=tmp_path / "r.jsonl")
    with pytest.raises(InputError, match="results"):
        evaluate(model(Decoding.AS_SEEN), file, ChoiceSettings(), out=tmp_path / "r.jsonl")


def assert_near_records(path, other):
    """Equal; scores within 1e-5, for what was read before differs between the two runs."""
    for line, same in zip(path.read_text().splitlines(), other.read_text().splitlines(), strict=True):
        mine, theirs = json.loads(line), json.loads(same)
        for asked, alike in zip(mine.get("asked", ()), theirs.get("asked", ()), strict=True):
            np.testing.assert_allclose(asked.pop("scores"), alike.pop("scores"), atol=1e-5)
        assert mine == theirs


@pytest.mark.parametrize("settings", [*MODES, ChoiceSettings(circular=True)], ids=lambda settings: settings.how.label)
def test_what_is_kept_between_questions_changes_nothing(questions, tmp_path, settings):
    file = questions(9)
    for name, cache_bytes in (("kept", 8 << 20), ("forgotten", 0)):
        evaluate(picture_model(cache_bytes=cache_bytes), file, settings, out=tmp_path / f"{name}.jsonl")
    if settings.mode is Mode.GENERATION:
        assert (tmp_path / "kept.jsonl").read_text() == (tmp_path / "forgotten.jsonl").read_text()
    else:
        assert_near_records(tmp_path / "kept.jsonl", tmp_path / "forgotten.jsonl")


def test_pictures_and_prefixes_are_read_once(questions):
    kept, forgotten = picture_model(), picture_model(cache_bytes=0)
    for model in (kept, forgotten):
        evaluate(model, questions(12), ChoiceSettings(circular=True))
    prefill, other = kept.answering.prefill, forgotten.answering.prefill
    assert (prefill.read_pictures, other.read_pictures) == (4 + 1, 48 + 1)  # and the one by which the model is known
    assert prefill.read_tokens + prefill.known_tokens == other.read_tokens
    assert prefill.known_tokens > 0.25 * other.read_tokens  # of tiny pictures and long texts, byte by byte


BAD = [
    (0, '{"question": '),
    (3, {"id": "q0", "question": "again?", "options": ["a", "b"], "answer": "A"}),
    (5, {"id": "gone", "question": "where?", "options": ["a", "b"], "answer": "A", "picture": "nowhere.png"}),
    (7, {"id": "none", "question": "which?", "options": ["a", "b"]}),
]


@pytest.mark.parametrize("settings", MODES, ids=lambda settings: settings.how.label)
def test_bad_lines_cost_only_themselves(questions, settings, tmp_path):
    clean = evaluate(picture_model(), questions(8), settings)
    summary = evaluate(picture_model(), questions(8, bad=BAD), settings)
    assert summary.accuracy == clean.accuracy
    assert [bad.line for bad in summary.bad_lines] == [1, 4, 6, 8]
    assert all(f"line {bad.line}: " in str(summary) for bad in summary.bad_lines)


@pytest.mark.parametrize("settings", MODES, ids=lambda settings: settings.how.label)
def test_a_question_that_is_too_long_for_the_model_is_a_bad_line(questions, settings):
    long = {"id": "long", "question": "word " * 200, "options": ["a", "b"], "answer": "A"}
    summary = evaluate(picture_model(), questions(4, bad=[(2, long)]), settings)
    assert [bad.id for bad in summary.bad_lines] == ["long"]
    assert "longer than the model can read" in summary.bad_lines[0].problem
    assert summary.accuracy.n == 4


def test_a_placeholder_in_a_question_is_a_bad_line(questions):
    sly = {"id": "sly", "question": "What is <image>?", "options": ["a", "b"], "answer": "A", "picture": "0.png"}
    summary = evaluate(picture_model(), questions(4, bad=[(2, sly)]), ChoiceSettings())
    assert [bad.id for bad in summary.bad_lines] == ["sly"]


def test_strict_stops_before_anything_is_computed(questions, tmp_path):
    model = picture_model()
    long = {"id": "long", "question": "word " * 200, "options": ["a", "b"], "answer": "A"}
    with pytest.raises(InputError, match="line 3"):
        evaluate(model, questions(4, bad=[(2, long)]), ChoiceSettings(strict=True), out=tmp_path / "r.jsonl")
    assert model.answering.prefill.read_tokens == 0
    assert not (tmp_path / "r.jsonl").exists()


def test_a_model_that_cannot_see_is_not_asked(questions):
    with pytest.raises(InputError, match="reads none"):
        evaluate(text_model(), questions(3), ChoiceSettings())
    with pytest.raises(InputError, match="no words beside a picture"):
        evaluate(picture_model(template=None), questions(3), ChoiceSettings())
    assert evaluate(text_model(), questions(3, pictures=False), ChoiceSettings()).accuracy.n == 3


@pytest.mark.parametrize(
    "values",
    [
        {"mode": Mode.GENERATION, "normalise": Normalise.SUM},
        {"mode": Mode.LIKELIHOOD, "max_new_tokens": 4},
        {"normalise": Normalise.OPTION, "circular": True},
        {"normalise": Normalise.SUM, "circular": True},
        {"dtype": "float8"},
    ],
)
def test_settings_that_make_no_sense_are_refused(values):
    with pytest.raises(InputError):
        ChoiceSettings(**values)


# --- negative controls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", Normalise)
def test_a_random_model_is_at_chance(questions, normalise):
    # Right answers are dealt out anew, apart from what is asked: only luck gets them.
    file = questions(120, pictures=False)
    dealt = np.random.default_rng(0).integers(0, 4, 120)
    file.questions = [question.rotated(int(shift)) for question, shift in zip(file.questions, dealt, strict=True)]
    summary = evaluate(text_model(), file, ChoiceSettings(normalise=normalise))
    assert summary.chance == 0.25
    assert summary.accuracy.low <= summary.chance <= summary.accuracy.high


class _AlwaysA(ScoredModel):
    """Finds A likeliest, whatever is asked."""

    def score(self, prepared):
        scores = super().score(prepared)
        return [sorted(each, key=lambda score: score.total, reverse=True) for each in scores]


@pytest.mark.parametrize("pictures", [False, True], ids=["words", "pictures"])
def test_a_model_that_always_says_a_is_found_out_by_rotations(questions, pictures):
    inner = picture_model() if pictures else text_model()
    model = _AlwaysA(inner.answering)
    file = questions(6, pictures=pictures, answer="A")
    assert evaluate(model, file, ChoiceSettings()).accuracy.share == 1.0
    circular = evaluate(model, file, ChoiceSettings(circular=True))
    assert circular.accuracy.share == 0.0
    assert circular.as_it_stands.share == 1.0
    assert circular.letters == {"A": 24, "B": 0, "C": 0, "D": 0}


@pytest.mark.parametrize("normalise", Normalise)
def test_a_model_whose_own_choice_is_right_is_always_right(questions, tmp_path, normalise):
    """The other way round: a model that does know is not missed, however it is asked."""
    settings, file = ChoiceSettings(normalise=normalise), questions(9)
    evaluate(picture_model(), file, settings, out=tmp_path / "r.jsonl")
    chosen = {
        record["id"]: "ABCD".index(record["asked"][0]["chosen"])
        for record in map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines()[1:])
    }
    file.questions = [dataclasses.replace(question, answer=chosen[question.id]) for question in file.questions]
    assert evaluate(picture_model(), file, settings).accuracy.share == 1.0
