"""The protocol's words for how a call ended. Held equal to the Rust client's table by tests/test_status.py."""

from __future__ import annotations

import enum

from . import _native

__all__ = ["Criticality", "Fault", "Retry", "Status"]


class Criticality(enum.IntEnum):
    """How much a call matters when not all can be served."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


class Fault(str, enum.Enum):
    """Who has to change something."""

    NOBODY = "nobody"
    CALLER = "caller"
    FUNCTION = "function"
    WORKER = "worker"
    ROUTER = "router"


class Retry(str, enum.Enum):
    """What sending the same call again would do."""

    POINTLESS = "pointless"
    SAFE = "safe"
    IF_IDEMPOTENT = "if_idempotent"


class Status(enum.IntEnum):
    """How a call ended, by the numbers of docs/spec/wire.md."""

    OK = 0
    FUNCTION_ERROR = 1
    BACKPRESSURE = 2
    UNKNOWN_FUNCTION = 16
    QUEUE_FULL = 17
    DEADLINE_PASSED = 18
    CREDITS_EXCEEDED = 19
    CALL_ID_IN_USE = 20
    DRAINING = 21
    OVERLOADED = 22
    PAYLOAD_TOO_LARGE = 23
    NO_WORKER = 24
    UNKNOWN_CRITICALITY = 25
    DEADLINE_UNREACHABLE = 26
    WOULD_DEADLOCK = 27
    RATE_LIMITED = 28
    BREAKER_OPEN = 30
    START_TOO_LATE = 31
    EXPIRED = 32
    TIMED_OUT = 33
    CANCELLED = 48
    WORKER_LOST = 64
    WORKER_MISBEHAVED = 65
    RESULT_TOO_LARGE = 66
    QUARANTINED = 67
    MALFORMED_FRAME = 80
    FRAME_TOO_LARGE = 81
    UNSUPPORTED_VERSION = 82
    UNKNOWN_KIND = 83
    UNKNOWN_CRITICAL_FLAG = 84
    HELLO_EXPECTED = 85
    SLOW_READER = 86
    TOO_MANY_CONNECTIONS = 87
    GOING_AWAY = 88
    UNEXPECTED_FRAME = 89

    @property
    def word(self) -> str:
        """The word used in documents, counters and reports."""
        return self.name.lower()

    @property
    def fault(self) -> Fault:
        """Whose fault it is."""
        return Fault(_TABLE[self][2])

    @property
    def retry(self) -> Retry:
        """What sending the call again would do."""
        return Retry(_TABLE[self][3])

    @property
    def explain(self) -> str:
        """What happened and what the caller should do, in one sentence."""
        return _TABLE[self][4]


_TABLE = {row[0]: row for row in _native.status_table()}
