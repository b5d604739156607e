"""The caller's side: a connection, calls that are waited for at once, and calls that are waited for later.

All of it may be used by any number of threads. What waits releases the interpreter, and notices Ctrl-C within 50 ms.
Why no `dataclasses` and no `asyncio` at the top: importing them takes longer than everything else here, and function processes import
this too.
"""

from __future__ import annotations

import collections
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Callable,
    Deque,
    Generator,
    Iterable,
    Iterator,
    NamedTuple,
    Optional,
    Tuple,
    Type,
    Union,
)

from . import _native
from ._status import Criticality

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

    Payload = Union[Buffer, str]
    """What is sent: anything that can be seen as bytes, and text, which goes in UTF-8."""
else:
    Payload = Union[bytes, bytearray, memoryview, str]

__all__ = ["Answer", "Client", "Payload", "PendingCall", "Timings", "TraceContext"]

# Calls that `map` keeps on their way: enough to keep a few warm processes busy over a connection, and few enough that the first answer
# is not behind a crowd of its own.
_WINDOW_DEFAULT = 64


class TraceContext(NamedTuple):
    """The trace that a call belongs to, as W3C Trace Context has it."""

    trace_id: bytes
    """16 bytes."""
    parent_span_id: bytes
    """8 bytes: the span in which the call was made."""
    flags: int = 1
    """Bit 0: sampled."""

    @classmethod
    def from_traceparent(cls, text: str) -> TraceContext:
        """Reads the header `traceparent`."""
        parts = text.split("-")
        if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
            raise ValueError(f"{text!r} is not a traceparent")
        return cls(bytes.fromhex(parts[1]), bytes.fromhex(parts[2]), int(parts[3], 16))

    @property
    def traceparent(self) -> str:
        """The header `traceparent`."""
        return f"00-{self.trace_id.hex()}-{self.parent_span_id.hex()}-{self.flags & 0xFF:02x}"


class Timings(NamedTuple):
    """Where the time of a call went. All but the first in nanoseconds from received; None: never reached."""

    received_at_ns: int
    """When the router read the frame, on its monotonic clock."""
    admitted_ns: Optional[int]
    """Until admission said yes."""
    queued_ns: Optional[int]
    """Until the call stood in its run queue."""
    pushed_ns: Optional[int]
    """Until the call was in a worker's ring."""
    started_ns: Optional[int]
    """Until the function began."""
    finished_ns: Optional[int]
    """Until the function returned."""
    answered_ns: Optional[int]
    """Until the router wrote this answer."""
    cause: str
    """What the call waited for longest."""


class Answer(NamedTuple):
    """The result of a call."""

    payload: bytes
    """What the function returned."""
    timings: Optional[Timings] = None
    """Where the time went, if the call asked."""


def answer_of(parts: Tuple[bytes, Optional[_native._Timings]]) -> Answer:
    payload, timings = parts
    if timings is None:
        return Answer(payload)
    received_at_ns, stages, cause = timings
    return Answer(payload, Timings._make((received_at_ns, *stages, cause)))


def options(
    timeout: Optional[float] = None,
    start_after: Optional[float] = None,
    criticality: Optional[Criticality] = None,
    idempotent: bool = False,
    idempotency_key: Optional[bytes] = None,
    trace: Optional[TraceContext] = None,
    timings: bool = False,
) -> _native._Options:
    if idempotency_key is not None and len(idempotency_key) != 16:
        raise ValueError(f"an idempotency key has 16 bytes, not {len(idempotency_key)}")
    if trace is not None and (len(trace.trace_id), len(trace.parent_span_id)) != (16, 8):
        raise ValueError("a trace id has 16 bytes, a span id 8")
    return (timeout, start_after, criticality, idempotent, idempotency_key, trace, timings)


class PendingCall:
    """A call on its way: from `Client.submit`. May be waited for by any thread, or awaited in asyncio.

    One that is dropped unanswered is cancelled.
    """

    __slots__ = ("_native",)

    def __init__(self, pending: _native.Pending) -> None:
        self._native = pending

    def result(self, timeout: Optional[float] = None) -> Answer:
        """Waits for the end, and gives the answer or raises what the call ended with, as often as asked.

        After `timeout` seconds raises the builtin TimeoutError; the call goes on. (A call whose own time is over ends as `Expired`.)
        """
        return answer_of(self._native.result(timeout))

    def done(self) -> bool:
        """The call has ended: `result` would return at once."""
        return self._native.done()

    def cancel(self) -> None:
        """Asks the router to stop the call, and returns at once. The call still ends: as `Cancelled`, or with an answer that was
        faster."""
        self._native.cancel()

    def add_done_callback(self, callback: Callable[[PendingCall], object]) -> None:
        """Has `callback` called with this call when it has ended: by the thread that learns of it, or here if it has ended already.

        It must be quick, and must not wait for other calls: answers wait for it.
        """
        self._native.when_done(lambda: callback(self))

    def __await__(self) -> Generator[object, None, Answer]:
        """Waits in asyncio. Cancelling the task that waits cancels the call."""
        if not self.done():
            import asyncio

            loop = asyncio.get_running_loop()
            ended: asyncio.Future[None] = loop.create_future()

            def end() -> None:
                if not ended.done():
                    ended.set_result(None)

            def wake() -> None:
                try:
                    loop.call_soon_threadsafe(end)
                except RuntimeError:
                    pass  # the loop is closed: nobody waits there any more

            self._native.when_done(wake)
            try:
                yield from ended
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self.result()


