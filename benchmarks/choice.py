"""Multiple choice on a picture: ours, which reads picture and question once, beside transformers' plain way.

DeepSeek-VL 1.3B's tower and layer sizes, random weights, float32; both sides compute with the same tensors in memory,
from the same pixels and token ids, and their logprobs are compared. Transformers' plain way is what its users write:
each answer behind the whole prompt and the picture, four of them in one batch or one after the other, with the head
applied to the answer's places only. Eight questions on one picture, answered by their letters, need one pass each
there; ours knows the picture after the first. Ours begins each round with nothing kept. Sides take turns, so that a
slow moment of the machine meets all of them.

    python -m benchmarks.choice [--quick] [--rounds 5] [--layers 4] [--json]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DeepseekVLConfig, DeepseekVLForConditionalGeneration, PreTrainedModel

from benchmarks.cores import CORES, keep_to_cores
from lensmith.models import VisionLanguageConfig, VisionLanguageModel
from lensmith.models.families.deepseek_vl import CheckpointLayout, deepseek_vl_config, tiny_config
from lensmith.models.families.deepseek_vl.layouts import plan_for
from lensmith.models.families.deepseek_vl.published_config import write_transformers
from lensmith.models.inference.prefill import Prefill, PreparedPicture, Prompt
from lensmith.models.scoring.likelihood import Scored, Scorer

LAYERS = 4
AIM_OPTIONS, AIM_QUESTIONS = 3.0, 5.0
_SYSTEM_TOKENS, _QUESTION_TOKENS = 44, 40
_CACHE_BYTES = 2 << 30

Logprobs = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One task: medians of the rounds, and how many times longer transformers takes, in each round by itself."""

    name: str
    peer: str
    ours_s: float
    theirs_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    aim: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run. `difference` in a row: the largest between the logprobs of both sides."""

    language_layers: int
    picture_tokens: int
    prompt_tokens: int
    rounds: int
    cores: int
    rows: tuple[Row, ...]

    @property
    def is_within_limits(self) -> bool:
        return all(row.ratio >= row.aim and row.difference < 1e-3 for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Task:
    """Questions with the token ids of their answers."""

    name: str
    asked: tuple[Scored, ...]
    aim: float


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.choice", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny model: only shows that it runs")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--layers", type=int, default=LAYERS, help="layers of the language model; 1.3B has 24")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    keep_to_cores()
    torch.set_num_threads(CORES)
    report = measure(rounds=options.rounds, layers=options.layers, is_quick=options.quick)
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    return 0 if options.quick or report.is_within_limits else 1


def measure(*, rounds: int = 5, layers: int = LAYERS, is_quick: bool = False) -> Report:
    """Both sides on all tasks, in this process."""
    ours = _model(layers, is_quick)
    theirs = _theirs(ours)
    picture = _picture(ours.config)
    tasks = _tasks(ours.config, picture)
    rows = [row for task in tasks for row in _rows(task, ours, theirs, rounds)]
    return Report(
        language_layers=ours.config.language.num_hidden_layers,
        picture_tokens=picture.tokens,
        prompt_tokens=tasks[0].asked[0].prefix.length,
        rounds=rounds,
        cores=torch.get_num_threads(),
        rows=tuple(rows),
    )


def _rows(task: Task, ours: VisionLanguageModel, theirs: PreTrainedModel, rounds: int) -> list[Row]:
    prefill = Prefill(ours, cache_bytes=_CACHE_BYTES)
    ways: dict[str, Callable[[], list[Logprobs]]] = {
        "ours": lambda: _score(prefill, task.asked),
        "one batch": lambda: _plain(theirs, task.asked, together=True),
        "one by one": lambda: _plain(theirs, task.asked, together=False),
    }
    found = {name: way() for name, way in ways.items()}  # also warms up
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in list(ways) if turn % 2 == 0 else list(ways)[::-1]:
            began = time.perf_counter()
            ways[name]()
            times[name].append(time.perf_counter() - began)
    return [
        _row(task, name, times=(times["ours"], times[name]), found=(found["ours"], found[name]))
        for name in list(ways)[1:]
    ]


def _row(
    task: Task, peer: str, *, times: tuple[list[float], list[float]], found: tuple[list[Logprobs], list[Logprobs]]
) -> Row:
    """Each pair is ours, then theirs."""
    ours, theirs = times
    ratios = [theirs_s / ours_s for ours_s, theirs_s in zip(ours, theirs, strict=True)]
    return Row(
        name=task.name,
        peer=peer,
        ours_s=statistics.median(ours),
        theirs_s=statistics.median(theirs),
        ratio=statistics.median(ratios),
        ratio_low=min(ratios),
        ratio_high=max(ratios),
        aim=task.aim,
        difference=float(max(np.abs(a - b).max() for a, b in zip(*found, strict=True))),
    )


def as_table(report: Report) -> str:
    lines = [
        f"multiple choice, {report.language_layers} language layers, {report.picture_tokens} tokens a picture, "
        f"prompts of {report.prompt_tokens}, float32, {report.cores} cores, {report.rounds} rounds",
        f"{'':38}{'transformers':>14}{'ours s':>9}{'theirs s':>10}{'ratio':>8}{'spread':>16}{'aim':>6}{'differ':>9}",
    ]
    lines += [
        f"{row.name:38}{row.peer:>14}{row.ours_s:>9.3f}{row.theirs_s:>10.3f}{row.ratio:>8.2f}"
        f"{f'{row.ratio_low:.2f} to {row.ratio_high:.2f}':>16}{row.aim:>6.1f}{row.difference:>9.0e}"
        for row in report.rows
    ]
    return "\n".join(lines)


# --- ours -------------------------------------------------------------------------------------------------------------


def _score(prefill: Prefill, asked: Sequence[Scored]) -> list[Logprobs]:
    """With nothing kept from before; one question after the other, as an evaluation meets them."""
    prefill.forget()
    scorer = Scorer(prefill)
    return [
        np.array([value for score in scorer.score(each.prefix, each.options) for value in score.logprobs])
        for each in asked
    ]


def _model(layers: int, is_quick: bool) -> VisionLanguageModel:
    torch.manual_seed(0)
    config = tiny_config("mlp") if is_quick else deepseek_vl_config("1.3b")
    if not is_quick:
        config.language.num_hidden_layers = layers
    model = VisionLanguageModel(config).eval()
    # transformers gives the placeholder a probability; with the logits of both sides equal, so do we here.
    model.generation_config.suppress_tokens = None
    return model


def _picture(config: VisionLanguageConfig) -> PreparedPicture:
    side_px = config.vision.native_px
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, side_px, side_px)).astype(np.float32)
    tokens = (side_px // config.vision.patch_px) ** 2
    return PreparedPicture(tokens=tokens, inputs={"pixel_values": pixels})


def _tasks(config: VisionLanguageConfig, picture: PreparedPicture) -> tuple[Task, ...]:
    rng = np.random.default_rng(1)

    def some(count: int) -> list[int]:
        return [int(token) for token in rng.integers(4, config.language.vocab_size - 2, count)]

    def prompt(beginning: list[int]) -> Prompt:
        ids = [token if token != config.image_token_id else 4 for token in (*beginning, *some(_QUESTION_TOKENS))]
        placed = [*ids[: len(beginning)], *[config.image_token_id] * picture.tokens, *ids[len(beginning) :]]
        token_ids_P = np.array(placed, dtype=np.int64)
        return Prompt(token_ids_P=token_ids_P, pictures=(picture,), image_token_id=config.image_token_id)

    beginning = some(_SYSTEM_TOKENS)
    letters = tuple((token,) for token in (5, 6, 7, 8))
    texts = tuple(tuple(some(length)) for length in (3, 5, 8, 12))
    questions = [prompt(beginning) for _ in range(8)]
    return (
        Task(name="4 options, letters", asked=(Scored(prefix=questions[0], options=letters),), aim=AIM_OPTIONS),
        Task(
            name="4 options, texts of 3 to 12 tokens",
            asked=(Scored(prefix=questions[0], options=texts),),
            aim=AIM_OPTIONS,
        ),
        Task(
            name="8 questions on one picture, letters",
            asked=tuple(Scored(prefix=question, options=letters) for question in questions),
            aim=AIM_QUESTIONS,
        ),
    )


# --- transformers' plain way ------------------------------------------------------------------------------------------


def _theirs(ours: VisionLanguageModel) -> PreTrainedModel:
    """transformers' model around the very tensors of ours."""
    values = write_transformers(ours.config, "float32", CheckpointLayout.TRANSFORMERS)
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()}
    config = DeepseekVLConfig(**{name: value for name, value in values.items() if name != "architectures"})
    model = DeepseekVLForConditionalGeneration(config).eval()
    own = ours.state_dict()
    plan = plan_for(shapes, CheckpointLayout.TRANSFORMERS)
    model.load_state_dict({name: stored.join(own.__getitem__) for name, stored in plan.stored.items()}, assign=True)
    return model


