"""lensmith's models in lm-evaluation-harness (tested with lm-eval 0.4.13), as the model `lensmith`.

    python -m lensmith.adapters.lm_eval run --model lensmith --model_args pretrained=FOLDER --tasks TASK

Importing this module registers the model, and that command is the harness's own after it. Options of one question are
scored behind one reading of it, pictures included, for which the harness's own `hf-multimodal` refuses likelihoods.
Where a model reads pictures, a request with pictures is one turn of its chat, whether or not a chat template is asked
for; `<image>` in the text says where they stand.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.model import LM  # type: ignore[import-not-found]  # the framework is its user's to install
from lm_eval.api.registry import register_model  # type: ignore[import-not-found]
from lm_eval.utils import (  # type: ignore[import-not-found]
    get_rolling_token_windows,
    make_disjoint_window,
)

from lensmith.adapters.common import chat_request, load_model, option_scores, writing_settings
from lensmith.core.endpoint import Request
from lensmith.core.errors import InputError
from lensmith.models.inference.prefill import Prompt
from lensmith.models.scoring.likelihood import OptionScore, Scored
from lensmith.models.scoring.model import Asked, AskedText, ScoredModel

NAME = "lensmith"
_MOST_TOKENS = 256
_QUESTIONS_AT_ONCE = 16
_log = logging.getLogger(__name__)


@register_model(NAME)
class LensmithLM(LM):  # type: ignore[misc]  # Any, where the framework is not installed
    """A model that `lensmith serve` can load. `pretrained`: its folder; `loading`: see `load_model`."""

    MULTIMODAL = True

    def __init__(
        self,
        pretrained: str,
        *,
        device: str | None = None,
        batch_size: Any = None,
        max_batch_size: Any = None,
        **loading: Any,
    ) -> None:
        """`batch_size` is the harness's to give, and not needed: batches follow from memory."""
        super().__init__()
        if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            _log.warning("there is no %s, which the harness asks for by itself: the CPU is used", device)
            device = None
        self.model: ScoredModel = load_model(pretrained, device=device, **loading)

    @property
    def tokenizer_name(self) -> str:
        return f"lensmith-{self.model.identity().digest[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's text, which the harness keeps with its results."""
        return self.model.tokenizer.chat_template if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A text model's template. Raises InputError for a model of pictures, whose chat is always applied."""
        if self.model.answering.prompts.reads_pictures:
            raise InputError("requests with pictures are asked as chat already", hint="leave out --apply_chat_template")
        text: str = self.model.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """For each request the logprob of its continuation, and whether greedy writing would give it."""
        found: list[tuple[float, bool] | None] = [None] * len(requests)
        scored = option_scores(
            self.model, requests, self._prepared, question=_same_question, at_once=_QUESTIONS_AT_ONCE
        )
        for index, score in scored:
            found[index] = (score.total, score.is_greedy)
            self.cache_hook.add_partial("loglikelihood", requests[index].args, found[index])
        return [each for each in found if each is not None]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The logprob of each text, in windows as the harness defines them."""
        totals = []
        for request in requests:
            (text,) = request.args
            ids = self.model.tokenizer(text, add_special_tokens=self._adds_special_tokens(text))["input_ids"]
            windows = get_rolling_token_windows(
                token_list=ids,
                prefix_token=self.model.beginning()[0],
                max_seq_len=self.model.answering.max_length,
                context_len=1,
            )
            pairs = [make_disjoint_window(window) for window in windows]
            total = sum(self._of_ids(context, following).total for context, following in pairs)
            totals.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each context, up to one of its stops."""
        texts: list[str] = []
        for first in range(0, len(requests), self.model.slots):
            some = requests[first : first + self.model.slots]
            written = self.model.write([self._writing(request.args) for request in some])
            for request, text in zip(some, written, strict=True):
                self.cache_hook.add_partial("generate_until", request.args, text)
            texts += written
        return texts

    def _prepared(self, arguments: Sequence[tuple[Any, ...]]) -> Scored:
        context, pictures = arguments[0][0], _pictures(arguments[0])
        options = tuple(each[1] for each in arguments)
        if pictures:
            return self.model.prepare(Asked(request=chat_request(context, pictures), options=options, spaced=False))
        return self.model.prepare(
            AskedText(
                context=context,
                options=options,
                add_special_tokens=self._adds_special_tokens(context),
                truncates=True,
            )
        )

    def _of_ids(self, context: Sequence[int], following: Sequence[int]) -> OptionScore:
        prefix = Prompt(token_ids_P=np.array(context, dtype=np.int64))
        return self.model.scorer.score(prefix, [following])[0]

    def _writing(self, arguments: tuple[Any, ...]) -> Request:
        context, settings = arguments[0], writing_settings(arguments[1], most_tokens=_MOST_TOKENS)
        if pictures := _pictures(arguments):
            return chat_request(context, pictures, **settings)
        ids = self.model.tokenizer(context, add_special_tokens=self._adds_special_tokens(context))["input_ids"]
        room = self.model.answering.max_length - settings["max_tokens"]
        if room < 1:
            raise InputError("no room for a context", expected="max_gen_toks below max_length", actual=settings)
        if len(ids) > room:
            _log.warning("a context of %d tokens is cut to its last %d", len(ids), room)
        return Request(token_ids=tuple(ids[-room:] or self.model.beginning()), **settings)

    def _adds_special_tokens(self, text: str) -> bool:
        """Not where a chat template has written them already."""
        begin = self.model.tokenizer.bos_token
        return not (begin and text.startswith(begin))


def _same_question(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What comes before the continuation. The harness gives one dictionary to all of a doc."""
    return arguments[0], *map(id, arguments[2:])


def _pictures(arguments: tuple[Any, ...]) -> list[Any]:
    media = arguments[2] if len(arguments) > 2 else {}
    if others := [name for name in media if name != "visual" and media[name]]:
        raise InputError("only words and pictures are read", actual=", ".join(others))
    visual = media.get("visual") or []
    return list(visual) if isinstance(visual, list | tuple) else [visual]


def main() -> None:
    """The harness's own command line, which knows the model `lensmith` now."""
    from lm_eval.__main__ import cli_evaluate  # type: ignore[import-not-found]  # noqa: PLC0415  # only as a command

    cli_evaluate()


if __name__ == "__main__":
    main()
