"""True logits of SmolLM2-135M for the read-out benchmark, and a server's float32 arithmetic on top of them.

The model runs in float64 once; its logits are kept in the cache folder under a hash of the model file and the texts.
Legend: N texts, V vocabulary, K top tokens.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_models import smollm2_gguf
from lensmith.core.endpoint import Answer, Capabilities, Choice, Feature, Finish, Logprobs, Request
from lensmith.core.files import default_cache_dir, sha256_of_bytes, sha256_of_file

MEASURED = (
    "The committee met on Tuesday to discuss the budget for the coming year. Several members argued that the money",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) +",
    "Photosynthesis is the process by which green plants use sunlight to make food from carbon dioxide and",
    '<html><head><title>Pricing</title></head><body><div class="card"><h1>',
    "Q: What is the capital of France?\nA:",
    "Dear Sir or Madam, I am writing to complain about the washing machine that I bought from your shop on",
    "3 + 4 = 7\n12 + 9 = 21\n30 + 12 =",
    "Once upon a time there was a little girl who lived in a house at the edge of a dark",
)
KNOWN = (
    "The river rises in the hills above the town and flows south through farmland to the sea. In winter it often "
    "floods the lower fields, and the road to the village is then closed for days. A new bank was built last year.",
    "To install the program, download the archive, unpack it into a folder of your choice and run the setup script. "
    "It asks for a user name and a password, which are stored in a file that only you can read. Then restart.",
    "Mix the flour, sugar and butter until the dough is smooth, then leave it to rest for an hour. Roll it out "
    "thinly, cut it into rounds and bake them for twelve minutes. They keep for a week in a closed tin.",
)
_SKIPPED_POSITIONS = 4
_MOST_BIASED = 2048


@dataclass(frozen=True, kw_only=True)
class TrueLogits:
    """Float64 logits after each of `MEASURED` (N, V), and after every position of `KNOWN` (float32)."""

    measured_NV: NDArray[np.float64]
    known_NV: NDArray[np.float32]


def true_logits() -> TrueLogits:
    """From the cache, or computed, which takes about a minute and the `models` extra with `gguf`."""
    gguf = smollm2_gguf()
    key = sha256_of_bytes("\0".join([sha256_of_file(gguf), *MEASURED, *KNOWN]).encode())[:16]
    path = default_cache_dir() / "readouts" / f"{key}.npz"
    if not path.is_file():
        print("computing SmolLM2's logits (once)", file=sys.stderr)
        measured, known = _compute(gguf)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, measured=measured, known=known)
        part.replace(path)
    with np.load(path) as arrays:
        return TrueLogits(measured_NV=arrays["measured"], known_NV=arrays["known"])


def _compute(gguf: Path) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    import torch  # noqa: PLC0415 - needed only where the cache is empty
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).double().eval()
    with torch.no_grad():
        rows = [model(tokenizer(text, return_tensors="pt").input_ids).logits[0] for text in (*MEASURED, *KNOWN)]
    measured = torch.stack([row[-1] for row in rows[: len(MEASURED)]]).numpy()
    known = torch.cat([row[_SKIPPED_POSITIONS:] for row in rows[len(MEASURED) :]]).float().numpy()
    return measured, known


class Float32Server:
    """Answers with one token and its top logprobs from given logits, in float32 throughout, as inference servers do.

    A context is `Request(token_ids=(row,))`. The bias is added to the logits, the answer is greedy, and logprobs are
    taken after the bias: x - max - log(sum(exp(x - max))), each step in float32; `decimals` rounds what is told.
    """

    def __init__(self, logits_NV: NDArray[np.float64], *, decimals: int | None = None) -> None:
        self._logits_NV = logits_NV.astype(np.float32)
        best_first_NV = np.argsort(-self._logits_NV, axis=1, kind="stable")
        self._best_first = best_first_NV[:, :_MOST_BIASED].tolist()
        self._decimals = decimals
        self.queries = 0

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        self.queries += len(requests)
        return [self._one(request) for request in requests]

    def supports(self) -> Capabilities:
        return Capabilities(features=Feature.TOKEN_IDS | Feature.LOGIT_BIAS | Feature.TOP_LOGPROBS)

    def metadata(self) -> Mapping[str, Any]:
        return {}

    def _one(self, request: Request) -> Answer:
        (row,) = request.token_ids
        if not request.top_logprobs:
            return _answer(self._greedy(row, request.logit_bias), None)
        logits_V = self._logits_NV[row].copy()
        ids = np.array([*request.logit_bias], dtype=np.int64)
        logits_V[ids] += np.array([*request.logit_bias.values()], dtype=np.float32)
        shifted_V = logits_V - logits_V.max()
        logprobs_V = shifted_V - np.log(np.exp(shifted_V).sum(dtype=np.float32))
        top_K = np.argpartition(-logprobs_V, request.top_logprobs)[: request.top_logprobs]
        top_K = top_K[np.argsort(-logprobs_V[top_K], kind="stable")]
        values_K = logprobs_V[top_K].astype(np.float64)
        if self._decimals is not None:
            values_K = np.round(values_K, self._decimals)
        logprobs = Logprobs(
            sampled_T=np.full(1, np.nan),
            top_ids_TK=top_K[None].astype(np.int64),
            top_TK=values_K[None],
            wanted_TW=np.empty((1, 0)),
        )
        return _answer(int(top_K[0]), logprobs)

    def _greedy(self, row: int, biases: Mapping[int, float]) -> int:
        """The best of the biased tokens and of the likeliest token without a bias, without a look at all others."""
        rest = next(each for each in self._best_first[row] if each not in biases)
        ids = np.array([*biases, rest], dtype=np.int64)
        scores = self._logits_NV[row][ids] + np.array([*biases.values(), 0.0], dtype=np.float32)
        return int(ids[scores.argmax()])


def _answer(token_id: int, logprobs: Logprobs | None) -> Answer:
    choice = Choice(text="", finish=Finish.LENGTH, token_ids_T=np.array([token_id]), logprobs=logprobs)
    return Answer(choices=(choice,))
