"""A model as an evaluation sees it: how likely it finds given answers, what it writes, and which model it is.

Both ways of asking start from the same prompt, made by whatever serves the model, so that a likelihood and a generated
answer belong to the same question.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase

from lensmith.core.endpoint import Request
from lensmith.core.errors import InputError
from lensmith.core.types import Message, Picture
from lensmith.models.inference.endpoint import Answering, LocalEndpoint
from lensmith.models.inference.loading import load_answering
from lensmith.models.inference.prefill import Prompt
from lensmith.models.scoring.likelihood import (
    OptionScore,
    Scored,
    Scorer,
    option_tokens,
    space_before_answer,
    split_texts,
)

SLOTS = 4
_PROBED_TOKENS = 64
_NEAR_FLOAT32, _NEAR_OTHERS = 1e-3, 0.1
"""Sums are taken in another order on another machine."""
_FREE_KEYS = frozenset({"_name_or_path", "name_or_path", "transformers_version", "architectures", "auto_map"})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request's prompt and the texts of the answers that are scored behind it.

    With `spaced`, a space goes before each answer where the model was trained to write one.
    """

    request: Request
    options: tuple[str, ...]
    spaced: bool = True


@dataclass(frozen=True, kw_only=True)
class AskedText:
    """A text and the texts that are scored behind it, exactly as they stand.

    With `truncates`, a context that is too long for the model loses its beginning, else it is refused.
    """

    context: str
    options: tuple[str, ...]
    add_special_tokens: bool = True
    truncates: bool = False


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Equal digests, and probes (some logprobs behind one question) within `tolerance`: the same model."""

    digest: str
    probe: tuple[float, ...]
    tolerance: float


class ScoredModel:
    """A model in this process, for scores and for greedy answers. Not for several threads."""

    def __init__(self, answering: Answering, *, slots: int = SLOTS, precision: str = "") -> None:
        """`precision`: what was asked for, where the model's own weights do not say it."""
        self.answering, self.slots, self.precision = answering, slots, precision
        self.endpoint = LocalEndpoint.around(answering, slots=slots)
        self.scorer = Scorer(answering.prefill, max_length=answering.max_length)

    @classmethod
    def load(cls, source: str | Path, *, dtype: torch.dtype = torch.float32, **settings: Any) -> "ScoredModel":
        """Whatever `load_answering` can load, with its `settings`. Raises InputError as it does."""
        return cls(load_answering(source, dtype=dtype, **settings), precision=str(dtype))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.answering.prompts.tokenizer

    def prepare(self, asked: Asked | AskedText) -> Scored:
        """Tokens of the question and of its answers. Raises InputError where the model cannot read them."""
        if isinstance(asked, AskedText):
            return self._prepare_text(asked)
        prefix = self.answering.prompt(asked.request)
        ids = prefix.token_ids_P.tolist()
        space = space_before_answer(self.tokenizer, ids) if asked.spaced else ""
        options = tuple(option_tokens(self.tokenizer, ids, space + option) for option in asked.options)
        return self._checked(Scored(prefix=prefix, options=options))

    def score(self, prepared: Sequence[Scored]) -> list[list[OptionScore]]:
        """Scores of each question's answers, in order."""
        return self.scorer.score_many(prepared)

    def write(self, requests: Sequence[Request]) -> list[str]:
        """What the model answers to each request; greedy where the temperature is 0. Raises InputError as `check`."""
        return [answer.choices[0].text for answer in self.endpoint.answer(requests)]

    def check(self, request: Request) -> None:
        """Raises InputError or RefusedError where `write` could not answer the request."""
        self.endpoint.check(request)

    def identity(self) -> Identity:
        """Which model this is: by its configuration, by how a question becomes a prompt, and by what it makes of one.

        Not by its weights, which a processor may keep in a form that cannot be read. Where the model lies has no part
        in it.
        """
        precision = self.precision or str(self.answering.model.dtype)
        # The probe's picture looks the same however it is read; a phone's would not.
        parts = [_plain(self.answering.model.config.to_dict()), precision, self.answering.prompts.picture_reading]
        digest = hashlib.sha256("\n".join(parts).encode())
        prompt = self._probe()
        digest.update(prompt.token_ids_P.tobytes())
        for picture in prompt.pictures:
            for part in picture.inputs.values():
                digest.update(np.ascontiguousarray(part).tobytes())
        [read] = self.answering.prefill.read([prompt])
        logits_V = read.logits_V.astype(np.float64)
        logprobs_V = logits_V - logits_V.max() - np.log(np.exp(logits_V - logits_V.max()).sum())
        places = np.linspace(0, len(logprobs_V) - 1, min(_PROBED_TOKENS, len(logprobs_V))).astype(int)
        probed = np.where(np.isfinite(logprobs_V), logprobs_V, 0.0)[places]
        is_exact = self.answering.model.dtype == torch.float32
        return Identity(
            digest=digest.hexdigest(),
            probe=tuple(round(float(value), 6) for value in probed),
            tolerance=_NEAR_FLOAT32 if is_exact else _NEAR_OTHERS,
        )

    def beginning(self) -> tuple[int, ...]:
        """What stands before a text that begins with nothing: as in lm-evaluation-harness, BOS or else EOS."""
        tokenizer = self.tokenizer
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if begin is None:
            raise InputError("the first token of a text has no probability", expected="a tokenizer with BOS or EOS")
        return (int(begin),)

    def reads_questions_on_pictures(self) -> bool:
        """Whether words beside a picture reach the model: one that only transcribes pictures leaves them out."""
        if not self.answering.prompts.reads_pictures:
            return False
        first, second = (self.answering.prompt(_probe(text)).token_ids_P for text in ("yes", "no, rather not"))
        return not np.array_equal(first, second)

    def _probe(self) -> Prompt:
        prompts = self.answering.prompts
        if prompts.reads_pictures:
            return self.answering.prompt(_probe("What is it?"))
        if prompts.reads_messages:
            return self.answering.prompt(Request(messages=(Message(role="user", parts=("What is it?",)),)))
        return self.answering.prompt(Request(prompt="What is it?"))

    def _prepare_text(self, asked: AskedText) -> Scored:
        seams = [
            split_texts(self.tokenizer, asked.context, option, add_special_tokens=asked.add_special_tokens)
            for option in asked.options
        ]
        if not seams:
            raise InputError("there is nothing to score", expected="at least one option", actual="none")
        context = seams[0].context_ids or self.beginning()
        if asked.truncates:
            room = self.answering.max_length - max(len(seam.option_ids) for seam in seams) + 1
            context = context[-max(room, 1) :]
        prefix = Prompt(token_ids_P=np.array(context, dtype=np.int64))
        return self._checked(Scored(prefix=prefix, options=tuple(seam.option_ids for seam in seams)))

    def _checked(self, prepared: Scored) -> Scored:
        self.scorer.check(prepared)
        return prepared


def _plain(config: dict[str, Any]) -> str:
    """A configuration without what depends on where it was loaded from, and by which version."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): without(item) for key, item in value.items() if key not in _FREE_KEYS}
        return value

    return json.dumps(without(config), sort_keys=True, default=str)


def _probe(text: str) -> Request:
    """A question about a small picture of even colour ramps, the same everywhere."""
    ramp = np.arange(24 * 40 * 3, dtype=np.uint32).reshape(24, 40, 3) % 251
    buffer = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint8)).save(buffer, format="PNG")
    return Request(messages=(Message(role="user", parts=(Picture(data=buffer.getvalue()), text)),))
