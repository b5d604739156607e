#!/usr/bin/env python3
"""Runtime `stdio`: a long-lived script, one line of JSON in and out.

A naive Bayes classifier that learns from ../samples/messages.tsv when it starts, which is once for each warm process, and
then says of each text whether it is spam.

    quickfire invoke spam --data "You won a free prize, claim now"
"""

import collections
import json
import math
import pathlib
import re
import sys

MESSAGES = pathlib.Path(__file__).parent.parent / "samples" / "messages.tsv"


def words(text):
    return re.findall(r"[a-z']+", text.lower())


class Model:
    def __init__(self, lines):
        self.counts = {"ham": collections.Counter(), "spam": collections.Counter()}
        self.messages = collections.Counter()
        for line in lines:
            label, text = line.rstrip("\n").split("\t")
            self.messages[label] += 1
            self.counts[label].update(words(text))
        self.vocabulary = set().union(*self.counts.values())

    def spam_probability(self, text):
        score = {}
        for label, counts in self.counts.items():
            size = sum(counts.values()) + len(self.vocabulary)
            known = [word for word in words(text) if word in self.vocabulary]
            score[label] = math.log(self.messages[label])
            score[label] += sum(math.log((counts[word] + 1) / size) for word in known)
        return 1 / (1 + math.exp(score["ham"] - score["spam"]))


def main():
    with open(MESSAGES, encoding="utf-8") as lines:
        model = Model(lines)
    print(f"learned from {sum(model.messages.values())} messages", file=sys.stderr, flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        answer = {"id": call["id"]}
        if "body" in call:
            probability = model.spam_probability(call["body"])
            answer["result"] = {"spam": probability > 0.5, "probability": round(probability, 3)}
        else:
            answer["error"] = "the payload is not text"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
