"""The function's side: a handler, and the loop that gives it calls.

    import, @function, @after_fork        the process initialises: no thread, no descriptor
    serve()                               a template waits here to be copied; in each copy the hooks run
                                          starts a thread for signals, attaches to the ring, and serves until the router says stop

Stage 7 of 8. What a handler returns, or raises, is the call's end; the process goes on.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from typing import Callable, Dict, List, Optional, TextIO, Tuple, TypeVar, cast

from . import _native
from ._client import Answer, Client, Payload, PendingCall, TraceContext, answer_of, options
from ._errors import Backpressure, FunctionError, ServeError
from ._log import Marked
from ._status import Criticality

__all__ = ["Call", "Handler", "Result", "after_fork", "function", "run_after_fork", "serve"]

Result = Optional[Payload]
"""What a handler returns: anything that can be seen as bytes, text, which goes in UTF-8, or None for nothing."""

# How a call ended, for the native part: src/serve.rs.
_OK, _FAILED, _PUSHED_BACK = 0, 1, 2

# `inspect.CO_COROUTINE`, without importing all of that.
_CO_COROUTINE = 0x80

# The longest text of an exception that goes to the caller. All of it goes to stderr, and so into the log.
_ERROR_TEXT_MAX = 1024


class Call:
    """One call, while its function runs. Only the thread that serves may ask about it."""

    __slots__ = ("_live", "payload")

    payload: bytes
    """The caller's bytes."""

    def __init__(self, payload: bytes, live: Optional[_native.LiveCall] = None) -> None:
        """A call without a router, a deadline or anything special: for testing a function alone."""
        self.payload = payload
        self._live = live

    def time_left(self) -> Optional[float]:
        """Seconds until nobody waits any more; None if there is no end."""
        return None if self._live is None else self._live.time_left()

    def is_cancelled(self) -> bool:
        """True when nobody wants the answer any more. Long functions look now and then, and return early."""
        return False if self._live is None else self._live.is_cancelled()

    @property
    def result_size_max(self) -> int:
        """The most bytes a result may have. A longer one is dropped, and the caller told so."""
        return sys.maxsize if self._live is None else self._live.result_size_max()

    @property
    def criticality(self) -> Criticality:
        """How much the call matters to its caller."""
        return Criticality.NORMAL if self._live is None else Criticality(self._live.criticality())

    @property
    def trace(self) -> Optional[TraceContext]:
        """The trace this call belongs to, if its caller traces."""
        parts = None if self._live is None else self._live.trace()
        return None if parts is None else TraceContext(*parts)

    @property
    def idempotency_key(self) -> Optional[bytes]:
        """What the caller uses to mark repetitions of one and the same call: 16 bytes."""
        return None if self._live is None else self._live.idempotency_key()

    @property
    def invocation_id(self) -> int:
        """The router's number of this invocation, as `quickfire inspect` shows it; 0 in a test."""
        return 0 if self._live is None else self._live.invocation_id()

    def call(
        self,
        client: Client,
        function: str,
        payload: Payload = b"",
        *,
        reserve: Optional[float] = None,
        idempotent: bool = False,
        idempotency_key: Optional[bytes] = None,
        timings: bool = False,
    ) -> Answer:
        """Calls another function on behalf of this one, and waits: with this call's criticality and trace, and the time it has left.

        reserve: seconds of that time kept for what is left to do; a twentieth, at least a millisecond, unless said otherwise.
        """
        said = options(idempotent=idempotent, idempotency_key=idempotency_key, timings=timings)
        if self._live is None:
            return answer_of(client._native.call(function, payload, said))
        return answer_of(self._live.call(client._native, function, payload, reserve, said))

    def submit(
        self,
        client: Client,
        function: str,
        payload: Payload = b"",
        *,
        reserve: Optional[float] = None,
        idempotent: bool = False,
        idempotency_key: Optional[bytes] = None,
        timings: bool = False,
    ) -> PendingCall:
        """The same, to be waited for later: for calls of several functions at once."""
        said = options(idempotent=idempotent, idempotency_key=idempotency_key, timings=timings)
        if self._live is None:
            return PendingCall(client._native.submit(function, payload, said, True))
        return PendingCall(self._live.submit(client._native, function, payload, reserve, said))


Handler = Callable[[Call], Result]
_H = TypeVar("_H", bound=Handler)
_Hook = TypeVar("_Hook", bound=Callable[[], object])

_handlers: Dict[str, Handler] = {}
_after_fork: List[Callable[[], object]] = []


