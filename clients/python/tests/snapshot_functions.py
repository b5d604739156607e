"""A function that is copied: it notes when it initialises, and tells what its copies have in common."""

from __future__ import annotations

import atexit
import os
import random
import threading
import time
import uuid
from typing import List

import quickfire

hooks: List[int] = []
table = list(range(1000))


def note(line: str) -> None:
    with open(os.environ["NOTES"], "a", encoding="utf-8") as notes:
        notes.write(line + "\n")


def noted() -> List[str]:
    with open(os.environ["NOTES"], encoding="utf-8") as notes:
        return notes.read().splitlines()


note("init")
seed = random.random()
if "THREAD" in os.environ:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


@quickfire.after_fork
def connect() -> None:
    if "HOOK_FAILS" in os.environ:
        raise ConnectionError("nobody there")
    hooks.append(os.getpid())
    note(f"hook {os.getpid()}")


@quickfire.function
def copied(call: quickfire.Call) -> str:
    """Answers when as many processes as are said have been asked the same, so that each of them is."""
    count, label = call.payload.decode().split()
    note(f"met {label}")
    while noted().count(f"met {label}") < int(count):
        time.sleep(0.005)
    table[0] += 1
    told = [os.getpid(), os.getppid(), table[0], random.random(), uuid.uuid4(), seed, hooks, os.readlink("/proc/self/fd/0")]
    return "|".join(str(part) for part in told)


if __name__ == "__main__":
    atexit.register(lambda: note(f"end {os.getpid()}"))
    print("half a line", end="")
    quickfire.serve()
