#!/usr/bin/env python3
"""Runtime `native` in Python: a search over documents, ranked by BM25.

What takes long happens once, before `serve`: reading the documents and counting their words. A call then only scores the passages that
have one of its words. The documents are the Markdown files under $DOCUMENTS; without it, Quickfire's own.

    quickfire invoke search --data "what happens when a worker dies"
"""

import collections
import json
import math
import os
import pathlib
import re
from typing import Counter, Dict, Iterator, List, NamedTuple, Tuple

import quickfire

# The usual constants of BM25: how soon more of the same word stops counting, and how much a long passage has to have more of it.
SATURATION, LENGTH_WEIGHT = 1.2, 0.75
HITS_MAX = 5


class Passage(NamedTuple):
    place: str
    text: str


def words(text: str) -> List[str]:
    return re.findall(r"[a-z0-9_]+", text.lower())


def passages(folder: pathlib.Path) -> Iterator[Passage]:
    """What stands between blank lines, with the heading above it."""
    for file in sorted(folder.rglob("*.md")):
        heading = file.stem
        for text in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")):
            if text.startswith("#"):
                heading = text.splitlines()[0].lstrip("# ")
            elif text.strip():
                yield Passage(f"{file.relative_to(folder)}: {heading}", " ".join(text.split()))


class Index:
    def __init__(self, found: Iterator[Passage]) -> None:
        self.passages: List[Passage] = []
        self.sizes: List[int] = []
        # For each word: which passages have it, and how often.
        self.occurrences: Dict[str, List[Tuple[int, int]]] = collections.defaultdict(list)
        for number, passage in enumerate(found):
            counts: Counter[str] = collections.Counter(words(f"{passage.place} {passage.text}"))
            self.passages.append(passage)
            self.sizes.append(sum(counts.values()))
            for word, count in counts.items():
                self.occurrences[word].append((number, count))
        self.size_mean = sum(self.sizes) / max(len(self.sizes), 1)

    def search(self, query: str) -> List[Tuple[float, Passage]]:
        scores: Dict[int, float] = collections.defaultdict(float)
        for word in set(words(query)):
            having = self.occurrences.get(word, [])
            rarity = math.log(1 + (len(self.passages) - len(having) + 0.5) / (len(having) + 0.5))
            for number, count in having:
                length = 1 - LENGTH_WEIGHT + LENGTH_WEIGHT * self.sizes[number] / self.size_mean
                scores[number] += rarity * count * (SATURATION + 1) / (count + SATURATION * length)
        best = sorted(scores, key=lambda number: (-scores[number], number))[:HITS_MAX]
        return [(scores[number], self.passages[number]) for number in best]


DOCUMENTS = pathlib.Path(os.environ.get("DOCUMENTS") or pathlib.Path(__file__).resolve().parents[3] / "docs")
INDEX = Index(passages(DOCUMENTS))


@quickfire.function
def search(call: quickfire.Call) -> str:
    query = call.payload.decode("utf-8").strip()
    if not words(query):
        raise quickfire.FunctionError("the query has no words")
    hits = [{"score": round(score, 2), **passage._asdict()} for score, passage in INDEX.search(query)]
    return json.dumps({"hits": hits, "of": len(INDEX.passages)})


if __name__ == "__main__":
    print(f"{len(INDEX.passages)} passages from {DOCUMENTS}")
    quickfire.serve()
