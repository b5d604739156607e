"""What a running router must do, by the rules of docs/spec/wire.md. Each check uses connections of its own."""

import pathlib
import random
import struct
import time

import quickfire_wire as wire
import vector_checks

CALLS = 1000


def checks(url: str, function: str, vectors: pathlib.Path, timeout: float) -> list:
    router = Router(url, function, timeout)
    served = [(f"router: {name}", getattr(router, name)) for name in SERVED]
    refused = [(f"router: {name}", getattr(router, name)) for name in REFUSED]
    return served + refused + bad_vector_checks(router, vectors) + [
        ("router: still_serves_afterwards", router.pipelined_calls_are_each_answered_with_their_own_bytes)
    ]


def bad_vector_checks(router: "Router", vectors: pathlib.Path) -> list:
    """Each malformed vector, sent to the router, gives the GOAWAY its twin names."""
    found = []
    for path in sorted(vectors.glob("bad-*.bin")):
        status = int(vector_checks.read_twin(path.with_suffix(".txt"))["status"])
        found.append((f"router: GOAWAY for {path.stem}", bad_vector_check(router, path, status)))
    return found


def bad_vector_check(router: "Router", path: pathlib.Path, status: int):
    is_first = path.stem.startswith("bad-hello")
    return lambda: router.expect_goaway(path.read_bytes(), status, after_hello=not is_first)


SERVED = [
    "hello_grants_version_limits_and_credits",
    "hello_grants_no_more_than_wanted",
    "hello_of_a_newer_minor_version_is_understood",
    "resolve_finds_the_function_and_refuses_unknown_names",
    "pipelined_calls_are_each_answered_with_their_own_bytes",
    "payloads_of_every_padding_come_back",
    "the_largest_frame_of_this_connection_comes_back",
    "an_unknown_function_is_refused_by_reply",
    "an_unknown_criticality_is_refused_by_reply",
    "a_slot_that_is_not_granted_is_refused_by_reply",
    "two_calls_in_one_slot_get_one_reply_each",
    "timings_come_exactly_when_wanted",
    "extensions_known_and_unknown_are_taken",
    "padding_is_not_looked_at",
    "a_frame_in_single_bytes_is_one_frame",
    "a_cancelled_call_gets_exactly_one_reply",
    "cancel_of_an_unknown_call_is_ignored",
    "a_call_with_hardly_any_time_gets_exactly_one_reply",
    "a_call_nested_too_deep_is_told",
    "a_call_for_later_starts_then_and_one_for_much_later_is_refused",
    "ping_is_echoed",
]
REFUSED = [
    "an_oversized_frame_is_refused_before_its_body",
    "an_unknown_version_is_refused",
    "a_frame_before_hello_is_refused",
    "a_second_hello_is_refused",
    "kinds_that_only_routers_send_are_refused",
    "garbage_closes_the_connection",
    "a_client_that_vanishes_within_a_frame_harms_nobody",
]