@torch.inference_mode()
def _plain(model: PreTrainedModel, asked: Sequence[Scored], *, together: bool) -> list[Logprobs]:
    """Whole sequences, pictures included. Several questions are asked by their letters: one sequence each."""
    if len(asked) > 1:
        rows = [(list(each.prefix.token_ids_P), [option[0] for option in each.options]) for each in asked]
        batches = [rows] if together else [[row] for row in rows]
        return [found for batch in batches for found in _letters(model, batch, asked[0].prefix.pictures[0])]
    [only] = asked
    options = [list(option) for option in only.options]
    batches_of_options = [options] if together else [[option] for option in options]
    found = [_texts(model, only.prefix, batch) for batch in batches_of_options]
    return [np.concatenate(found)]


def _texts(model: PreTrainedModel, prefix: Prompt, options: list[list[int]]) -> Logprobs:
    longest = max(map(len, options))
    ids_BT = torch.tensor([[*prefix.token_ids_P, *option, *[4] * (longest - len(option))] for option in options])
    logits = model(
        input_ids=ids_BT,
        pixel_values=_pixels(prefix.pictures[0], len(options)),
        use_cache=False,
        logits_to_keep=longest + 1,
    ).logits
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    return np.array(
        [float(logprobs[row, place, token]) for row, option in enumerate(options) for place, token in enumerate(option)]
    )


def _letters(
    model: PreTrainedModel, rows: list[tuple[list[int], list[int]]], picture: PreparedPicture
) -> list[Logprobs]:
    logits = model(
        input_ids=torch.tensor([ids for ids, _ in rows]),
        pixel_values=_pixels(picture, len(rows)),
        use_cache=False,
        logits_to_keep=1,
    ).logits
    logprobs = torch.log_softmax(logits[:, -1].double(), dim=-1)
    return [logprobs[row, letters].numpy() for row, (_, letters) in enumerate(rows)]


def _pixels(picture: PreparedPicture, count: int) -> Tensor:
    return torch.from_numpy(np.repeat(picture.inputs["pixel_values"], count, axis=0))


if __name__ == "__main__":
    sys.exit(main())
