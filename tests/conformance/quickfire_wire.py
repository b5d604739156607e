"""A second implementation of the Quickfire wire protocol, written only from docs/spec/wire.md.

Its purpose is to show that the document suffices, so it favours plainness over speed and shares nothing with the
Rust crates. Python 3.9 or later, standard library only. Comments cite the document's rules as W-n.

    with Connection.open("quickfire://127.0.0.1:7450") as connection:
        echo = connection.resolve("echo")
        print(connection.invoke(echo, b"hello").payload)
"""

import collections
import select
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

VERSION = 1
MAGIC = 0x52464B51
FRAME_SIZE_MAX_DEFAULT = 1052672
FRAME_SIZE_MAX_FLOOR = 4096

HELLO, RESOLVE, RESOLVED, INVOKE, REPLY, CANCEL, PING, PONG, GOAWAY = range(1, 10)
KIND_NAMES = ["HELLO", "RESOLVE", "RESOLVED", "INVOKE", "REPLY", "CANCEL", "PING", "PONG", "GOAWAY"]
KINDS_OF_CLIENT = {HELLO, RESOLVE, INVOKE, CANCEL, PING}
KINDS_OF_ROUTER = {HELLO, RESOLVED, REPLY, PONG, GOAWAY}

IDEMPOTENCY_KEY, TRACE, WANT_TIMINGS, TIMINGS, IDEMPOTENT, STARTED, CALLED_BY = (1 << bit for bit in range(7))
START_AFTER = 1 << 8
EXTENSION_SIZES = [  # W-22: ascending bits
    (IDEMPOTENCY_KEY, 16),
    (TRACE, 32),
    (TIMINGS, 64),
    (CALLED_BY, 16),
    (START_AFTER, 16),
]
WITH_EXTENSION = IDEMPOTENCY_KEY | TRACE | TIMINGS | CALLED_BY | START_AFTER
UNKNOWN_CRITICAL_FLAGS = 0xFF00 & ~START_AFTER

OK, UNKNOWN_FUNCTION, CREDITS_EXCEEDED, CALL_ID_IN_USE, UNKNOWN_CRITICALITY = 0, 16, 19, 20, 25
DEADLINE_UNREACHABLE, WOULD_DEADLOCK, START_TOO_LATE = 26, 27, 31
DEADLINE_PASSED, EXPIRED, TIMED_OUT, CANCELLED = 18, 32, 33, 48
MALFORMED_FRAME, FRAME_TOO_LARGE, UNSUPPORTED_VERSION, UNKNOWN_KIND = 80, 81, 82, 83
UNKNOWN_CRITICAL_FLAG, HELLO_EXPECTED, GOING_AWAY, UNEXPECTED_FRAME = 84, 85, 88, 89

NOT_REACHED = 2**64 - 1
STAGES = ["admitted", "queued", "pushed", "started", "finished", "answered"]

HEADER = struct.Struct("<IIQIIBBHHH")  # W-2
HELLO_PAYLOAD = struct.Struct("<IHHIIQQ")
TRACE_EXTENSION = struct.Struct("<16s8sII")
TIMINGS_EXTENSION = struct.Struct("<7QB7x")
CALLED_BY_EXTENSION = struct.Struct("<QQ")  # the second: depth in the low 8 bits, above it the wait token
START_AFTER_EXTENSION = struct.Struct("<Q8x")
assert (HEADER.size, HELLO_PAYLOAD.size, TRACE_EXTENSION.size, TIMINGS_EXTENSION.size) == (32, 32, 32, 64)


class Fault(Exception):
    """Bytes that are not the protocol: the table of W-8."""

    def __init__(self, name: str, status: int):
        super().__init__(f"{name} (status {status})")
        self.name, self.status = name, status


class GoneAway(Exception):
    """The router ended the connection and said why."""

    def __init__(self, status: int, reason: str):
        super().__init__(f"GOAWAY with status {status}: {reason}")
        self.status, self.reason = status, reason


class ConnectionEnded(Exception):
    """The stream ended without GOAWAY (W-84)."""


class Refused(Exception):
    """RESOLVED with a status other than ok."""

    def __init__(self, status: int):
        super().__init__(f"refused with status {status}")
        self.status = status


def status_class(status: int) -> str:
    """W-81: also for numbers this program does not know."""
    if status == 0:
        return "ok"
    classes = [(16, "function_error"), (32, "refused"), (48, "expired"), (64, "cancelled"), (80, "worker_lost")]
    return next((name for below, name in classes if status < below), "protocol")


