"""What the package promises of itself: its words are the protocol's, and its types are true."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import quickfire
from quickfire import _native
from support import HERE, ROOT

PACKAGE = HERE.parent


class Words(unittest.TestCase):
    def test_statuses_are_those_of_the_protocol(self) -> None:
        table = {number: (name, fault, retry) for number, name, fault, retry, _ in _native.status_table()}
        ours = {status.value: (status.word, status.fault.value, status.retry.value) for status in quickfire.Status}
        self.assertEqual(ours, table)
        self.assertIn("try again", quickfire.Status.QUEUE_FULL.explain)

    def test_importing_is_light(self) -> None:
        code = "import sys, quickfire; print(sorted({'asyncio', 'dataclasses', 'inspect', 'socket', 'traceback'} & set(sys.modules)))"
        # -S: what a site's own start-up imports is not ours.
        path = str(PACKAGE / "python") if importlib.util.find_spec("quickfire") is None else quickfire.__path__[0] + "/.."
        ran = subprocess.run(
            [sys.executable, "-S", "-c", f"import sys; sys.path.append({path!r}); {code}"],
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(ran.stdout, "[]\n")


@unittest.skipUnless(importlib.util.find_spec("mypy"), "mypy is not installed: .ci/run installs it")
class Types(unittest.TestCase):
    def run_module(self, *arguments: str) -> None:
        ran = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=PACKAGE, capture_output=True, text=True, check=False
        )
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)

    def test_mypy_finds_nothing_in_strict_mode(self) -> None:
        self.run_module("mypy", "--strict", "python", "tests", str(ROOT / "examples/functions/native/search.py"))

    def test_the_guides_examples_are_what_mypy_takes(self) -> None:
        guide = (ROOT / "docs/coding/python.md").read_text(encoding="utf-8")
        examples = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
        self.assertGreater(len(examples), 3)
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "guide.py"
            file.write_text("\n".join(examples), encoding="utf-8")
            self.run_module("mypy", "--strict", str(file))

    def test_the_stubs_are_what_the_native_part_has(self) -> None:
        self.run_module("mypy.stubtest", "quickfire._native")


if __name__ == "__main__":
    unittest.main()
