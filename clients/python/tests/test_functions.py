"""Functions in Python behind a real router and its shim."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import unittest

import quickfire
from support import HERE, Router, WithRouter, eventually, table

NAMES = ["echo_python", "context", "ends", "waits"]


class Functions(WithRouter):
    manifest = (
        "".join(table(name) for name in NAMES)
        + table("naps", more='timeout = "1s"')
        + table("nests", env={"ROUTER": "$UNIX"})
    )

    def ends(self, word: str) -> bytes:
        return self.client.call("ends", word).payload

    def test_payloads_of_every_size_come_back_as_they_were(self) -> None:
        for size in [0, 1, 100, 4096, 70_000, 1_000_000]:
            payload = os.urandom(size)
            self.assertEqual(self.client.call("echo_python", payload).payload, payload)

    def test_a_call_knows_its_context_and_the_process_stays_warm(self) -> None:
        first = json.loads(self.client.call("context").payload)
        self.assertEqual((first["criticality"], first["trace"], first["key"]), ("NORMAL", None, None))
        trace = quickfire.TraceContext(bytes(range(16)), bytes(range(8)), 1)
        answer = self.client.call(
            "context",
            timeout=30,
            criticality=quickfire.Criticality.HIGH,
            trace=trace,
            idempotency_key=bytes(range(16)),
            timings=True,
        )
        told = json.loads(answer.payload)
        self.assertEqual((told["pid"], told["calls"]), (first["pid"], first["calls"] + 1))
        self.assertEqual(told["criticality"], "HIGH")
        self.assertEqual(told["trace"], "00-000102030405060708090a0b0c0d0e0f-0001020304050607-01")
        self.assertEqual(told["key"], bytes(range(16)).hex())
        self.assertTrue(0 < told["left"] <= 30 and not told["cancelled"] and told["size_max"] >= 1 << 20)
        timings = answer.timings
        assert timings is not None and timings.started_ns is not None and timings.finished_ns is not None
        self.assertTrue(timings.started_ns <= timings.finished_ns and timings.cause)

    def test_what_a_handler_raises_is_a_function_error_with_its_traceback_in_the_log(self) -> None:
        pid = self.ends("pid")
        with self.assertRaises(quickfire.FunctionError) as raised:
            self.ends("raise")
        self.assertEqual(raised.exception.payload, b"KeyError: 'no such user'")
        self.assertIs(raised.exception.status, quickfire.Status.FUNCTION_ERROR)
        self.assertIs(raised.exception.fault, quickfire.Fault.FUNCTION)
        self.assertIs(raised.exception.retry, quickfire.Retry.IF_IDEMPOTENT)
        eventually("the log has it", lambda: "in ends" in self.router.log("ends"))
        of_call = {line.split(" ")[4] for line in self.router.log("ends").splitlines() if "in ends" in line}
        self.assertTrue(of_call and "-" not in of_call, "each line knows its call")
        with self.assertRaises(quickfire.FunctionError) as raised:
            self.ends("error")
        self.assertEqual(raised.exception.payload, b"\x00\xff own bytes")
        with self.assertRaises(quickfire.FunctionError) as raised:
            self.ends("wrong type")
        self.assertIn(b"TypeError", raised.exception.payload)
        self.assertEqual(self.ends("pid"), pid, "the process goes on")

    def test_backpressure_names_what_is_overloaded(self) -> None:
        with self.assertRaises(quickfire.Backpressure) as raised:
            self.ends("pushed back")
        self.assertEqual(raised.exception.downstream, "data?base")
        self.assertIs(raised.exception.status, quickfire.Status.BACKPRESSURE)

    def test_results_are_bytes_views_text_or_nothing_and_not_too_large(self) -> None:
        self.assertEqual(self.ends("view"), b"seen")
        self.assertEqual(self.ends("text").decode(), "grüß dich")
        self.assertEqual(self.ends("keep"), b"")
        with self.assertRaises(quickfire.WorkerLost) as raised:
            self.ends("too large")
        self.assertIs(raised.exception.status, quickfire.Status.RESULT_TOO_LARGE)
        self.assertIs(raised.exception.fault, quickfire.Fault.FUNCTION)

    def test_a_call_that_was_kept_says_that_it_has_ended(self) -> None:
        self.ends("keep")
        with self.assertRaises(quickfire.FunctionError) as raised:
            self.ends("kept")
        self.assertEqual(raised.exception.payload, b"CallEnded: the call has ended")

    def test_a_handler_that_exits_loses_its_call_and_another_process_comes(self) -> None:
        pid = self.ends("pid")
        with self.assertRaises(quickfire.WorkerLost) as raised:
            self.ends("exit")
        self.assertTrue(raised.exception.started)
        self.assertNotEqual(self.ends("pid"), pid)

    def test_a_process_killed_in_a_call_is_replaced(self) -> None:
        # Given a call that runs
        pending = self.client.submit("waits")
        eventually("it runs", lambda: "began" in self.router.log("waits"))
        (pid,) = self.router.workers("waits")
        os.kill(pid, signal.SIGKILL)
        with self.assertRaises(quickfire.WorkerLost):
            pending.result()
        # Expect the next call to run, in another process, and to see its cancellation.
        after = self.client.submit("waits")
        eventually("it runs again", lambda: self.router.workers("waits") not in ([], [pid]))
        after.cancel()
        with self.assertRaises(quickfire.Cancelled):
            after.result()
        self.assertTrue(after.done())

    def test_a_running_call_notices_its_deadline(self) -> None:
        with self.assertRaises(quickfire.Expired) as raised:
            self.client.call("waits", timeout=0.5)
        self.assertIsInstance(raised.exception, TimeoutError)
        eventually("it noticed", lambda: "noticed" in self.router.log("waits"))

    def test_a_function_past_its_own_time_is_stopped(self) -> None:
        with self.assertRaises(quickfire.Expired) as raised:
            self.client.call("naps", "1000")
        self.assertIs(raised.exception.status, quickfire.Status.TIMED_OUT)

        def runs_again() -> bool:
            try:
                return self.client.call("naps", "0").payload == b"0"
            except quickfire.Expired:
                return False

        eventually("another process has come", runs_again)

    def test_nested_calls_have_the_time_criticality_and_trace_of_theirs(self) -> None:
        trace = quickfire.TraceContext.from_traceparent(f"00-{'ab' * 16}-{'cd' * 8}-01")
        answer = self.client.call("nests", timeout=20, criticality=quickfire.Criticality.CRITICAL, trace=trace)
        for told, left_max in zip(json.loads(answer.payload), [19.0, 20 * 0.95]):
            self.assertEqual((told["criticality"], told["trace"]), ("CRITICAL", trace.traceparent))
            self.assertTrue(0 < told["left"] <= left_max)

    def test_a_function_that_waits_for_itself_is_told(self) -> None:
        with self.assertRaises(quickfire.FunctionError) as raised:
            self.client.call("nests", "itself", timeout=20)
        self.assertIn(b"would_deadlock", raised.exception.payload)


class Endings(unittest.TestCase):
    def setUp(self) -> None:
        self.router = Router(table("naps", more='timeout = "30s"') + table("ends"))
        self.addCleanup(self.router.stop)
        self.client = quickfire.Client(self.router.url)
        self.addCleanup(self.client.close)

    def test_sigterm_ends_after_the_call_that_runs_and_tidies_up(self) -> None:
        self.client.call("naps", "0")
        (idle,) = self.router.workers("naps")
        os.kill(idle, signal.SIGTERM)
        eventually("it ended tidily", lambda: "tidied up" in self.router.log("naps"))
        eventually("another has come", lambda: self.router.workers("naps") not in ([], [idle]))

        pending = self.client.submit("naps", "0.5")
        (pid,) = self.router.workers("naps")
        eventually("it naps in its handler", lambda: "napping" in self.router.log("naps"))
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(pending.result().payload, b"0.5", "the call that runs is finished")
        eventually("it ended tidily", lambda: self.router.log("naps").count("tidied up") == 2)

    def test_an_interrupt_in_a_handler_ends_the_process_after_its_answer(self) -> None:
        pid = self.client.call("ends", "pid").payload
        with self.assertRaises(quickfire.FunctionError) as raised:
            self.client.call("ends", "interrupt")
        self.assertEqual(raised.exception.payload, b"KeyboardInterrupt")
        self.assertNotEqual(self.client.call("ends", "pid").payload, pid)
        self.assertIn("tidied up", self.router.log("ends"))

    def test_a_function_stays_warm_when_its_router_dies(self) -> None:
        pid = self.client.call("ends", "pid").payload
        self.router.kill()
        self.router.start()
        self.assertEqual(self.client.call("ends", "pid", timeout=20).payload, pid)

    def test_stop_ends_every_process_tidily(self) -> None:
        self.client.call("naps", "0")
        self.router.process.terminate()
        self.router.process.wait()
        self.assertIn("tidied up", self.router.log("naps"))
        self.assertEqual(self.router.workers("naps"), [])


class Alone(unittest.TestCase):
    """Without a router."""

    def run_python(self, code: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QUICKFIRE_")}
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=HERE, check=False
        )

    def test_a_function_started_by_hand_says_how_to_start_it(self) -> None:
        ran = self.run_python("import quickfire; quickfire.serve(lambda call: b'')")
        self.assertEqual(ran.returncode, 1)
        self.assertIn("ServeError: this program is a Quickfire function", ran.stderr)

    def test_the_name_of_the_process_chooses_among_several_handlers(self) -> None:
        ran = self.run_python("import quickfire, functions; quickfire.serve()")
        self.assertIn("known: context, echo_python, ends", ran.stderr)

    def test_two_handlers_of_a_name_and_coroutines_are_refused(self) -> None:
        code = "import quickfire\n@quickfire.function\ndef a(call): ...\n"
        self.assertIn("ValueError: there is a function a already", self.run_python(code * 2).stderr)
        code = "import quickfire\n@quickfire.function\nasync def a(call): ...\n"
        self.assertIn("TypeError: a is a coroutine", self.run_python(code).stderr)

    def test_handlers_are_tested_without_a_router(self) -> None:
        import functions

        told = json.loads(functions.context(quickfire.Call(b"")))
        self.assertEqual((told["left"], told["id"], told["cancelled"]), (None, 0, False))
        self.assertEqual(functions.echo_python(quickfire.Call(b"x")), b"x")

    def test_initialising_starts_no_thread_and_opens_nothing_and_hooks_run_in_order(self) -> None:
        code = """
import os
before = (os.listdir("/proc/self/task"), len(os.listdir("/proc/self/fd")))
import quickfire, functions
ran = []
@quickfire.after_fork
def first(): ran.append("first")
quickfire.after_fork(lambda: ran.append("second"))
assert before == (os.listdir("/proc/self/task"), len(os.listdir("/proc/self/fd")))
if os.fork() == 0:
    quickfire.run_after_fork()
    print(ran)
else:
    os.wait()
    assert not ran
"""
        ran = self.run_python(code)
        self.assertEqual((ran.stdout, ran.stderr), ("['first', 'second']\n", ""))


if __name__ == "__main__":
    unittest.main()
