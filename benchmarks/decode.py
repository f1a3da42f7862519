"""Tokens a second of a language model with DeepSeek-VL 1.3B's layer sizes, beside transformers; and 8-bit weights.

Four of its 24 layers and the whole head (vocabulary 102,400), random weights, bfloat16, one answer at a time after a
prompt of 620 tokens (a picture and a question). Each way writes 1 and 1 + N tokens; the difference in time is that of N
tokens. Ways take turns, so that a slow moment of the machine meets all of them. The floor is the weights' size over the
speed at which this machine sums an array in memory. What 8-bit weights do to a model is measured on a real one,
SmolLM2-135M, by the perplexity of Python's own documentation.

    python -m benchmarks.decode [--quick] [--json]
"""

import argparse
import json
import pydoc_data.topics
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.cores import CORES, keep_to_cores
from benchmarks.real_models import smollm2_gguf
from lensmith.core.endpoint import Request
from lensmith.core.exposure import Exposure
from lensmith.models.inference.decoder import Decoder, Job, Text
from lensmith.models.inference.prefill import Prefill, Prompt
from lensmith.models.language.loading import load_language_model
from lensmith.models.linear.int8 import quantize_linear_layers
from lensmith.models.linear.packed import pack_linear_layers

LAYERS = 4
PROMPT_TOKENS = 620
AIMS = (0.0, 1.0, 1.8)
"""Least speed as a multiple of the peer's: of the peer itself, in the same precision, with 8-bit weights."""
_WINDOW = 512


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to write tokens: the median of its rounds, and its speed as a multiple of the peer's in each of them."""

    name: str
    tokens_per_s: float
    ratio: float
    ratio_low: float
    ratio_high: float
    weight_bytes: int
    share_of_floor: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run. Perplexities are SmolLM2's, None where it was left out."""

    tokens: int
    rounds: int
    memory_gb_per_s: float
    ways: tuple[Way, ...]
    perplexity_bfloat16: float | None
    perplexity_int8: float | None

    @property
    def is_within_limits(self) -> bool:
        return all(way.ratio >= aim for way, aim in zip(self.ways, AIMS, strict=True))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 layer, 8 tokens, no perplexity")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    keep_to_cores()
    torch.set_num_threads(CORES)
    report = measure(is_quick=options.quick)
    print(json.dumps(asdict(report), indent=1) if options.json else as_table(report))
    return 0 if options.quick or report.is_within_limits else 1


