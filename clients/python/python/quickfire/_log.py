"""What a function prints, with the call that prints it: docs/operating/logs.md, "The mark".

Always: a line is of the call in which it began, on the thread that serves; what other threads print, or what is printed between calls, has no mark.
"""

from __future__ import annotations

from typing import Iterable, TextIO

from . import _native

_BEGIN, _END = "\x1e", "\x1f"


class Marked:
    """A stream of text whose lines begin with the mark of their call. In all else the stream itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_within_line = False

    def write(self, text: str) -> int:
        call = _native.running_call()
        marked = []
        rest = text
        while rest:
            line, end, rest = rest.partition("\n")
            if not self._is_within_line and (call is not None or line.startswith(_BEGIN)):
                marked.append(f"{_BEGIN}{'' if call is None else format(call, 'x')}{_END}")
            marked.append(line + end)
            self._is_within_line = not end
        self._stream.write("".join(marked))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
