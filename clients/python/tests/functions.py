"""The functions of the tests, all in one file: the process's own name says which of them it is."""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from typing import Optional

import quickfire

calls = 0
kept: Optional[quickfire.Call] = None
client: Optional[quickfire.Client] = None


@quickfire.function
def echo_python(call: quickfire.Call) -> bytes:
    return call.payload


@quickfire.function
def context(call: quickfire.Call) -> str:
    global calls
    calls += 1
    told = {
        "calls": calls,
        "pid": os.getpid(),
        "left": call.time_left(),
        "criticality": call.criticality.name,
        "trace": call.trace and call.trace.traceparent,
        "key": call.idempotency_key and call.idempotency_key.hex(),
        "id": call.invocation_id,
        "cancelled": call.is_cancelled(),
        "size_max": call.result_size_max,
    }
    return json.dumps(told)


@quickfire.function
def ends(call: quickfire.Call) -> quickfire.Result:
    """Ends as its payload says."""
    global kept
    word = call.payload.decode()
    if word == "raise":
        raise KeyError("no such user")
    if word == "error":
        raise quickfire.FunctionError(b"\x00\xff own bytes")
    if word == "pushed back":
        raise quickfire.Backpressure("data base", severity=3)
    if word == "exit":
        sys.exit(7)
    if word == "interrupt":
        raise KeyboardInterrupt
    if word == "too large":
        return b"x" * (call.result_size_max + 1)
    if word == "wrong type":
        return 7  # type: ignore[return-value]
    if word == "keep":
        kept = call
        return None
    if word == "kept":
        assert kept is not None
        return str(kept.time_left())
    if word == "view":
        return memoryview(bytearray(b"seen"))
    if word == "text":
        return "grüß dich"
    return str(os.getpid())


@quickfire.function
def waits(call: quickfire.Call) -> str:
    """Runs until it is cancelled, and leaves word of it."""
    print("began", flush=True)
    while not call.is_cancelled():
        time.sleep(0.001)
    print("noticed", flush=True)
    return "noticed"


@quickfire.function
def naps(call: quickfire.Call) -> bytes:
    seconds = float(call.payload)
    if seconds >= 0.5:
        print("napping")
    time.sleep(seconds)
    return call.payload


@quickfire.function
def nests(call: quickfire.Call) -> bytes:
    """Calls another function: at once, later, and itself."""
    global client
    if client is None:
        client = quickfire.Client(os.environ["ROUTER"])
    word = call.payload.decode()
    if word == "itself":
        return call.call(client, "nests", b"itself").payload
    pending = call.submit(client, "context", reserve=1.0)
    return b"[" + call.call(client, "context").payload + b"," + pending.result().payload + b"]"


if __name__ == "__main__":
    atexit.register(print, "tidied up")
    quickfire.serve()
