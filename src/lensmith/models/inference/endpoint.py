"""A model in this process as an endpoint, and what it takes to answer requests with it."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lensmith.core.endpoint import Answer, Capabilities, Feature, RefusedError, Request, features_where, needed_features
from lensmith.core.errors import InputError
from lensmith.core.exposure import Exposure, visible_metadata
from lensmith.core.images import DEFAULT_LIMITS, ImageLimits
from lensmith.models.inference.answers import Collector
from lensmith.models.inference.decoder import Answers, Decoder, Job, Text
from lensmith.models.inference.kv_cache import SPARE_COLUMNS
from lensmith.models.inference.prefill import CHUNK_TOKENS, Prefill, Prompt
from lensmith.models.inference.prompts import PicturePrompts, PromptMaker, TextPrompts
from lensmith.models.inference.token_table import TokenTable
from lensmith.models.linear.int8 import weights_dtype
from lensmith.models.linear.packed import count_parameters
from lensmith.models.processor import VisionLanguageProcessor

CACHE_BYTES = 512 << 20
SLOTS = 8
_FALLBACK_LENGTH = 2048

Reading: TypeAlias = PreTrainedTokenizerBase | VisionLanguageProcessor


class Pending(NamedTuple):
    """A request that is about to be answered: what the decoder works on, and what comes of it."""

    job: Job
    collector: Collector


@dataclass(frozen=True, kw_only=True)
class Answering:
    """A model with all that turns requests into answers. One `decoder` at a time may use it."""

    name: str
    model: PreTrainedModel
    prompts: PromptMaker
    prefill: Prefill
    text: Text
    tokens: TokenTable
    max_length: int
    vocabulary_size: int

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        reading: Reading,
        *,
        name: str,
        max_length: int | None = None,
        cache_bytes: int = CACHE_BYTES,
        chunk_tokens: int = CHUNK_TOKENS,
        pictures: ImageLimits = DEFAULT_LIMITS,
    ) -> "Answering":
        """`reading` is the model's tokenizer or processor. Raises InputError where `max_length` is beyond the model."""
        if isinstance(reading, VisionLanguageProcessor):
            prompts: PromptMaker = PicturePrompts(reading, pictures)
        else:
            prompts = TextPrompts(reading)
        # A copy: tokenizers may be used by one thread only, and prompts are made in another than answers.
        own = copy.deepcopy(prompts.tokenizer)

        def decode(token_ids: Sequence[int]) -> str:
            # Without cleaning up: a space before a full stop is part of the text.
            text: str = own.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            return text

        return cls(
            name=name,
            model=model,
            prompts=prompts,
            prefill=Prefill(model, cache_bytes=cache_bytes, chunk_tokens=chunk_tokens),
            text=Text(decode=decode, end_ids=_end_ids(model, own)),
            tokens=TokenTable(own),
            max_length=_max_length(model, max_length),
            vocabulary_size=int(model.get_output_embeddings().weight.shape[0]),
        )

    def prompt(self, request: Request) -> Prompt:
        """What the model reads. Raises RefusedError as `check` does, InputError where it makes no sense for the model.

        A text that cannot fit, whatever its tokens, is refused before it is taken apart, which would take long.
        """
        self.check(request)
        texts = [part for message in request.messages for part in message.parts if isinstance(part, str)]
        size = sum(len(text.encode("utf-8", "replace")) for text in (*texts, request.prompt))
        if size > self.max_length * self.tokens.longest_bytes:
            raise InputError("the prompt is longer than the model can read", expected=f"{self.max_length} tokens")
        return self.prompts.prompt(request)

    def check(self, request: Request) -> None:
        """Raises RefusedError for messages or pictures where the model reads none."""
        needed = needed_features(request)
        if Feature.PICTURES in needed and not self.prompts.reads_pictures:
            raise RefusedError("this model reads no pictures", feature=Feature.PICTURES, expected="messages of text")
        if Feature.MESSAGES in needed and not self.prompts.reads_messages:
            raise RefusedError(
                "this model has no chat template",
                feature=Feature.MESSAGES,
                expected="a prompt, not messages",
                hint="ask at /v1/completions",
            )

    def pending(
        self, request: Request, decoder: Decoder, on_text: Callable[[str], None] = lambda text: None
    ) -> "Pending":
        """A job for the decoder, and where its answer gathers. Raises as `prompt` and `Decoder.check` do."""
        prompt = self.prompt(request)
        decoder.check(request, prompt, self.vocabulary_size)
        collector = Collector(request, prompt, self.vocabulary_size, on_text)
        return Pending(Job(request=request, prompt=prompt, sink=collector.take), collector)

    def decoder(
        self,
        exposure: Exposure,
        *,
        slots: int,
        answers: Answers = Answers.FORGOTTEN,
        spare_columns: int = SPARE_COLUMNS,
    ) -> Decoder:
        """A decoder of at most `slots` rows; see `Decoder`."""
        return Decoder(
            self.prefill,
            self.text,
            exposure,
            slots=slots,
            max_length=self.max_length,
            answers=answers,
            spare_columns=spare_columns,
        )

    def facts(self) -> dict[str, Any]:
        """What may be told of the model, as JSON values; `id` is its name."""
        config = self.model.config.get_text_config()
        return {
            "id": self.name,
            "architecture": type(self.model).__name__,
            "width": int(self.model.get_output_embeddings().weight.shape[1]),
            "layers": int(config.num_hidden_layers),
            "vocabulary_size": self.vocabulary_size,
            "context_tokens": self.max_length,
            "parameters": count_parameters(self.model),
            "dtype": str(weights_dtype(self.model)).removeprefix("torch."),
        }

    def capabilities(self, exposure: Exposure) -> Capabilities:
        """What the model can do, as far as the exposure allows it. Sizes are told where metadata is."""
        can = {
            Feature.MESSAGES: self.prompts.reads_messages,
            Feature.PICTURES: self.prompts.reads_pictures,
            Feature.PROMPT_TEXT | Feature.TOKEN_IDS | Feature.SEED | Feature.STOP: True,
        }
        return Capabilities(
            features=features_where(can) | exposure.features,
            max_top_logprobs=exposure.top_logprobs,
            vocabulary_size=self.vocabulary_size if exposure.metadata else None,
            context_tokens=self.max_length if exposure.metadata else None,
        )


