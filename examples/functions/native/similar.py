#!/usr/bin/env python3
"""Runtime `native` in Python with `snapshot = true`: words that are written like a word, for "did you mean".

Importing numpy and building the table take most of a second, once, in the template; each process of the function is a copy of it that
shares the table's memory. The words are those of the Markdown files under $DOCUMENTS; without it, of Quickfire's own.

    quickfire invoke similar --data worker
"""

import json
import os
import pathlib
import re
from typing import Dict, List

# Its linear algebra starts threads otherwise, when it is loaded, and a process with threads cannot be copied. A process runs one call at
# a time, so it has no use for them.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import quickfire

# Each word is a row of as many numbers: how often each trigram occurs, trigrams that hash alike taken together.
WIDTH = 1 << 11
HITS_MAX = 5
WORD_SIZE_MAX = 64


def column(trigram: str) -> int:
    """Python's own hash of text differs from run to run."""
    number = 0
    for letter in trigram:
        number = (number * 131 + ord(letter)) % 1_000_003
    return number % WIDTH


def row(word: str) -> "numpy.ndarray":
    found = numpy.zeros(WIDTH, dtype=numpy.float32)
    padded = f"  {word} "
    for at in range(len(padded) - 2):
        found[column(padded[at : at + 3])] += 1
    return found / numpy.linalg.norm(found)


def words(folder: pathlib.Path) -> List[str]:
    found: Dict[str, None] = {}
    for file in sorted(folder.rglob("*.md")):
        found.update(dict.fromkeys(re.findall(r"[a-z]{3,}", file.read_text(encoding="utf-8").lower())))
    return list(found)


documents = pathlib.Path(os.environ.get("DOCUMENTS") or pathlib.Path(__file__).resolve().parents[3] / "docs")
known = words(documents)
table = numpy.stack([row(word) for word in known])


@quickfire.function
def similar(call: quickfire.Call) -> str:
    word = call.payload.decode(errors="replace").strip().lower()
    if not 0 < len(word) <= WORD_SIZE_MAX:
        raise quickfire.FunctionError(f"the word has {len(word)} letters, and may have 1 to {WORD_SIZE_MAX}".encode())
    scores = table @ row(word)
    best = numpy.argsort(-scores)[:HITS_MAX]
    return json.dumps({"of": len(known), "words": {known[at]: round(float(scores[at]), 3) for at in best}})


if __name__ == "__main__":
    quickfire.serve()
