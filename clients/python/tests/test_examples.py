"""The examples do their work, with their real inputs."""

from __future__ import annotations

import importlib.util
import json
import sys
import unittest

import quickfire
from support import ROOT, WithRouter

FOLDER = ROOT / "examples/functions"


class Examples(WithRouter):
    # The interpreter that has the package, instead of the one that the first line of the file finds.
    manifest = (FOLDER / "python.toml").read_text().replace('["./', f'["{sys.executable}", "{FOLDER}/')

    def test_search_finds_the_passage_that_answers(self) -> None:
        found = json.loads(self.client.call("search", "how often is a process started again that dies").payload)
        self.assertGreater(found["of"], 500)
        scores = [hit["score"] for hit in found["hits"]]
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertTrue(any("coding/" in hit["place"] and "dies" in hit["place"] for hit in found["hits"]), found)
        nothing = json.loads(self.client.call("search", "xyzzy").payload)
        self.assertEqual(nothing["hits"], [])
        with self.assertRaises(quickfire.FunctionError) as raised:
            self.client.call("search", "!?")
        self.assertEqual(raised.exception.payload, b"the query has no words")


@unittest.skipUnless(importlib.util.find_spec("numpy"), "the example needs numpy")
class Snapshots(WithRouter):
    manifest = (FOLDER / "snapshots.toml").read_text().replace('["./', f'["{sys.executable}", "{FOLDER}/')

    def test_similar_knows_what_was_meant_from_the_table_that_all_copies_share(self) -> None:
        found = json.loads(self.client.call("similar", "temlate").payload)
        self.assertGreater(found["of"], 1000)
        self.assertIn("template", found["words"])
        with self.assertRaises(quickfire.FunctionError):
            self.client.call("similar", "")
        status = json.loads((self.router.dir / "shim.json").read_text(encoding="utf-8"))
        similar = next(function for function in status["functions"] if function["name"] == "similar")
        self.assertEqual({place["start"] for place in similar["places"]}, {"snapshot"})
        self.assertEqual(similar["exits"], 0)