@dataclass
class Frame:
    """One frame; its sizes are computed when it is encoded."""

    kind: int
    call_id: int = 0
    function_id: int = 0
    budget_us: int = 0
    criticality: int = 0
    flags: int = 0
    status: int = 0
    payload: bytes = b""
    idempotency_key: Optional[bytes] = None
    trace: Optional[Tuple[bytes, bytes, int]] = None
    timings: Optional["Timings"] = None
    called_by: Optional[Tuple[int, int, int]] = None  # caller, depth, wait token
    start_after_us: Optional[int] = None
    frame_size: int = 0  # as read
    extension_size: int = 0  # as read


@dataclass
class Timings:
    """Stage stamps: nanoseconds after received, None where the call did not get (W-62)."""

    received_at_ns: int
    stages: Dict[str, Optional[int]]
    cause: int

    def encode(self) -> bytes:
        stamps = [NOT_REACHED if self.stages[stage] is None else self.stages[stage] for stage in STAGES]
        return TIMINGS_EXTENSION.pack(self.received_at_ns, *stamps, self.cause)

    @staticmethod
    def decode(extension: bytes) -> "Timings":
        received_at_ns, *stamps, cause = TIMINGS_EXTENSION.unpack(extension)
        stages = {stage: None if stamp == NOT_REACHED else stamp for stage, stamp in zip(STAGES, stamps)}
        return Timings(received_at_ns, stages, cause if cause <= 5 else 0)  # W-63


@dataclass
class Hello:
    """HELLO's payload."""

    version_min: int = VERSION
    version_max: int = VERSION
    frame_size_max: int = 0
    credits: int = 0
    features: int = 0

    def encode(self) -> bytes:
        limits = (self.version_min, self.version_max, self.frame_size_max, self.credits)
        return HELLO_PAYLOAD.pack(MAGIC, *limits, self.features, 0)

    @staticmethod
    def decode(payload: bytes) -> "Hello":
        if len(payload) < HELLO_PAYLOAD.size:
            raise Fault("hello_too_short", MALFORMED_FRAME)
        magic, *rest, _reserved = HELLO_PAYLOAD.unpack_from(payload)  # W-92: a longer tail is skipped
        if magic != MAGIC:
            raise Fault("hello_magic_wrong", MALFORMED_FRAME)
        hello = Hello(*rest)
        if not hello.version_min <= VERSION <= hello.version_max:
            raise Fault("unsupported_version", UNSUPPORTED_VERSION)
        if 0 < hello.frame_size_max < FRAME_SIZE_MAX_FLOOR:
            raise Fault("frame_size_max_too_small", MALFORMED_FRAME)
        return hello


def round_up_16(size: int) -> int:
    return (size + 15) & ~15


def known_extension_size(flags: int) -> int:
    return sum(size for flag, size in EXTENSION_SIZES if flags & flag)


def encode(frame: Frame) -> bytes:
    """The frame's bytes, with zero padding (W-4)."""
    flags, extensions = frame.flags & ~WITH_EXTENSION, b""
    if frame.idempotency_key is not None:
        flags, extensions = flags | IDEMPOTENCY_KEY, extensions + frame.idempotency_key
    if frame.trace is not None:
        flags, extensions = flags | TRACE, extensions + TRACE_EXTENSION.pack(*frame.trace, 0)
    if frame.timings is not None:
        flags, extensions = flags | TIMINGS, extensions + frame.timings.encode()
    if frame.called_by is not None:
        caller, depth, wait_token = frame.called_by
        flags, extensions = flags | CALLED_BY, extensions + CALLED_BY_EXTENSION.pack(caller, wait_token << 8 | depth)
    if frame.start_after_us is not None:
        flags, extensions = flags | START_AFTER, extensions + START_AFTER_EXTENSION.pack(frame.start_after_us)
    padded = frame.payload.ljust(round_up_16(len(frame.payload)), b"\0")
    header = HEADER.pack(
        HEADER.size + len(extensions) + len(padded),
        len(frame.payload),
        frame.call_id,
        frame.function_id,
        frame.budget_us,
        frame.kind,
        frame.criticality,
        flags,
        frame.status,
        len(extensions),
    )
    return header + extensions + padded