class Client:
    """A connection to a router, kept alive, for any number of threads.

    `url` is `quickfire://HOST:PORT`, `unix:///PATH` or `shm:///RUN_DIR`; without one, what $QUICKFIRE_CONNECT says, else
    `quickfire://127.0.0.1:7450`. When the connection breaks, the calls on it end as `Disconnected`, and later calls wait for the next
    connection, for `connect_timeout` at most.

    A process that was forked makes its own: the parent's raises `ForkedError` there.
    """

    __slots__ = ("_native",)

    def __init__(
        self,
        url: Optional[str] = None,
        *,
        connect_timeout: float = 5.0,
        credits: int = 0,
        frame_size_max: int = 0,
    ) -> None:
        """`credits`: calls that may be outstanding at once; `frame_size_max`: the largest frame in bytes. 0 leaves both to the router."""
        self._native = _native.Client(url, connect_timeout, credits, frame_size_max)

    @property
    def url(self) -> str:
        """Where it connects."""
        return self._native.url

    def close(self) -> None:
        """Takes no further calls. Those on their way still end; then the connection is closed."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def call(
        self,
        function: str,
        payload: Payload = b"",
        *,
        timeout: Optional[float] = None,
        start_after: Optional[float] = None,
        criticality: Optional[Criticality] = None,
        idempotent: bool = False,
        idempotency_key: Optional[bytes] = None,
        trace: Optional[TraceContext] = None,
        timings: bool = False,
    ) -> Answer:
        """Calls `function` and waits for the end: an `Answer`, or a `CallError`.

        timeout: seconds within which the answer is needed; the call's deadline. Without one the function's own time-out applies.
        start_after: seconds before which the call must not start; the deadline counts from there.
        criticality: how much it matters when not all can be served.
        idempotent: running it twice does no harm, so the router may try again when a worker dies with it.
        idempotency_key: 16 bytes; calls with the same key are the same call. Implies idempotent.
        trace: the trace it belongs to.
        timings: asks for `Answer.timings`.
        """
        said = options(timeout, start_after, criticality, idempotent, idempotency_key, trace, timings)
        return answer_of(self._native.call(function, payload, said))

    def submit(
        self,
        function: str,
        payload: Payload = b"",
        *,
        timeout: Optional[float] = None,
        start_after: Optional[float] = None,
        criticality: Optional[Criticality] = None,
        idempotent: bool = False,
        idempotency_key: Optional[bytes] = None,
        trace: Optional[TraceContext] = None,
        timings: bool = False,
        wait: bool = True,
    ) -> PendingCall:
        """Sends a call and returns at once; many may be outstanding. Keywords as for `call`.

        Waits only while every credit of the connection is in use or the connection is being made again; with `wait=False` raises
        `WouldBlock` instead, as asynchronous code wants it.
        """
        said = options(timeout, start_after, criticality, idempotent, idempotency_key, trace, timings)
        return PendingCall(self._native.submit(function, payload, said, wait))

    def map(
        self,
        function: str,
        payloads: Iterable[Payload],
        *,
        window: int = _WINDOW_DEFAULT,
        timeout: Optional[float] = None,
        criticality: Optional[Criticality] = None,
        idempotent: bool = False,
    ) -> Iterator[Answer]:
        """Calls `function` for each payload, `window` of them at a time, and gives the answers in the payloads' order.

        The first call that fails raises, and those behind it are cancelled. Keywords as for `call`, each counting for each call.
        """
        if window < 1:
            raise ValueError(f"window is {window}: at least 1")
        said = options(timeout, None, criticality, idempotent)
        return self._answers(function, iter(payloads), window, said)

    def _answers(
        self, function: str, payloads: Iterator[Payload], window: int, said: _native._Options
    ) -> Iterator[Answer]:
        calls: Deque[_native.Pending] = collections.deque()
        for payload in payloads:
            if len(calls) >= window:
                yield answer_of(calls.popleft().result(None))
            calls.append(self._native.submit(function, payload, said, True))
        while calls:
            yield answer_of(calls.popleft().result(None))
