"""Every way in which a connection, a call or a function can go wrong, each saying who is at fault and whether to try again.

The native part makes these by name and keyword: see `src/outcome.rs`. `FunctionError` and `Backpressure` are also what a function
raises to answer with.
"""

from __future__ import annotations

from typing import Optional, Union

from ._status import Fault, Retry, Status

__all__ = [
    "Backpressure",
    "CallEnded",
    "CallError",
    "Cancelled",
    "ClientClosed",
    "ConnectError",
    "Disconnected",
    "Error",
    "Expired",
    "ForkedError",
    "FunctionError",
    "Refused",
    "RouterMisbehaved",
    "ServeError",
    "UnknownFunction",
    "UnknownStatus",
    "WorkerLost",
    "WouldBlock",
]


class Error(Exception):
    """Everything that this package raises, but for wrong arguments, which are ValueError and TypeError."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class ConnectError(Error, ConnectionError):
    """There is no connection: nobody answers, or a router refused."""

    def __init__(self, message: str = "", *, fault: str = "router", status: Optional[int] = None) -> None:
        super().__init__(message)
        self.fault = Fault(fault)
        self.status = None if status is None else Status(status)


class ClientClosed(Error):
    """The client was closed before."""


class ForkedError(Error):
    """The object was made by the process that this one was forked from."""


class CallEnded(Error):
    """A function kept a call, and asked about it after it had answered; or another thread asked."""


class ServeError(Error):
    """This process cannot serve, or cannot go on."""


class CallError(Error):
    """Every end of a call that is not its result."""

    status: Optional[Status]
    """What the router answered; None for what happened on this side of the wire, or if the number is unknown."""
    fault: Fault
    """Who has to change something for the call to succeed."""
    retry: Retry
    """Whether the same call may be made again."""
    started: Optional[bool]
    """Whether the function had begun; None: it may have."""
    retry_after: Optional[float]
    """Seconds after which the router thinks that trying again may succeed."""

    def __init__(
        self,
        message: str = "",
        *,
        status: Optional[int] = None,
        fault: str = "nobody",
        retry: str = "safe",
        started: Optional[bool] = None,
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message)
        self.status_number = status
        self.status = _known(status)
        self.fault = Fault(fault)
        self.retry = Retry(retry)
        self.started = started
        self.retry_after = retry_after


class Refused(CallError):
    """Not admitted: the function has not run. `status` says why."""


class UnknownFunction(Refused):
    """The router has no function of this name."""


class FunctionError(CallError):
    """The function ran and answered with an error of its own.

    Raised in a function: its caller gets exactly these bytes.
    """

    def __init__(
        self,
        payload: Union[bytes, str] = b"",
        *,
        status: Optional[int] = Status.FUNCTION_ERROR,
        fault: str = "function",
        retry: str = "if_idempotent",
        started: Optional[bool] = True,
        retry_after: Optional[float] = None,
    ) -> None:
        self.payload = payload.encode() if isinstance(payload, str) else bytes(memoryview(payload))
        text = self.payload.decode(errors="backslashreplace")
        super().__init__(
            text, status=status, fault=fault, retry=retry, started=started, retry_after=retry_after
        )


class Backpressure(CallError):
    """The function ran and found something overloaded that it calls: `downstream`.

    Raised in a function: the router calls the function less often for a while. `severity` says how many refusals of the downstream
    this stands for, 1 to 255.
    """

    def __init__(
        self,
        downstream: str,
        severity: int = 1,
        *,
        status: Optional[int] = Status.BACKPRESSURE,
        fault: str = "nobody",
        retry: str = "if_idempotent",
        started: Optional[bool] = True,
        retry_after: Optional[float] = None,
    ) -> None:
        if not 1 <= severity <= 255:
            raise ValueError(f"severity is {severity}: 1 to 255")
        super().__init__(
            f"the function was pushed back by {downstream}",
            status=status,
            fault=fault,
            retry=retry,
            started=started,
            retry_after=retry_after,
        )
        self.downstream = downstream
        self.severity = severity


class Expired(CallError, TimeoutError):
    """The deadline or the function's time-out came first. `started` is None if the router did not answer in time."""


class Cancelled(CallError):
    """Cancelled, by its caller or by the router."""


class WorkerLost(CallError):
    """The worker failed the call: it died, misbehaved, or made a result that is too large. `status` says which."""


class Disconnected(CallError, ConnectionError):
    """The connection ended, or none could be made, before the answer came. `started` is False when the request provably never left
    this process in full, else None."""


class RouterMisbehaved(Disconnected):
    """The connection ended because what came from it is not the protocol."""


class UnknownStatus(CallError):
    """The router is newer than this package. `status_number` is what it answered."""


class WouldBlock(CallError):
    """Only from `submit(..., wait=False)`: there is no credit, or no connection, just now."""


def _known(status: Optional[int]) -> Optional[Status]:
    try:
        return None if status is None else Status(status)
    except ValueError:
        return None