class Router:
    """The router under test."""

    def __init__(self, url: str, function: str, timeout: float):
        self.url, self.function, self.timeout = url, function, timeout

    def open(self, **wishes) -> wire.Connection:
        return wire.Connection.open(self.url, timeout=self.timeout, **wishes)

    # HELLO and names

    def hello_grants_version_limits_and_credits(self) -> None:
        with self.open() as connection:
            hello = connection.hello
            assert (hello.version_min, hello.version_max) == (1, 1), hello
            assert hello.credits >= 1, hello
            assert hello.frame_size_max >= wire.FRAME_SIZE_MAX_FLOOR and hello.frame_size_max % 16 == 0, hello

    def hello_grants_no_more_than_wanted(self) -> None:
        with self.open(frame_size_max=8200, credits=4) as connection:
            hello = connection.hello
            assert 1 <= hello.credits <= 4, hello
            assert 4096 <= hello.frame_size_max <= 8192, hello

    def hello_of_a_newer_minor_version_is_understood(self) -> None:
        stream = wire.Stream.connect(self.url, self.timeout)
        payload = wire.Hello(version_min=1, version_max=9, features=1 << 63).encode() + b"\xcd" * 16
        stream.send(wire.encode(wire.Frame(wire.HELLO, payload=payload)))
        answer = stream.receive()
        assert answer.kind == wire.HELLO, answer
        hello = wire.Hello.decode(answer.payload)
        assert (hello.version_min, hello.version_max, hello.features) == (1, 1, 0), hello
        stream.close()

    def resolve_finds_the_function_and_refuses_unknown_names(self) -> None:
        with self.open() as connection:
            first = connection.resolve(self.function)
            for name in ["no such function", "", "n" * 128, "n" * 129, b"\xff\xfe"]:
                expect_refused(lambda: connection.resolve(name), wire.UNKNOWN_FUNCTION)
            assert connection.resolve(self.function) == first

    # Calls

    def pipelined_calls_are_each_answered_with_their_own_bytes(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            chance = random.Random(7450)
            calls = {}
            for index in range(CALLS):
                payload = struct.pack("<I", index) + chance.randbytes(chance.randrange(300))
                calls[connection.submit(function, payload)] = payload
            for call_id, payload in calls.items():
                expect_result(connection.wait(call_id), payload)
            assert not connection.outstanding and not connection.replies

    def payloads_of_every_padding_come_back(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            for size in range(49):
                expect_result(connection.invoke(function, bytes(range(size))), bytes(range(size)))

    def the_largest_frame_of_this_connection_comes_back(self) -> None:
        with self.open(frame_size_max=65536) as connection:
            function = connection.resolve(self.function)
            payload = random.Random(1).randbytes(connection.hello.frame_size_max - wire.HEADER.size)
            expect_result(connection.invoke(function, payload), payload)

    def an_unknown_function_is_refused_by_reply(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            reply = connection.invoke(0xFFFFFFFF, b"x")
            assert (reply.status, reply.was_started) == (wire.UNKNOWN_FUNCTION, False), reply
            expect_result(connection.invoke(function, b"still here"), b"still here")

    def an_unknown_criticality_is_refused_by_reply(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            for criticality in range(4):
                expect_result(connection.invoke(function, b"x", criticality=criticality), b"x")
            for criticality in (4, 255):
                reply = connection.invoke(function, b"x", criticality=criticality)
                assert (reply.status, reply.was_started) == (wire.UNKNOWN_CRITICALITY, False), reply

    def a_slot_that_is_not_granted_is_refused_by_reply(self) -> None:
        with self.open(credits=4) as connection:
            function = connection.resolve(self.function)
            for slot in (connection.hello.credits, 0xFFFFFFFF):
                call_id = 1 << 32 | slot
                connection.stream.send(raw_invoke(call_id, function, b""))
                reply = connection.stream.receive()
                found = (reply.kind, reply.call_id, reply.status)
                assert found == (wire.REPLY, call_id, wire.CREDITS_EXCEEDED), reply
            expect_result(connection.invoke(function, b"x"), b"x")

    def two_calls_in_one_slot_get_one_reply_each(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            ids = [1 << 32, 2 << 32]
            connection.stream.send(b"".join(raw_invoke(id, function, b"x") for id in ids))
            received = [connection.stream.receive(), connection.stream.receive()]
            replies = {reply.call_id: reply.status for reply in received}
            # The first may be answered before the second is read; then both are right.
            assert replies in ({ids[0]: wire.OK, ids[1]: wire.CALL_ID_IN_USE}, {id: wire.OK for id in ids}), replies
            assert connection.ping(1) == 1

    def a_call_nested_too_deep_is_told(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            reply = connection.invoke(function, b"x", called_by=(0, 255, 0))  # W-50
            assert reply.status == wire.WOULD_DEADLOCK and not reply.was_started, reply
            # A claim about a call that is none, or somebody else's, is no reason to refuse (W-51).
            expect_result(connection.invoke(function, b"x", called_by=(0xFFFFFFFF00000000, 1, 5 << 16 | 1)), b"x")

    def a_call_for_later_starts_then_and_one_for_much_later_is_refused(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            sent_at = time.monotonic()
            # The budget counts from the start (W-52): it is less than what has to pass before.
            reply = connection.invoke(function, b"x", start_after_us=1_000_000, budget_us=900_000)
            expect_result(reply, b"x")
            assert time.monotonic() - sent_at >= 1.0, "started before its time"
            expect_result(connection.invoke(function, b"x", start_after_us=0), b"x")
            reply = connection.invoke(function, b"x", start_after_us=2**64 - 1)
            assert reply.status == wire.START_TOO_LATE and not reply.was_started, reply

    def timings_come_exactly_when_wanted(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            assert connection.invoke(function, b"x").timings is None
            timings = connection.invoke(function, b"x", flags=wire.WANT_TIMINGS).timings
            assert timings is not None, "WANT_TIMINGS was ignored"
            stamps = [timings.stages[stage] for stage in wire.STAGES]
            assert None not in stamps and stamps == sorted(stamps), timings
            assert timings.received_at_ns > 0, timings
            refused = connection.invoke(0xFFFFFFFF, b"x", flags=wire.WANT_TIMINGS)
            if refused.timings is not None:
                reached = [stamp for stamp in refused.timings.stages.values() if stamp is not None]
                assert reached == sorted(reached) and refused.timings.stages["started"] is None, refused

    def extensions_known_and_unknown_are_taken(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            trace = (b"\x4b" * 16, b"\xf0" * 8, 1)
            for extensions in (
                {"trace": trace},
                {"idempotency_key": b"k" * 16},
                {"trace": trace, "idempotency_key": b"l" * 16},
                {"trace": trace, "called_by": (0, 1, 0)},
            ):
                expect_result(connection.invoke(function, b"hello", **extensions), b"hello")
            # An extension of 32 bytes for the undefined bit 7.
            known = raw_invoke(9 << 32, function, b"hello")
            changed = bytearray(known[:32] + b"\xab" * 32 + known[32:])
            struct.pack_into("<I", changed, 0, len(changed))
            struct.pack_into("<H", changed, 26, 1 << 7)
            struct.pack_into("<H", changed, 30, 32)
            connection.stream.send(bytes(changed))
            expect_raw_result(connection.stream.receive(), 9 << 32, b"hello")

    def padding_is_not_looked_at(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            connection.stream.send(raw_invoke(9 << 32, function, b"hello")[:37] + b"\xff" * 11)
            expect_raw_result(connection.stream.receive(), 9 << 32, b"hello")

    def a_frame_in_single_bytes_is_one_frame(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            for byte in raw_invoke(9 << 32, function, b"bit by bit"):
                connection.stream.send(bytes([byte]))
            expect_raw_result(connection.stream.receive(), 9 << 32, b"bit by bit")

    def a_cancelled_call_gets_exactly_one_reply(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            for _ in range(100):
                call_id = connection.submit(function, b"x")
                connection.cancel(call_id)
                reply = connection.wait(call_id)
                assert reply.status in (wire.OK, wire.CANCELLED), reply
            # A second reply to any of them would have been an unexpected frame by now.
            assert connection.ping(2) == 2
            expect_result(connection.invoke(function, b"after"), b"after")

    def cancel_of_an_unknown_call_is_ignored(self) -> None:
        with self.open() as connection:
            function = connection.resolve(self.function)
            for call_id in (0, 77 << 32, 2**64 - 1):
                connection.cancel(call_id)
            expect_result(connection.invoke(function, b"x"), b"x")

    def a_call_with_hardly_any_time_gets_exactly_one_reply(self) -> None:
        never_started = (wire.DEADLINE_PASSED, wire.DEADLINE_UNREACHABLE, wire.EXPIRED)
        allowed = (wire.OK, *never_started, wire.TIMED_OUT)
        with self.open() as connection:
            function = connection.resolve(self.function)
            for call_id in [connection.submit(function, b"x", budget_us=1) for _ in range(100)]:
                reply = connection.wait(call_id)
                assert reply.status in allowed, reply
                assert not (reply.status in never_started and reply.was_started), reply
            expect_result(connection.invoke(function, b"x", budget_us=2**32 - 1), b"x")

    def ping_is_echoed(self) -> None:
        with self.open() as connection:
            for opaque in (0, 1, 0xDEADBEEF, 0xFFFFFFFF):
                assert connection.ping(opaque) == opaque

    # What ends a connection

    def an_oversized_frame_is_refused_before_its_body(self) -> None:
        with self.open(frame_size_max=4096) as connection:
            size = connection.hello.frame_size_max + 16
            header = wire.HEADER.pack(size, size - 32, 0, 1, 0, wire.INVOKE, 1, 0, 0, 0)
            connection.stream.send(header)
            expect_end(connection.stream, wire.FRAME_TOO_LARGE)

    def an_unknown_version_is_refused(self) -> None:
        for versions in ((2, 3), (0, 0), (2, 1)):
            payload = wire.Hello(*versions).encode()
            hello = wire.encode(wire.Frame(wire.HELLO, payload=payload))
            self.expect_goaway(hello, wire.UNSUPPORTED_VERSION, after_hello=False)

    def a_frame_before_hello_is_refused(self) -> None:
        for kind in (wire.INVOKE, wire.RESOLVE, wire.PING):
            self.expect_goaway(wire.encode(wire.Frame(kind)), wire.HELLO_EXPECTED, after_hello=False)

    def a_second_hello_is_refused(self) -> None:
        hello = wire.encode(wire.Frame(wire.HELLO, payload=wire.Hello().encode()))
        self.expect_goaway(hello, wire.UNEXPECTED_FRAME, after_hello=True)

    def kinds_that_only_routers_send_are_refused(self) -> None:
        for kind in sorted(wire.KINDS_OF_ROUTER - wire.KINDS_OF_CLIENT):
            self.expect_goaway(wire.encode(wire.Frame(kind)), wire.UNEXPECTED_FRAME, after_hello=True)

    def garbage_closes_the_connection(self) -> None:
        chance = random.Random(0)
        for _ in range(20):
            garbage = b"\xff" * 4 + chance.randbytes(chance.randrange(28, 5000))
            for stream in (wire.Stream.connect(self.url, self.timeout), self.open().stream):
                stream.send(garbage)
                # A reset may swallow the GOAWAY when bytes were still unread: only the end is asked for.
                expect_end(stream, wire.FRAME_TOO_LARGE, is_goaway_needed=False)

    def a_client_that_vanishes_within_a_frame_harms_nobody(self) -> None:
        for size in (1, 31, 32, 40):
            with self.open() as connection:
                function = connection.resolve(self.function)
                connection.stream.send(raw_invoke(0, function, b"never whole")[:size])
        with self.open() as connection:
            expect_result(connection.invoke(connection.resolve(self.function), b"x"), b"x")

    def expect_goaway(self, data: bytes, status: int, after_hello: bool) -> None:
        stream = self.open().stream if after_hello else wire.Stream.connect(self.url, self.timeout)
        stream.send(data)
        expect_end(stream, status)


def raw_invoke(call_id: int, function: int, payload: bytes) -> bytes:
    """An INVOKE past the client's own bookkeeping of slots."""
    frame = wire.Frame(wire.INVOKE, call_id=call_id, function_id=function, criticality=1, payload=payload)
    return wire.encode(frame)


def expect_result(reply: wire.Reply, payload: bytes) -> None:
    assert reply.status == wire.OK, reply
    assert reply.was_started, "a result without the flag STARTED"
    assert reply.payload == payload, f"{reply.payload!r} instead of {payload!r}"


def expect_raw_result(frame: wire.Frame, call_id: int, payload: bytes) -> None:
    found = (frame.kind, frame.call_id, frame.status, frame.payload)
    assert found == (wire.REPLY, call_id, wire.OK, payload), frame


def expect_refused(action, status: int) -> None:
    try:
        action()
    except wire.Refused as refused:
        assert refused.status == status, refused
    else:
        raise AssertionError(f"status {status} was expected")


def expect_end(stream: wire.Stream, status: int, is_goaway_needed: bool = True) -> None:
    """GOAWAY with this status, then the end of the stream and nothing else."""
    frames = []
    try:
        while True:
            frames.append(stream.receive())
    except wire.ConnectionEnded:
        pass
    finally:
        stream.close()
    found = [(frame.kind, frame.status) for frame in frames]
    allowed = [[(wire.GOAWAY, status)]] + ([] if is_goaway_needed else [[]])
    assert found in allowed, f"{found} instead of GOAWAY {status}"
    for frame in frames:
        assert len(frame.payload.decode()) <= 512, "the reason is too long"
