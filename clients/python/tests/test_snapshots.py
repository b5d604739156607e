"""Functions that initialise once and are copied: what their copies have in common, and what not."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import tempfile
import unittest
from typing import Any, Dict, List

import quickfire
from support import Router, eventually, table

COPIES = 3


class Snapshots(unittest.TestCase):
    def setUp(self) -> None:
        notes = tempfile.NamedTemporaryFile()
        self.addCleanup(notes.close)
        self.notes = pathlib.Path(notes.name)

    def start(self, more: str = "snapshot = true", **env: str) -> None:
        more += f"\nwarm = {COPIES}\nslots = 1"
        manifest = table("copied", "snapshot_functions.py", more, {"NOTES": str(self.notes), **env})
        self.router = Router(manifest)
        self.addCleanup(self.router.stop)

    def serving(self) -> None:
        self.start()
        eventually("all copies serve", lambda: len(self.noted("hook")) == COPIES)

    def noted(self, word: str) -> List[str]:
        lines = self.notes.read_text(encoding="utf-8").splitlines()
        return [line[len(word) :].strip() for line in lines if line.startswith(word)]

    def status(self) -> Dict[str, Any]:
        functions = json.loads((self.router.dir / "shim.json").read_text(encoding="utf-8"))["functions"]
        found: Dict[str, Any] = next(each for each in functions if each["name"] == "copied")
        return found

    def copies(self) -> List[int]:
        return [place["pid"] for place in self.status()["places"] if place["pid"]]

    def ask_each(self) -> Dict[int, List[str]]:
        """One answer of each process."""
        payload = f"{COPIES} {len(self.noted('met'))}"
        with quickfire.Client(self.router.url) as client:
            calls = [client.submit("copied", payload, timeout=60) for _ in range(COPIES)]
            answers = [call.result().payload.decode().split("|") for call in calls]
        return {int(parts[0]): parts for parts in answers}

    def test_copies_share_what_was_built_once_and_nothing_that_they_change_after(self) -> None:
        self.serving()
        self.assertEqual(len(self.noted("init")), 1)
        answers = self.ask_each()
        self.assertEqual(sorted(answers), sorted(self.copies()))
        shim = json.loads((self.router.dir / "shim.json").read_text(encoding="utf-8"))["pid"]
        for pid, (_, parent, counted, _, _, _, hooks, stdin) in answers.items():
            self.assertEqual((parent, counted, hooks), (str(shim), "1", f"[{pid}]"))
            self.assertEqual(stdin, "/dev/null")
        randoms, identities, seeds = ({parts[index] for parts in answers.values()} for index in (3, 4, 5))
        self.assertEqual(len(randoms), COPIES, "Python seeds its own generator anew in a copy")
        self.assertEqual(len(identities), COPIES)
        self.assertEqual(len(seeds), 1, "what was drawn before is the same")
        self.assertEqual({place["start"] for place in self.status()["places"]}, {"snapshot"})

    def test_without_snapshots_the_same_program_initialises_in_each_process_and_runs_no_hook(self) -> None:
        self.start(more="")
        answers = self.ask_each()
        self.assertEqual(len(self.noted("init")), COPIES)
        self.assertEqual({parts[6] for parts in answers.values()}, {"[]"})

    def test_what_dies_is_replaced_and_at_the_end_each_copy_tidies_up(self) -> None:
        self.serving()
        before = self.copies()
        os.kill(before[0], signal.SIGKILL)
        eventually("another copy has begun", lambda: len(self.noted("hook")) == COPIES + 1)
        self.assertEqual(len(self.noted("init")), 1)
        os.kill(self.status()["templates"][0]["pid"], signal.SIGKILL)
        eventually("another template is ready", lambda: len(self.noted("init")) == 2 and self.is_ready())
        os.kill(before[1], signal.SIGKILL)
        eventually("its copy has begun", lambda: len(self.noted("hook")) == COPIES + 2)
        eventually("all serve", lambda: len(self.copies()) == COPIES)
        self.ask_each()
        serving = self.copies()
        self.router.process.terminate()
        self.router.process.wait(60)
        self.assertEqual(sorted(self.noted("end")), sorted(map(str, serving)))
        for log in (self.router.dir / "logs").glob("copied.[0-9]*.log"):
            self.assertNotIn("half a line", log.read_text(encoding="utf-8"))

    def is_ready(self) -> bool:
        return any(template["state"] == "ready" for template in self.status()["templates"])

    def last_end(self) -> Dict[str, Any]:
        eventually("the reason is told", lambda: self.status()["last_exit"] is not None)
        found: Dict[str, Any] = self.status()["last_exit"]
        return found

    def test_a_process_with_threads_is_not_copied(self) -> None:
        self.start(THREAD="1")
        end = self.last_end()
        self.assertEqual(end["reason"], "cannot be copied: it has 2 threads, and only a process with one can be")
        self.assertIn("ServeError: this process cannot be copied", end["stderr"][-1])

    def test_a_hook_that_raises_ends_its_copy_with_a_traceback(self) -> None:
        self.start(HOOK_FAILS="1")
        end = self.last_end()
        self.assertEqual(end["reason"], "exited with code 1")
        self.assertEqual(end["stderr"][-1], "ConnectionError: nobody there")
        self.assertEqual(len(self.noted("init")), 1)


if __name__ == "__main__":
    unittest.main()