def measure(*, is_quick: bool = False) -> Report:
    """All ways, in turns."""
    layers, tokens, rounds = (1, 8, 3) if is_quick else (LAYERS, 48, 7)
    prompt = np.random.default_rng(0).integers(2, 102_400, PROMPT_TOKENS)
    model, packed, quantized = (language_model(layers) for _ in range(3))
    weights = [_read_for_a_token(model), _read_for_a_token(packed)]
    pack_linear_layers(packed)
    weights.append(quantize_linear_layers(quantized).bytes_after)
    ways: dict[str, Callable[[int], float]] = {
        "transformers, bfloat16": _transformers_way(model, prompt),
        "lensmith, bfloat16": _lensmith_way(packed, prompt),
        "lensmith, 8-bit weights": _lensmith_way(quantized, prompt),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(rounds + 1):
        for name, run in ways.items():
            spent = run(1 + tokens) - run(1)
            if round_number:  # the first is for warming up
                seconds[name].append(spent)
    memory = _memory_speed()
    peer, *_ = seconds.values()
    found = []
    for (name, spent), weight_bytes in zip(seconds.items(), weights, strict=True):
        ratios = [theirs / ours for theirs, ours in zip(peer, spent, strict=True)]
        speed = tokens / statistics.median(spent)
        found.append(
            Way(
                name=name,
                tokens_per_s=speed,
                ratio=statistics.median(ratios),
                ratio_low=min(ratios),
                ratio_high=max(ratios),
                weight_bytes=weight_bytes,
                share_of_floor=speed * weight_bytes / memory,
            )
        )
    plain, rounded = (None, None) if is_quick else perplexities()
    return Report(
        tokens=tokens,
        rounds=rounds,
        memory_gb_per_s=memory / 1e9,
        ways=tuple(found),
        perplexity_bfloat16=plain,
        perplexity_int8=rounded,
    )


def language_model(layers: int) -> PreTrainedModel:
    """DeepSeek-VL 1.3B's language model with so many layers, random weights, bfloat16."""
    config = LlamaConfig(
        vocab_size=102_400,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=layers,
        num_attention_heads=16,
        max_position_embeddings=16_384,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model: PreTrainedModel = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).eval()
    assert model.generation_config is not None
    model.generation_config.eos_token_id = None
    return model


def _transformers_way(model: PreTrainedModel, prompt: np.ndarray) -> Callable[[int], float]:
    ids = torch.from_numpy(prompt)[None]

    @torch.inference_mode()
    def run(tokens: int) -> float:
        started = time.perf_counter()
        out = model.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        assert out.shape[1] == PROMPT_TOKENS + tokens
        return time.perf_counter() - started

    return run


def _lensmith_way(model: PreTrainedModel, prompt: np.ndarray) -> Callable[[int], float]:
    """The loop behind `lensmith chat` and `lensmith serve`; nothing is kept between runs, as nothing is by the peer."""
    text = Text(decode=lambda ids: "", end_ids=frozenset())

    def run(tokens: int) -> float:
        decoder = Decoder(Prefill(model, cache_bytes=0), text, Exposure.text_only(), slots=1, max_length=16_384)
        request = Request(token_ids=tuple(prompt.tolist()), max_tokens=tokens, temperature=0.0)
        started = time.perf_counter()
        decoder.submit(Job(request=request, prompt=Prompt(token_ids_P=prompt), sink=lambda event: None))
        while not decoder.is_idle:
            decoder.step()
        assert decoder.generated_tokens == tokens
        return time.perf_counter() - started

    return run


def _read_for_a_token(model: PreTrainedModel) -> int:
    """Bytes of all weights but the embeddings, of which a token reads one row."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values()) - model.get_input_embeddings().weight.nbytes


def _memory_speed() -> float:
    """Bytes a second of summing an array far larger than any cache, the best of five."""
    array = torch.ones(1 << 28, dtype=torch.float32)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        array.sum()
        best = min(best, time.perf_counter() - started)
    return array.nbytes / best


@torch.inference_mode()
def perplexities(tokens: int = 20 * _WINDOW) -> tuple[float, float]:
    """SmolLM2's on Python's documentation: with bfloat16 weights, and with 8-bit ones."""
    loaded = load_language_model(smollm2_gguf(), dtype=torch.bfloat16)
    text = "\n".join(pydoc_data.topics.topics.values())
    ids = torch.tensor(loaded.tokenizer(text)["input_ids"][:tokens]).view(-1, _WINDOW)
    plain = _perplexity(loaded.model, ids)
    quantize_linear_layers(loaded.model)
    return plain, _perplexity(loaded.model, ids)


def _perplexity(model: PreTrainedModel, ids_NT: torch.Tensor) -> float:
    losses = []
    for row_T in ids_NT:
        logits_TV = model(row_T[None]).logits[0, :-1].float()
        losses.append(torch.nn.functional.cross_entropy(logits_TV, row_T[1:]).item())
    return float(np.exp(np.mean(losses)))


def as_table(report: Report) -> str:
    lines = [
        f"{report.rounds} rounds of {report.tokens} tokens after a prompt of {PROMPT_TOKENS}, {CORES} cores, memory "
        f"{report.memory_gb_per_s:.1f} GB/s",
        f"{'way':26}{'tokens/s':>10}{'ratio':>8}{'(range)':>14}{'aim':>6}{'of floor':>10}",
    ]
    for way, aim in zip(report.ways, AIMS, strict=True):
        spread = f"({way.ratio_low:.2f}-{way.ratio_high:.2f})"
        lines.append(
            f"{way.name:26}{way.tokens_per_s:10.2f}{way.ratio:7.2f}x{spread:>14}{f'{aim:.1f}x' if aim else '':>6}"
            f"{way.share_of_floor:9.0%}"
        )
    if report.perplexity_bfloat16 is not None and report.perplexity_int8 is not None:
        change = report.perplexity_int8 / report.perplexity_bfloat16 - 1
        lines.append(
            f"SmolLM2-135M, perplexity of Python's documentation: {report.perplexity_bfloat16:.3f} in bfloat16, "
            f"{report.perplexity_int8:.3f} with 8-bit weights ({change:+.2%})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
