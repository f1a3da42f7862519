"""The thread that owns the model, and the requests that wait for it.

Requests join and leave the batch between steps. What the model makes goes to the event loop as it comes; a request
whose client went away is cancelled and frees its slot at the next step. `stop` finishes what was accepted.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

from lensmith.core.endpoint import Request
from lensmith.core.errors import InputError, LensmithError
from lensmith.core.exposure import Exposure
from lensmith.models.inference.answers import Event, Failed, Piece, Sink
from lensmith.models.inference.decoder import Job
from lensmith.models.inference.endpoint import Answering
from lensmith.models.inference.prefill import Prompt
from lensmith.openai_api import BusyError
from lensmith.serve.config import ServerLimits

LOG = logging.getLogger("lensmith.serve")
RETRY_AFTER_S = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request that passed every check, with its prompt."""

    request: Request
    prompt: Prompt


class Engine:
    """Answers requests with one model. Start and stop it once, as an asynchronous context manager."""

    def __init__(
        self, answering: Answering, exposure: Exposure, *, slots: int, limits: ServerLimits | None = None
    ) -> None:
        self.answering, self.exposure = answering, exposure
        self.limits = limits or ServerLimits()
        self.slots = slots
        self.decoder = answering.decoder(exposure, slots=slots)
        self.open_requests = 0
        self._inbox: deque[Job] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="lensmith-model", daemon=True)
        # One thread, for tokenizers may be used by one only.
        self._preparing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lensmith-prompts")
        self._writing = ThreadPoolExecutor(max_workers=2, thread_name_prefix="lensmith-answers")

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Finishes every request that was accepted, then ends the threads."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        self._preparing.shutdown()
        self._writing.shutdown()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_full(self) -> bool:
        return self.open_requests >= self.slots + self.limits.waiting_requests

    async def preparing(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in the thread where prompts are made."""
        return await asyncio.get_running_loop().run_in_executor(self._preparing, work)

    async def writing(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in a thread where answers are written."""
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    def prepare(self, request: Request) -> Prepared:
        """In the thread of `preparing`. Raises RefusedError or InputError where the request cannot be answered."""
        answering = self.answering
        prompt = answering.prompt(request)
        self.decoder.check(request, prompt, answering.vocabulary_size)
        self.limits.check(request, prompt.length, answering.vocabulary_size)
        return Prepared(request=request, prompt=prompt)

    def open(self, prepared: Sequence[Prepared]) -> "Exchange":
        """Accepts requests, to be answered together. Raises BusyError where too many wait already."""
        if self._stopping:
            raise BusyError("the server is stopping", status=503, retry_after_s=RETRY_AFTER_S)
        if self.is_full or len(prepared) > self.limits.waiting_requests:
            raise BusyError("too many requests are waiting", retry_after_s=RETRY_AFTER_S)
        return Exchange(self, prepared)

    def submit(self, jobs: Sequence[Job]) -> None:
        with self._wake:
            self._inbox.extend(jobs)
            self._wake.notify()

    # --- the model's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._take_jobs():
            try:
                self.decoder.step()
            except Exception as error:
                LOG.exception("the decoder failed")
                self.decoder.abandon(error)

    def _take_jobs(self) -> bool:
        """Takes what came in; waits where there is nothing to do. False when all is done and the engine stops."""
        with self._wake:
            while not self._inbox and self.decoder.is_idle:
                if self._stopping:
                    return False
                self._wake.wait()
            while self._inbox:
                self.decoder.submit(self._inbox.popleft())
        return True


class Exchange:
    """Accepted requests, and what comes back for them. Close it in any case: that frees what still runs."""

    def __init__(self, engine: Engine, prepared: Sequence[Prepared]) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._unfinished = sum(one.request.n for one in prepared)
        self._deadline_s = self._loop.time() + engine.limits.timeout_s
        self._jobs = [
            Job(request=one.request, prompt=one.prompt, sink=self._sink(index)) for index, one in enumerate(prepared)
        ]
        self._is_open = True
        self.is_over = False
        """Whether all that was to come has come: the answers, or what went wrong."""
        engine.open_requests += len(self._jobs)
        engine.submit(self._jobs)

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """What becomes of each request, by its number, until all are answered.

        Raises what the model raised, and BusyError where the time limit came first.
        """
        while self._unfinished:
            try:
                async with asyncio.timeout_at(self._deadline_s):
                    index, event = await self._events.get()
            except TimeoutError:
                self.is_over = True
                problem = "the answer took longer than the server allows"
                raise BusyError(problem, status=503, retry_after_s=None) from None
            if isinstance(event, Failed):
                self.is_over = True
                raise _told(event.error)
            if isinstance(event, Piece) and event.finish is not None:
                self._unfinished -= 1
                self.is_over = not self._unfinished
            yield index, event

    def close(self) -> None:
        """Cancels what still runs, and makes room for others."""
        if self._is_open:
            self._is_open = False
            self._engine.open_requests -= len(self._jobs)
            for job in self._jobs:
                job.cancelled = True

    def _sink(self, index: int) -> Sink:
        def sink(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

        return sink


def _told(error: Exception) -> Exception:
    if isinstance(error, InputError):
        return error
    LOG.error("a request failed", exc_info=error)
    return LensmithError("the model failed")
