"""A real router with functions in Python, for tests: `quickfire up` in a directory and on a port of its own."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from typing import Callable, Dict, List, Optional

import quickfire

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PROGRAM = os.environ.get("QUICKFIRE_TEST_PROGRAM", str(ROOT / "target/debug/quickfire"))

# How long anything may take before a test gives up: generous, because it is no measure of speed.
GIVE_UP = 60.0


def eventually(what: str, condition: Callable[[], bool]) -> None:
    """Polls until `condition` holds, and fails if it never does."""
    give_up_at = time.monotonic() + GIVE_UP
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"gave up waiting until {what}")
        time.sleep(0.005)


def table(name: str, file: str = "functions.py", more: str = "", env: Optional[Dict[str, str]] = None) -> str:
    """The section of a function whose handler is in `file`."""
    variables = ", ".join(f'{key} = "{value}"' for key, value in (env or {}).items())
    command = f'command = ["{sys.executable}", "{HERE / file}"]'
    return f"[functions.{name}]\n{command}\nenv = {{ {variables} }}\n{more}\n"


class Router:
    """A running `quickfire up`. Ends with everything below it."""

    def __init__(self, manifest: str) -> None:
        self._home = tempfile.TemporaryDirectory()
        self.home = pathlib.Path(self._home.name)
        self.dir = self.home / "run"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"quickfire://127.0.0.1:{probe.getsockname()[1]}"
        self.unix = f"unix://{self.dir}/router.sock"
        self.shm = f"shm://{self.dir}"
        manifest = manifest.replace("$UNIX", self.unix)
        (self.home / "quickfire.toml").write_text(manifest + '[functions.echo]\ncommand = ["builtin:echo"]\n')
        self.start()

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QUICKFIRE_")}
        environment["QUICKFIRE_DIR"] = str(self.dir)
        with open(self.home / "up.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [PROGRAM, "up", "--config", str(self.home / "quickfire.toml")]
                + ["--listen", self.url, "--listen", self.unix],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        try:
            eventually("the router answers", self._answers)
        except BaseException:
            self.kill()
            raise

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError((self.home / "up.log").read_text())
        try:
            with quickfire.Client(self.url, connect_timeout=1) as client:
                client.call("echo", timeout=1)
        except quickfire.Error:
            return False
        return True

    def log(self, function: str) -> str:
        """What its process has printed."""
        file = self.dir / "logs" / f"{function}.0.log"
        return file.read_text() if file.exists() else ""

    def workers(self, function: str) -> List[int]:
        """Process ids of a function's processes."""
        wanted = {f"QUICKFIRE_FUNCTION={function}".encode(), f"QUICKFIRE_ATTACH={self.dir}".encode()}
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            names = {variable.split(b"/attach-")[0] for variable in variables}
            if wanted <= names:
                found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """kill -9; what it started ends with it, or finds the next one."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(GIVE_UP)
        finally:
            self.kill()
            self._home.cleanup()


class WithRouter(unittest.TestCase):
    """Tests that share one router. `manifest` says which functions it has."""

    manifest = ""
    router: Router
    client: quickfire.Client

    @classmethod
    def setUpClass(cls) -> None:
        cls.router = Router(cls.manifest)
        cls.addClassCleanup(cls.router.stop)
        cls.client = quickfire.Client(cls.router.url)
        cls.addClassCleanup(cls.client.close)