def decode(data: bytes, frame_size_max: int = FRAME_SIZE_MAX_DEFAULT) -> Optional[Frame]:
    """The frame at the front of data, None if more bytes are needed. Raises Fault, in the order of W-8."""
    if len(data) < HEADER.size:
        return None
    fields = HEADER.unpack_from(data)
    frame_size, payload_size, call_id, function_id, budget_us, kind, criticality, flags, status, extension_size = fields
    if frame_size > frame_size_max:
        raise Fault("frame_too_large", FRAME_TOO_LARGE)
    if frame_size < HEADER.size:
        raise Fault("frame_too_small", MALFORMED_FRAME)
    if frame_size % 16:
        raise Fault("frame_size_unaligned", MALFORMED_FRAME)
    if extension_size % 16:
        raise Fault("extension_size_unaligned", MALFORMED_FRAME)
    if HEADER.size + extension_size + round_up_16(payload_size) != frame_size:
        raise Fault("sizes_disagree", MALFORMED_FRAME)
    if known_extension_size(flags) > extension_size:
        raise Fault("extensions_missing", MALFORMED_FRAME)
    if not 1 <= kind <= len(KIND_NAMES):
        raise Fault("unknown_kind", UNKNOWN_KIND)
    if flags & UNKNOWN_CRITICAL_FLAGS:
        raise Fault("unknown_critical_flag", UNKNOWN_CRITICAL_FLAG)
    if len(data) < frame_size:
        return None
    frame = Frame(kind, call_id, function_id, budget_us, criticality, flags, status)
    frame.frame_size, frame.extension_size = frame_size, extension_size
    offset = HEADER.size
    if flags & IDEMPOTENCY_KEY:
        frame.idempotency_key = bytes(data[offset : offset + 16])
        offset += 16
    if flags & TRACE:
        frame.trace = TRACE_EXTENSION.unpack(bytes(data[offset : offset + 32]))[:3]
        offset += 32
    if flags & TIMINGS:
        frame.timings = Timings.decode(bytes(data[offset : offset + 64]))
        offset += 64
    if flags & CALLED_BY:
        caller, word = CALLED_BY_EXTENSION.unpack(bytes(data[offset : offset + 16]))
        frame.called_by = (caller, word & 0xFF, word >> 8)
        offset += 16
    if flags & START_AFTER:
        (frame.start_after_us,) = START_AFTER_EXTENSION.unpack(bytes(data[offset : offset + 16]))
    start = HEADER.size + extension_size  # W-22: past extensions that are not known
    frame.payload = bytes(data[start : start + payload_size])
    return frame


class Stream:
    """Frames over a socket, below any rule about who may send what. Always reads while it writes (W-76)."""

    def __init__(self, endpoint: socket.socket, timeout: float):
        endpoint.setblocking(False)
        self.endpoint, self.timeout = endpoint, timeout
        self.frame_size_max = FRAME_SIZE_MAX_DEFAULT
        self.outgoing, self.incoming = bytearray(), bytearray()
        self.frames: "collections.deque[Frame]" = collections.deque()
        self.has_ended = False

    @staticmethod
    def connect(url: str, timeout: float = 10.0) -> "Stream":
        if url.startswith("unix://"):
            endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            endpoint.connect(url[len("unix://") :])
        elif url.startswith("quickfire://"):
            host, _, port = url[len("quickfire://") :].rpartition(":")
            endpoint = socket.create_connection((host.strip("[]"), int(port)), timeout)
            endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            raise ValueError(f"neither quickfire://host:port nor unix:///path: {url}")
        return Stream(endpoint, timeout)

    def send(self, data: bytes) -> None:
        """Writes all of data, reading what arrives meanwhile."""
        self.outgoing += data
        deadline = time.monotonic() + self.timeout
        while self.outgoing and not self.has_ended:
            self._turn(deadline, write=True)

    def receive(self) -> Frame:
        """The next frame. Raises ConnectionEnded when there is none, Fault when the router misbehaves (W-85)."""
        deadline = time.monotonic() + self.timeout
        while not self.frames:
            if self.has_ended:
                raise ConnectionEnded("the stream ended")
            self._turn(deadline, write=bool(self.outgoing))
        return self.frames.popleft()

    def close(self) -> None:
        self.endpoint.close()
        self.has_ended = True

    def _turn(self, deadline: float, write: bool) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"nothing moved for {self.timeout} s")
        readable, writable, _ = select.select([self.endpoint], [self.endpoint] if write else [], [], remaining)
        try:
            if writable:
                del self.outgoing[: self.endpoint.send(self.outgoing)]
            if readable:
                self._read()
        except (BrokenPipeError, ConnectionResetError):
            self._read_the_rest()

    def _read(self) -> None:
        data = self.endpoint.recv(1 << 18)
        if not data:
            self.has_ended = True
        self.incoming += data
        start = 0
        with memoryview(self.incoming) as view:
            while True:
                with view[start:] as rest:
                    frame = decode(rest, self.frame_size_max)
                if frame is None:
                    break
                start += frame.frame_size
                self.frames.append(frame)
        del self.incoming[:start]

    def _read_the_rest(self) -> None:
        """After a failed write: a GOAWAY may still lie in the socket."""
        try:
            while not self.has_ended:
                self._read()
        except (BlockingIOError, ConnectionResetError, BrokenPipeError):
            self.has_ended = True


