"""Requests sent, several at a time, tried again while a server is busy, and given up at once when a person says stop.

Python joins the threads of its own pools before it exits, and closing a socket does not end a read of it in another
thread; so the threads here are daemons, and `close` shuts the sockets down, which ends the reads.
"""

import contextlib
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import httpx

from lensmith.core.endpoint import Feature
from lensmith.endpoints.http.errors import error_of, no_endpoint
from lensmith.endpoints.http.retries import RetryPolicy, SilenceMonitor, retry_after_s, spoken_s
from lensmith.openai_api import BusyError, EndpointError

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
_LEAVE_S = 0.5
"""How long `close` waits for requests to notice that they were given up."""

Job = tuple[Future[httpx.Response], Callable[[], httpx.Response]]


class Sender:
    """Sends to one server through `client`, which it closes.

    `sleep` is a seam for tests; without it waits end when the sender is closed.
    """

    def __init__(
        self,
        client: httpx.Client,
        base_url: str,
        *,
        concurrency: int,
        retries: RetryPolicy,
        monitor: SilenceMonitor,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.client, self.monitor = client, monitor
        self._base_url, self._concurrency, self._retries = base_url, concurrency, retries
        self._closing = threading.Event()
        self._sleep: Callable[[float], object] = sleep or self._closing.wait
        self._lock = threading.Lock()
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._has_connected = self._has_answered = False

    def submit(
        self, url: str, body: Mapping[str, Any] | None, asked: Feature | None = None
    ) -> "Future[httpx.Response]":
        """Sends in another thread, where one is free. Raises EndpointError where the sender is closed."""
        self._check_open()
        future: Future[httpx.Response] = Future()
        self._jobs.put((future, lambda: self.send(url, body, asked)))
        if len(self._threads) < self._concurrency:
            name = f"lensmith-http-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
            self._threads[-1].start()
        return future

    def send(
        self, url: str, body: Mapping[str, Any] | None, asked: Feature | None = None, *, reads_later: bool = False
    ) -> httpx.Response:
        """The response with status 200. `reads_later`: its content is still to come; the caller closes it.

        Raises what `error_of` makes of an error status, BusyError where the server stays busy or asks for more patience
        than there is, EndpointError where it cannot be reached.
        """
        with self.monitor.request():
            for attempt in range(self._retries.tries):
                response, failure = self._try(url, body, reads_later=reads_later)
                if response is not None and response.status_code not in RETRIED_STATUSES:
                    return self._accepted(response, body, asked)
                named_s = None if response is None else retry_after_s(response)
                if named_s is not None and named_s > self._retries.most_wait_s:
                    break
                if attempt + 1 < self._retries.tries:
                    self._wait(self._retries.wait_s(attempt, named_s), response)
        if response is not None:
            raise self._busy(response, attempt + 1)
        raise self._unreachable(failure) from failure

    def peek(self, url: str) -> httpx.Response | None:
        """What a GET gives, asked once; None for another status than 200, or a connection that broke."""
        with self.monitor.request():
            response, _ = self._try(url, None, reads_later=False)
        return response if response is not None and response.status_code == 200 else None

    def close(self) -> None:
        """Gives up what was not answered yet, and closes the connections."""
        self._closing.set()
        self.monitor.close()
        with contextlib.suppress(queue.Empty):
            while job := self._jobs.get_nowait():
                job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            connection = stream.get_extra_info("socket")
            with contextlib.suppress(OSError):
                if connection is not None:
                    connection.shutdown(socket.SHUT_RDWR)
        end_s = time.monotonic() + _LEAVE_S
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))
        self.client.close()

    # --- one try --------------------------------------------------------------------------------------------------

    def _try(
        self, url: str, body: Mapping[str, Any] | None, *, reads_later: bool
    ) -> tuple[httpx.Response | None, httpx.TransportError | None]:
        """A response of any status, or why the connection failed."""
        request = self.client.build_request(
            "POST" if body is not None else "GET", url, json=body, extensions={"trace": self._note}
        )
        try:
            response = self.client.send(request, stream=reads_later)
            if response.status_code != 200:
                response.read()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if not self._has_connected:
                raise self._unreachable(error) from error
            return None, error
        except (httpx.RemoteProtocolError, httpx.ReadError) as error:
            return None, error
        except httpx.HTTPError as error:
            raise EndpointError("the endpoint did not answer", actual=f"{type(error).__name__}: {error}") from error
        self._has_connected = True
        return response, None

    def _accepted(
        self, response: httpx.Response, body: Mapping[str, Any] | None, asked: Feature | None
    ) -> httpx.Response:
        if not self._has_answered and (wrong := no_endpoint(response)) is not None:
            response.close()
            raise wrong
        if response.status_code != 200:
            raise error_of(response, body, asked)
        self._has_answered = True
        self.monitor.received()
        return response

    def _wait(self, seconds: float, response: httpx.Response | None) -> None:
        reason = "no connection" if response is None else f"it is busy: {response.status_code}"
        self.monitor.busy(f"{reason}; it is asked again after {spoken_s(seconds)}")
        self._sleep(seconds)
        self._check_open()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise EndpointError("the request was given up", actual="its client was closed")

    def _busy(self, response: httpx.Response, tries: int) -> BusyError:
        named_s = retry_after_s(response)
        times = "" if tries == 1 else f" over {tries} tries"
        return BusyError(
            f"the endpoint is busy ({response.status_code}){times}",
            expected=f"an answer, or to be asked to wait {spoken_s(self._retries.most_wait_s)} at most",
            actual="it names no time to wait" if named_s is None else f"it asks to wait {spoken_s(named_s)}",
            status=response.status_code,
            retry_after_s=named_s,
            hint="ask for less at once, or later",
        )

    def _unreachable(self, failure: Exception | None) -> EndpointError:
        return EndpointError(
            "the endpoint cannot be reached",
            expected=f"a server at {self._base_url}",
            actual=failure,
            hint=None if self._has_connected else "is the server running, and is this its address?",
        )

    # --- threads and sockets --------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 (it is raised where the result is asked for)
                future.set_exception(error)

    def _note(self, event: str, info: Mapping[str, Any]) -> None:
        """Remembers each connection's socket, as httpcore tells of it."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._streams.add(info["return_value"])
