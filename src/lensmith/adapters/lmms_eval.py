"""lensmith's models in lmms-eval (tested with lmms-eval 0.7.3), as the model `lensmith`.

    python -m lmms_eval --model lensmith --model_args pretrained=FOLDER --tasks TASK

It is found by itself, through the entry point `lmms_eval.models`. Traps of lmms-eval that are met here:

- Its scorer of multiple choice takes the *smallest* value, though its documentation asks for log-probabilities. So a
  loss is returned, by default the mean a token, as its LLaVA adapters do; `normalise=sum` returns the sum, with which
  its `acc_norm` is a loss a character. Its metric `acc_mutual_info` takes the largest difference and is upside down
  with any loss.
- Those adapters compare unshifted tokens for `is_greedy`; here it is what it says.
- Version 0.7.3 turns every answer that is not text into its `str`, which its own scorer of multiple choice cannot read;
  what is inside a `GenerationResult` it leaves alone.
"""

from collections.abc import Sequence
from typing import Any

from lmms_eval.api.instance import GenerationResult  # type: ignore[import-not-found]  # its user's to install
from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

from lensmith.adapters.common import chat_request, load_model, option_scores, writing_settings
from lensmith.core.endpoint import Request
from lensmith.core.errors import InputError
from lensmith.models.scoring.likelihood import Scored
from lensmith.models.scoring.model import Asked, AskedText, ScoredModel

NAME = "lensmith"
_MOST_TOKENS = 256
_QUESTIONS_AT_ONCE = 4


class LensmithLmms(lmms):  # type: ignore[misc]  # Any, where the framework is not installed
    """A model that `lensmith serve` can load. `pretrained`: its folder; `loading`: see `load_model`."""

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        *,
        normalise: str = "option",
        batch_size: Any = None,
        max_batch_size: Any = None,
        **loading: Any,
    ) -> None:
        """`batch_size` is the framework's to give, and not needed: batches follow from memory."""
        super().__init__()
        if normalise not in ("option", "sum"):
            raise InputError("normalise: no such loss", expected="option or sum", actual=normalise)
        self.normalise = normalise
        self.model: ScoredModel = load_model(pretrained, **loading)

    def loglikelihood(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """For each request the loss of its continuation (smaller is likelier), and whether it is greedy, as `text`."""
        found: list[tuple[float, bool] | None] = [None] * len(requests)
        scored = option_scores(
            self.model, requests, self._prepared, question=_same_question, at_once=_QUESTIONS_AT_ONCE
        )
        for index, score in scored:
            found[index] = (-(score.total if self.normalise == "sum" else score.mean), score.is_greedy)
        return [GenerationResult(text=each) for each in found]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What the model writes to each request."""
        texts: list[str] = []
        for first in range(0, len(requests), self.model.slots):
            texts += self.model.write([self._writing(each.args) for each in requests[first : first + self.model.slots]])
        return texts

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not supported: no task of the framework's that needs likelihoods has several rounds."""
        raise NotImplementedError("lensmith's models are asked in one round")

    def _prepared(self, arguments: Sequence[tuple[Any, ...]]) -> Scored:
        context = arguments[0][0]
        options = tuple(self._target(each) for each in arguments)
        pictures = self._pictures(arguments[0])
        if not context and not pictures:
            return self.model.prepare(AskedText(context="", options=options))
        return self.model.prepare(Asked(request=self._request(context, pictures), options=options, spaced=False))

    def _writing(self, arguments: tuple[Any, ...]) -> Request:
        settings = writing_settings(arguments[1], most_tokens=_MOST_TOKENS)
        return self._request(arguments[0], self._pictures(arguments), **settings)

    def _request(self, context: str, pictures: Sequence[Any], **settings: Any) -> Request:
        if pictures or self.model.answering.prompts.reads_messages:
            return chat_request(context, pictures, **settings)
        return Request(prompt=context, **settings)

    def _target(self, arguments: tuple[Any, ...]) -> str:
        target = arguments[1]
        if callable(target):
            target = target(self._doc(arguments))
        return str(target)

    def _pictures(self, arguments: tuple[Any, ...]) -> list[Any]:
        # Two arguments only: the question without its context, for mutual information.
        visual = arguments[2] if len(arguments) > 2 else None
        if callable(visual):
            visual = visual(self._doc(arguments))
        return [each for each in visual or () if each is not None]

    def _doc(self, arguments: tuple[Any, ...]) -> Any:
        _, _, _, doc_id, task, split = arguments[:6]
        return self.task_dict[task][split][doc_id]


def _same_question(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Context, document, task and split."""
    return arguments[0], *arguments[3:6]


def manifest() -> ModelManifest:
    """What the entry point gives to lmms-eval."""
    return ModelManifest(model_id=NAME, simple_class_path=f"{__name__}.{LensmithLmms.__name__}")
