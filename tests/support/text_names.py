"""A fake endpoint that names tokens by text, as OpenAI's interface does: its client numbers the texts."""

from dataclasses import replace

import numpy as np

from lensmith.core.endpoint import NO_TOKEN, RefusedError
from lensmith.endpoints.fake.endpoint import FakeEndpoint
from lensmith.openai_api.vocabulary import TextVocabulary


class ByText(FakeEndpoint):
    """Numbers of texts stand where ids would. `texts` are the client's."""

    def __init__(self, **switches):
        super().__init__(**switches)
        self.texts = TextVocabulary()

    def number(self, token_id):
        return self.texts.number(self.tokens.data(token_id))

    def answer(self, requests):
        return [self._by_text(answer) for answer in super().answer(requests)]

    def _by_text(self, answer):
        choices = []
        for choice in answer.choices:
            logprobs = choice.logprobs
            if logprobs is not None:
                logprobs = replace(logprobs, top_ids_TK=self._numbers(logprobs.top_ids_TK))
            choices.append(replace(choice, token_ids_T=self._numbers(choice.token_ids_T), logprobs=logprobs))
        return replace(answer, choices=tuple(choices))

    def _numbers(self, ids):
        flat = [NO_TOKEN if each == NO_TOKEN else self.number(each) for each in ids.ravel().tolist()]
        return np.array(flat, dtype=np.int64).reshape(ids.shape)


class TextPrompts(ByText):
    """The same where a prompt is text: one of token ids is refused, as llama-cpp-python's completions do."""

    def answer(self, requests):
        if any(request.token_ids for request in requests):
            raise RefusedError("prompt: Input should be a valid string")
        return super().answer(requests)


class ByMergedText(ByText):
    """The same where top tokens are an object with texts as keys, as in completions: equal texts are one."""

    def answer(self, requests):
        return [
            replace(
                answer, choices=tuple(replace(each, logprobs=self._merged(each.logprobs)) for each in answer.choices)
            )
            for answer in super().answer(requests)
        ]

    def _merged(self, logprobs):
        if logprobs is None:
            return None
        top_TK = logprobs.top_TK.copy()
        for row, ids in enumerate(logprobs.top_ids_TK.tolist()):
            top_TK[row, [place for place, each in enumerate(ids) if each in ids[:place]]] = np.nan
        return replace(logprobs, top_TK=top_TK, top_ids_TK=np.where(np.isfinite(top_TK), logprobs.top_ids_TK, NO_TOKEN))