class LocalEndpoint:
    """A model in this process as an endpoint; it reveals what `exposes` says. Not for several threads.

    In float32 an answer has the same greedy tokens as it would have alone. Logprobs agree within 1e-5 for tiny models,
    and within 4e-5 for one of 135 million parameters, whose sums are added in another order (LOG.md).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer_or_processor: Reading,
        *,
        exposes: Exposure | None = None,
        name: str = "local",
        slots: int = SLOTS,
        **settings: Any,
    ) -> None:
        """`settings`: see `Answering.of`."""
        self._set(Answering.of(model, tokenizer_or_processor, name=name, **settings), exposes, slots)

    @classmethod
    def around(cls, answering: Answering, *, exposes: Exposure | None = None, slots: int = SLOTS) -> "LocalEndpoint":
        """An endpoint whose model is loaded already."""
        endpoint = cls.__new__(cls)
        endpoint._set(answering, exposes, slots)
        return endpoint

    def _set(self, answering: Answering, exposes: Exposure | None, slots: int) -> None:
        self.answering, self.slots = answering, slots
        self.exposure = Exposure.everything() if exposes is None else exposes

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """One answer for each request, in order, computed in batches of at most `slots` rows.

        Raises RefusedError where the exposure does not allow what one asks, InputError where one makes no sense for
        this model, both before anything is computed.
        """
        decoder = self._decoder()
        pending = [self.answering.pending(request, decoder) for request in requests]
        for _ in decoder.run([each.job for each in pending]):
            pass
        return [each.collector.answer() for each in pending]

    def stream(self, request: Request) -> Iterator[str]:
        """The text of the one answer in pieces, each as soon as its characters are whole.

        Nothing runs between two pieces, so whoever stops asking, or closes the iterator, stops the work. Raises as
        `answer` does, at once.
        """
        if request.n != 1:
            raise InputError("a stream has one answer", expected="n=1", actual=request.n)
        texts: list[str] = []
        decoder = self._decoder()
        return _streamed(decoder, self.answering.pending(request, decoder, texts.append).job, texts)

    def check(self, request: Request) -> None:
        """Raises InputError or RefusedError where `answer` could not answer the request."""
        self.answering.pending(request, self._decoder())

    def _decoder(self) -> Decoder:
        return self.answering.decoder(self.exposure, slots=self.slots)

    def supports(self) -> Capabilities:
        return self.answering.capabilities(self.exposure)

    def metadata(self) -> Mapping[str, Any]:
        return visible_metadata(self.answering.facts(), self.exposure)


def _streamed(decoder: Decoder, job: Job, texts: list[str]) -> Iterator[str]:
    with contextlib.closing(decoder.run([job])) as steps:  # type: ignore[type-var]  # a generator
        for _ in steps:
            yield from filter(None, texts)
            texts.clear()


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    generation = model.generation_config
    ends = None if generation is None else generation.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    if ends is None:
        return frozenset()
    return frozenset([ends] if isinstance(ends, int) else map(int, ends))


def _max_length(model: PreTrainedModel, wanted: int | None) -> int:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if wanted is None:
        return int(limit) if limit else _FALLBACK_LENGTH
    if wanted < 1 or (limit and wanted > limit):
        raise InputError(
            "max_model_len: not possible", expected=f"1 to {limit or 'any number of'} tokens", actual=wanted
        )
    return wanted
