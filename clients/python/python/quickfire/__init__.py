"""Quickfire functions in Python, and calls to functions in any language.

A function:

    import quickfire

    @quickfire.function
    def shout(call: quickfire.Call) -> bytes:
        return call.payload.upper()

    if __name__ == "__main__":
        quickfire.serve()

A caller:

    with quickfire.Client("quickfire://127.0.0.1:7450") as client:
        answer = client.call("shout", b"hello", timeout=0.05)
        print(answer.payload)

Guide: docs/coding/python.md.
"""

from __future__ import annotations

from ._client import Answer, Client, Payload, PendingCall, Timings, TraceContext
from ._errors import (
    Backpressure,
    CallEnded,
    CallError,
    Cancelled,
    ClientClosed,
    ConnectError,
    Disconnected,
    Error,
    Expired,
    ForkedError,
    FunctionError,
    Refused,
    RouterMisbehaved,
    ServeError,
    UnknownFunction,
    UnknownStatus,
    WorkerLost,
    WouldBlock,
)
from ._function import Call, Handler, Result, after_fork, function, run_after_fork, serve
from ._status import Criticality, Fault, Retry, Status

__all__ = [
    "Answer",
    "Backpressure",
    "Call",
    "CallEnded",
    "CallError",
    "Cancelled",
    "Client",
    "ClientClosed",
    "ConnectError",
    "Criticality",
    "Disconnected",
    "Error",
    "Expired",
    "Fault",
    "ForkedError",
    "FunctionError",
    "Handler",
    "Payload",
    "PendingCall",
    "Refused",
    "Result",
    "Retry",
    "RouterMisbehaved",
    "ServeError",
    "Status",
    "Timings",
    "TraceContext",
    "UnknownFunction",
    "UnknownStatus",
    "WorkerLost",
    "WouldBlock",
    "after_fork",
    "function",
    "run_after_fork",
    "serve",
]