def function(handler: _H) -> _H:
    """Makes a handler known to `serve`, under its own name. A file may have several: each process serves one of them."""
    name = handler.__name__
    if getattr(handler, "__code__", None) and handler.__code__.co_flags & _CO_COROUTINE:
        raise TypeError(f"{name} is a coroutine: a process runs one call at a time, so write a plain function")
    if name in _handlers:
        raise ValueError(f"there is a function {name} already")
    _handlers[name] = handler
    return handler


def after_fork(hook: _Hook) -> _Hook:
    """Has `hook` called in each process that is forked from this one once it is initialised, before it serves.

    For what a copy must not share with its siblings: connections, seeds of random numbers, names of temporary files. Not called in a
    process that was started by itself, so put there what is to be made anew, and make it once at import too.
    With `snapshot = true`, `serve` calls it.
    """
    _after_fork.append(hook)
    return hook


def run_after_fork() -> None:
    """Runs the hooks, in their order. For a program that forks by itself, in each copy, before `serve`."""
    for hook in _after_fork:
        hook()


def serve(handler: Optional[Handler] = None) -> None:
    """Serves calls until the router, or SIGTERM, says stop. The main loop of a function process: it does not return before.

    Without a handler: the one that `@quickfire.function` made known; of several, the one with the name of the process's function
    (where that has `-`, a Python name has `_`).
    """
    chosen = handler if handler is not None else _chosen(os.environ.get("QUICKFIRE_FUNCTION", ""))
    # A log is read while the process lives.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
    if "QUICKFIRE_TEMPLATE" in os.environ:
        # What is there by now stays. A collection in a copy that looks through all of it would write to its pages, and so copy them.
        gc.collect()
        gc.freeze()
    server = _native.Server()
    interrupts: List[KeyboardInterrupt] = []

    def answer(live: _native.LiveCall, payload: bytes) -> Tuple[int, int, bytes]:
        try:
            return _OK, 0, _bytes_of(chosen(Call(payload, live)))
        except FunctionError as error:
            return _FAILED, 0, error.payload
        except Backpressure as error:
            return _PUSHED_BACK, error.severity, error.downstream.encode()
        except SystemExit as error:
            _exit(error)
        except KeyboardInterrupt as error:
            interrupts.append(error)
            server.stop()
            return _FAILED, 0, b"KeyboardInterrupt"
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            return _FAILED, 0, _text_of(error)
        raise AssertionError("not reached")

    signals = _StopAtSignals(server)

    def begin(is_copy: bool) -> None:
        if is_copy:
            run_after_fork()
        signals.begin()

    printed = sys.stdout, sys.stderr
    # Where there is no stream, nothing is printed.
    sys.stdout, sys.stderr = (cast(TextIO, stream and Marked(stream)) for stream in printed)
    try:
        server.serve(begin, answer)
    finally:
        sys.stdout, sys.stderr = printed
        signals.end()
    if interrupts:
        raise interrupts[0]


def _chosen(name: str) -> Handler:
    if len(_handlers) == 1:
        return next(iter(_handlers.values()))
    handler = _handlers.get(name.replace("-", "_"))
    if handler is not None:
        return handler
    known = ", ".join(sorted(_handlers)) or "none"
    raise ServeError(f"no handler for the function {name!r}: @quickfire.function made known: {known}")


def _bytes_of(result: Result) -> bytes:
    if isinstance(result, bytes):
        return result
    if result is None:
        return b""
    if isinstance(result, str):
        return result.encode()
    return memoryview(result).tobytes()


def _text_of(error: BaseException) -> bytes:
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # from the error's own __str__
        text = type(error).__name__
    return text[:_ERROR_TEXT_MAX].encode(errors="backslashreplace")


def _exit(error: SystemExit) -> None:
    """`sys.exit` in a handler: the process ends, its call ends as WorkerLost, and the shim starts another process."""
    if error.code is not None and not isinstance(error.code, int):
        print(error.code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))


class _StopAtSignals:
    """From `begin` to `end`, SIGTERM ends `server` after the call that runs, and so does SIGINT, which also raises KeyboardInterrupt.

    The interpreter runs signal handlers only between its own instructions, and a server that sleeps runs none. So a thread reads what
    the interpreter's handler in C writes for each signal. Does nothing where the program has a handler of its own for SIGTERM, or serves
    on another than the main thread.
    """

    def __init__(self, server: _native.Server) -> None:
        self._server = server
        self._writer: Optional[int] = None

    def begin(self) -> None:
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            return
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._fd_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda number, frame: None)
        threading.Thread(target=self._watch, args=[reader], name="quickfire-signals", daemon=True).start()

    def _watch(self, reader: int) -> None:
        while True:
            numbers = os.read(reader, 64)
            if not numbers:
                os.close(reader)
                return
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self._server.stop()

    def end(self) -> None:
        if self._writer is None:
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._writer)  # ends the thread
