"""What came back from the engine, as bodies and as streams."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lensmith.core.endpoint import Answer, Reveal
from lensmith.core.errors import LensmithError
from lensmith.models.inference.answers import Collector, Piece, PromptRead
from lensmith.models.inference.token_table import TokenTable
from lensmith.openai_api import (
    SSE_DONE,
    Delta,
    Kind,
    Usage,
    WireRequest,
    echo_of,
    sse,
    write_answers,
    write_chunk,
    write_error,
    write_usage_chunk,
)
from lensmith.serve.engine import Exchange, Prepared
from lensmith.serve.metrics import Stopwatch

_PREFIXES = {Kind.CHAT: "chatcmpl-", Kind.COMPLETION: "cmpl-"}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One HTTP request while it is answered: its wire requests, their prompts, what tokens are called."""

    wires: Sequence[WireRequest]
    prepared: Sequence[Prepared]
    exchange: Exchange
    names: TokenTable
    vocabulary_size: int
    stopwatch: Stopwatch
    created: int = field(default_factory=lambda: int(time.time()))
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def answer_id(self) -> str:
        return _PREFIXES[self.wires[0].kind] + self.token

    @property
    def prompt_tokens(self) -> int:
        return sum(one.prompt.length for one in self.prepared)

    async def answers(self) -> list[Answer]:
        """The whole answers, when they are complete."""
        collectors = [Collector(one.request, one.prompt, self.vocabulary_size) for one in self.prepared]
        async for index, event in self.exchange.events():
            if isinstance(event, Piece):
                self.stopwatch.token()
            collectors[index].take(event)
        self.stopwatch.done(sum(collector.completion_tokens for collector in collectors))
        return [collector.answer() for collector in collectors]

    def body(self, answers: Sequence[Answer]) -> bytes:
        """The answers as one JSON body."""
        tokens = sum(len(choice.token_ids_T) for answer in answers for choice in answer.choices)
        usage = Usage(prompt_tokens=self.prompt_tokens, completion_tokens=tokens)
        written = write_answers(
            self.wires, answers, self.names, answer_id=self.answer_id, created=self.created, usage=usage
        )
        return json_bytes(written)

    async def stream(self) -> AsyncIterator[bytes]:
        """The answers as server-sent events, piece by piece. An error after the first piece is an event of its own."""
        tokens = 0
        echoed: dict[int, int] = {}
        try:
            async for index, event in self.exchange.events():
                for delta in self._deltas(index, event, echoed):
                    tokens += len(delta.token_ids) if isinstance(event, Piece) else 0
                    yield await self._chunk(self.wires[index], delta, is_prompt=isinstance(event, PromptRead))
        except LensmithError as error:
            yield sse(write_error(error)[1])
            return
        finally:
            self.exchange.close()
            self.stopwatch.done(tokens)
        if self.wires[0].include_usage:
            usage = Usage(prompt_tokens=self.prompt_tokens, completion_tokens=tokens)
            yield sse(write_usage_chunk(self.wires[0], answer_id=self.answer_id, created=self.created, usage=usage))
        yield SSE_DONE

    async def _chunk(self, wire: WireRequest, delta: Delta, *, is_prompt: bool) -> bytes:
        def write() -> bytes:
            chunk = write_chunk(wire, delta, self.names, answer_id=self.answer_id, created=self.created)
            if is_prompt:
                _tell_nothing_of_the_first(chunk)
            return sse(chunk)

        # A whole vocabulary takes long enough to write that others would notice.
        return await asyncio.to_thread(write) if Reveal.VOCABULARY in wire.request.reveal else write()

    def _deltas(self, index: int, event: Any, echoed: dict[int, int]) -> list[Delta]:
        """What an event adds to the stream: the echoed prompt goes before the first piece of each choice.

        `echoed` keeps the characters of the prompt before each choice that has begun.
        """
        wire = self.wires[index]
        first_number = sum(earlier.request.n for earlier in self.wires[:index])
        if isinstance(event, PromptRead):
            if not wire.echo:
                return []
            prompt = self.prepared[index].prompt
            ids = prompt.token_ids_P.tolist()
            echo = echo_of(wire, ids, self.names, prompt.offsets_P)
            numbers = range(first_number, first_number + wire.request.n)
            echoed |= dict.fromkeys(numbers, len(echo.text))
            delta = Delta(text=echo.text, token_ids=tuple(ids), logprobs=event.logprobs, offsets=echo.offsets)
            return [replace(delta, index=number) for number in numbers]
        self.stopwatch.token()
        number = first_number + event.choice
        is_first = number not in echoed
        start = echoed.setdefault(number, 0)
        delta = Delta(
            index=number,
            text=event.text,
            token_ids=event.token_ids,
            logprobs=event.logprobs,
            finish=event.finish,
            offsets=tuple(start + offset for offset in event.offsets),
            is_first=is_first,
        )
        return [delta]


def _tell_nothing_of_the_first(chunk: dict[str, Any]) -> None:
    """A prompt's first token has no context, and so no logprob: null, as in an answer that is not streamed."""
    for choice in chunk["choices"]:
        for column in ("token_logprobs", "top_logprobs"):
            if choice["logprobs"] and choice["logprobs"][column]:
                choice["logprobs"][column][0] = None


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
