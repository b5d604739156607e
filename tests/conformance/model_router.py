#!/usr/bin/env python3
"""A router of a hundred lines that obeys docs/spec/wire.md and runs one function, echo, in itself.

It tests the conformance program, not Quickfire: if run.py fails against this, run.py or the document is wrong.

    python3 tests/conformance/model_router.py        # starts itself, runs all checks over TCP and a Unix socket
"""

import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

import quickfire_wire as wire

ECHO = 1
CREDITS = 64
START_AFTER_US_MAX = 3_600_000_000


def main() -> int:
    run = pathlib.Path(__file__).with_name("run.py")
    with tempfile.TemporaryDirectory() as folder:
        tcp = socket.create_server(("127.0.0.1", 0))
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix.bind(f"{folder}/router.sock")
        unix.listen(64)
        urls = [f"quickfire://127.0.0.1:{tcp.getsockname()[1]}", f"unix://{folder}/router.sock"]
        for listener in (tcp, unix):
            threading.Thread(target=accept, args=(listener,), daemon=True).start()
        results = [subprocess.call([sys.executable, str(run), *sys.argv[1:], "--connect", url]) for url in urls]
    return max(results)


def accept(listener: socket.socket) -> None:
    while True:
        endpoint, _ = listener.accept()
        threading.Thread(target=serve, args=(endpoint,), daemon=True).start()


def serve(endpoint: socket.socket) -> None:
    with endpoint:
        try:
            Session(endpoint).run()
        except wire.Fault as fault:
            frame = wire.Frame(wire.GOAWAY, status=fault.status, payload=fault.name.encode())
            endpoint.sendall(wire.encode(frame))
            linger(endpoint)
        except OSError:
            pass  # the client is gone


def linger(endpoint: socket.socket) -> None:
    """Closing with unread bytes would reset the stream and could swallow the GOAWAY (W-84)."""
    endpoint.shutdown(socket.SHUT_WR)
    endpoint.settimeout(1)
    while endpoint.recv(1 << 16):
        pass


class Session:
    def __init__(self, endpoint: socket.socket):
        self.endpoint, self.data = endpoint, b""
        self.frame_size_max, self.credits = wire.FRAME_SIZE_MAX_DEFAULT, 0

    def run(self) -> None:
        while (frame := self.next_frame()) is not None:
            answer = self.answer(frame)
            if answer is not None:
                self.endpoint.sendall(wire.encode(answer))

    def next_frame(self):
        while (frame := wire.decode(self.data, self.frame_size_max)) is None:
            received = self.endpoint.recv(1 << 16)
            if not received:
                return None
            self.data += received
        self.data = self.data[frame.frame_size :]
        return frame

    def answer(self, frame: wire.Frame):
        if self.credits == 0:
            return self.hello(frame)
        if frame.kind == wire.RESOLVE:
            return self.resolved(frame)
        if frame.kind == wire.INVOKE:
            return self.reply(frame)
        if frame.kind == wire.PING:
            return wire.Frame(wire.PONG, budget_us=frame.budget_us)
        if frame.kind != wire.CANCEL:  # every call is answered before the next frame is read: nothing to cancel
            raise wire.Fault("unexpected_frame", wire.UNEXPECTED_FRAME)
        return None

    def hello(self, frame: wire.Frame) -> wire.Frame:
        if frame.kind != wire.HELLO:
            raise wire.Fault("hello_expected", wire.HELLO_EXPECTED)
        wishes = wire.Hello.decode(frame.payload)
        self.frame_size_max = min(wishes.frame_size_max or self.frame_size_max, self.frame_size_max) & ~15
        self.credits = min(wishes.credits or CREDITS, CREDITS)
        granted = wire.Hello(frame_size_max=self.frame_size_max, credits=self.credits)
        return wire.Frame(wire.HELLO, payload=granted.encode())

    def resolved(self, frame: wire.Frame) -> wire.Frame:
        if frame.payload == b"echo":
            return wire.Frame(wire.RESOLVED, call_id=frame.call_id, function_id=ECHO)
        return wire.Frame(wire.RESOLVED, call_id=frame.call_id, status=wire.UNKNOWN_FUNCTION)

    def reply(self, frame: wire.Frame) -> wire.Frame:
        received_at_ns = time.monotonic_ns()
        status = self.refusal(frame)
        if status == wire.OK and frame.start_after_us:
            time.sleep(frame.start_after_us / 1e6)
        reply = wire.Frame(wire.REPLY, call_id=frame.call_id, status=status)
        if status == wire.OK:
            reply.payload, reply.flags = frame.payload, wire.STARTED
        if frame.flags & wire.WANT_TIMINGS:
            reached = 0 if status == wire.OK else None
            stages = dict.fromkeys(wire.STAGES, reached)
            stages["answered"] = time.monotonic_ns() - received_at_ns
            reply.timings = wire.Timings(received_at_ns, stages, cause=0)
        return reply

    def refusal(self, frame: wire.Frame) -> int:
        if frame.call_id & 0xFFFFFFFF >= self.credits:
            return wire.CREDITS_EXCEEDED
        if frame.function_id != ECHO:
            return wire.UNKNOWN_FUNCTION
        if frame.criticality > 3:
            return wire.UNKNOWN_CRITICALITY
        if frame.called_by is not None and frame.called_by[1] > 16:
            return wire.WOULD_DEADLOCK
        if (frame.start_after_us or 0) > START_AFTER_US_MAX:
            return wire.START_TOO_LATE
        return wire.OK


if __name__ == "__main__":
    sys.exit(main())
