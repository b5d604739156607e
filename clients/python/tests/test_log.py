"""What is printed, without a router."""

from __future__ import annotations

import io
import unittest
from unittest import mock

from quickfire import _log, _native


class Marks(unittest.TestCase):
    def marked(self, *pieces: "tuple[int | None, str]") -> str:
        out = io.StringIO()
        stream = _log.Marked(out)
        for call, text in pieces:
            with mock.patch.object(_native, "running_call", return_value=call):
                self.assertEqual(stream.write(text), len(text))
        return out.getvalue()

    def test_each_line_of_a_call_is_marked_once_however_it_comes(self) -> None:
        told = self.marked((31, "a\nb"), (31, "c"), (31, "\n\n"))
        self.assertEqual(told, "\x1e1f\x1fa\n\x1e1f\x1fbc\n\x1e1f\x1f\n")

    def test_outside_a_call_text_is_itself_and_no_mark_is_believed(self) -> None:
        self.assertEqual(self.marked((None, "a\nb\n"), (None, "\x1e1f\x1fforged\n")), "a\nb\n\x1e\x1f\x1e1f\x1fforged\n")

    def test_a_line_is_of_the_call_in_which_it_began(self) -> None:
        self.assertEqual(self.marked((1, "begun "), (2, "ended\nnext\n")), "\x1e1\x1fbegun ended\n\x1e2\x1fnext\n")

    def test_in_all_else_it_is_the_stream(self) -> None:
        out = io.StringIO()
        stream = _log.Marked(out)
        stream.writelines(["a\n", "b\n"])
        self.assertEqual((out.getvalue(), stream.closed), ("a\nb\n", False))


if __name__ == "__main__":
    unittest.main()