@dataclass
class Reply:
    """How a call ended."""

    call_id: int
    status: int
    payload: bytes
    was_started: bool
    retry_after_us: int
    timings: Optional[Timings]


@dataclass
class Connection:
    """A well-behaved client: HELLO, names, calls in slots, CANCEL, PING."""

    stream: Stream
    hello: Hello
    free_slots: List[int] = field(default_factory=list)
    generation: int = 0
    outstanding: set = field(default_factory=set)
    replies: Dict[int, Reply] = field(default_factory=dict)
    is_draining: bool = False
    next_resolve_id: int = 1

    @staticmethod
    def open(url: str, frame_size_max: int = 0, credits: int = 0, timeout: float = 10.0) -> "Connection":
        stream = Stream.connect(url, timeout)
        stream.send(encode(Frame(HELLO, payload=Hello(frame_size_max=frame_size_max, credits=credits).encode())))
        answer = stream.receive()  # W-10: nothing else before the router's HELLO
        if answer.kind == GOAWAY:
            raise GoneAway(answer.status, answer.payload.decode("utf-8", "replace"))
        if answer.kind != HELLO:
            raise Fault("hello_expected", HELLO_EXPECTED)
        hello = Hello.decode(answer.payload)
        stream.frame_size_max = hello.frame_size_max
        connection = Connection(stream, hello)
        connection.free_slots = list(range(hello.credits - 1, -1, -1))
        return connection

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_exception) -> None:
        self.stream.close()

    def resolve(self, name) -> int:
        """The function's number on this connection (W-30)."""
        call_id, self.next_resolve_id = self.next_resolve_id, self.next_resolve_id + 1
        payload = name if isinstance(name, bytes) else name.encode()
        self.stream.send(encode(Frame(RESOLVE, call_id=call_id, payload=payload)))
        answer = self._next(RESOLVED)
        if answer.call_id != call_id:
            raise Fault("unexpected_frame", UNEXPECTED_FRAME)
        if answer.status != OK:
            raise Refused(answer.status)
        return answer.function_id

    def submit(self, function_id: int, payload: bytes, **fields) -> int:
        """Sends an INVOKE in a free slot, waiting for a reply if none is free. Returns the call id."""
        while not self.free_slots:
            self._take_reply(self._next(REPLY))
        slot = self.free_slots.pop()
        self.generation = (self.generation + 1) & 0xFFFFFFFF  # W-42: never the same call id twice in a row
        call_id = self.generation << 32 | slot
        self.outstanding.add(call_id)
        fields.setdefault("criticality", 1)
        frame = Frame(INVOKE, call_id=call_id, function_id=function_id, payload=payload, **fields)
        self.stream.send(encode(frame))
        return call_id

    def wait(self, call_id: int) -> Reply:
        """The reply of this call; those of others are kept for their own wait."""
        while call_id not in self.replies:
            self._take_reply(self._next(REPLY))
        return self.replies.pop(call_id)

    def invoke(self, function_id: int, payload: bytes, **fields) -> Reply:
        return self.wait(self.submit(function_id, payload, **fields))

    def cancel(self, call_id: int) -> None:
        """Not answered itself: the call still gets its one reply (W-55)."""
        self.stream.send(encode(Frame(CANCEL, call_id=call_id)))

    def ping(self, opaque: int) -> int:
        self.stream.send(encode(Frame(PING, budget_us=opaque)))
        return self._next(PONG).budget_us

    def _take_reply(self, frame: Frame) -> None:
        if frame.call_id not in self.outstanding:  # W-45: exactly one REPLY
            raise Fault("unexpected_frame", UNEXPECTED_FRAME)
        self.outstanding.remove(frame.call_id)
        self.free_slots.append(frame.call_id & 0xFFFFFFFF)
        started = bool(frame.flags & STARTED)
        reply = Reply(frame.call_id, frame.status, frame.payload, started, frame.budget_us, frame.timings)
        self.replies[frame.call_id] = reply

    def _next(self, kind: int) -> Frame:
        """The next frame of this kind; replies that come before it are put aside."""
        while True:
            frame = self.stream.receive()
            if frame.kind == GOAWAY and frame.status == GOING_AWAY:  # W-83: replies still come
                self.is_draining = True
            elif frame.kind == GOAWAY:
                raise GoneAway(frame.status, frame.payload.decode("utf-8", "replace"))
            elif frame.kind == kind:
                return frame
            elif frame.kind == REPLY:
                self._take_reply(frame)
            else:
                raise Fault("unexpected_frame", UNEXPECTED_FRAME)
