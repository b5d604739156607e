"""Callers in Python against a real router."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import unittest
from typing import Iterator, List

import quickfire
from support import Router, WithRouter, eventually, table


class Calls(WithRouter):
    manifest = table("naps") + table("waits")

    def test_every_way_to_the_router_gives_the_same_answers(self) -> None:
        for url in [self.router.url, self.router.unix, self.router.shm]:
            with self.subTest(url), quickfire.Client(url) as client:
                self.assertEqual(client.url, url)
                self.assertEqual(client.call("echo", b"hello"), quickfire.Answer(b"hello"))
                large = os.urandom(900_000)
                self.assertEqual(client.call("echo", large).payload, large)
                pending = [client.submit("echo", str(number)) for number in range(1_000)]
                texts = [call.result().payload for call in pending]
                self.assertEqual(texts, [str(number).encode() for number in range(1_000)])

    def test_payloads_are_anything_that_can_be_seen_as_bytes(self) -> None:
        payloads: List[quickfire.Payload] = ["grün", bytearray(b"array"), memoryview(b"..view..")[2:6]]
        answers = [answer.payload for answer in self.client.map("echo", payloads)]
        self.assertEqual(answers, ["grün".encode(), b"array", b"view"])
        self.assertEqual(self.client.call("echo", memoryview(b"0123456789")[::2]).payload, b"02468")
        for wrong in [7, None, ["list"]]:
            with self.assertRaisesRegex(TypeError, "cannot be seen as bytes"):
                self.client.call("echo", wrong)  # type: ignore[arg-type]

    def test_map_keeps_the_order_and_its_window(self) -> None:
        numbers = [str(number).encode() for number in range(200)]
        taken: List[bytes] = []

        def payloads() -> Iterator[bytes]:
            for number in numbers:
                taken.append(number)
                yield number

        answers = self.client.map("echo", payloads(), window=8)
        self.assertEqual(next(answers).payload, b"0")
        self.assertEqual(len(taken), 9, "no more than the window are on their way")
        self.assertEqual([answer.payload for answer in answers], numbers[1:])
        with self.assertRaises(quickfire.UnknownFunction):
            list(self.client.map("nobody", [b"", b""]))

    def test_an_unknown_function_is_the_callers_fault_and_a_wrong_name_a_wrong_argument(self) -> None:
        with self.assertRaises(quickfire.UnknownFunction) as raised:
            self.client.call("nobody")
        self.assertIs(raised.exception.status, quickfire.Status.UNKNOWN_FUNCTION)
        self.assertIs(raised.exception.fault, quickfire.Fault.CALLER)
        self.assertIs(raised.exception.retry, quickfire.Retry.POINTLESS)
        self.assertIs(raised.exception.started, False)
        with self.assertRaises(ValueError):
            self.client.call("")

    def test_a_payload_beyond_the_functions_bound_is_refused(self) -> None:
        with self.assertRaises(quickfire.Refused) as raised:
            self.client.call("echo", bytes(3 << 20))
        self.assertIs(raised.exception.status, quickfire.Status.PAYLOAD_TOO_LARGE)
        self.assertEqual(self.client.call("echo", b"next").payload, b"next")

    def test_wrong_options_are_wrong_arguments(self) -> None:
        for wrong in [-1.0, float("nan")]:
            with self.assertRaises(ValueError):
                self.client.call("echo", timeout=wrong)
        with self.assertRaises(ValueError):
            self.client.call("echo", idempotency_key=b"short")
        with self.assertRaises(ValueError):
            self.client.call("echo", criticality=4)  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            self.client.call("echo", trace=quickfire.TraceContext(b"short", b"short"))
        with self.assertRaises(ValueError):
            self.client.map("echo", [], window=0)
        for text in ["", "00-12-34-01", f"00-{'zz' * 16}-{'cd' * 8}-01"]:
            with self.assertRaises(ValueError):
                quickfire.TraceContext.from_traceparent(text)

    def test_no_time_is_a_refusal_and_endless_time_none(self) -> None:
        with self.assertRaises((quickfire.Refused, quickfire.Expired)) as raised:
            self.client.call("echo", timeout=0)
        self.assertIs(raised.exception.started, False)
        self.assertEqual(self.client.call("echo", b"x", timeout=float("inf")).payload, b"x")

    def test_a_call_starts_not_before_its_time(self) -> None:
        pending = self.client.submit("echo", b"later", start_after=0.2)
        with self.assertRaises(TimeoutError) as raised:
            pending.result(timeout=0)
        self.assertNotIsInstance(raised.exception, quickfire.Error, "the call itself has not expired")
        self.assertEqual(pending.result().payload, b"later")
        self.assertEqual(pending.result().payload, b"later", "as often as asked")

    def test_calls_with_a_key_share_one_run(self) -> None:
        key = os.urandom(16)
        first, second = (self.client.submit("naps", "0.2", idempotency_key=key) for _ in range(2))
        self.assertEqual(first.result(), second.result())

    def test_many_threads_share_a_client_and_a_pending_call(self) -> None:
        failures: List[BaseException] = []
        shared = self.client.submit("naps", "0.3")

        def run(number: int) -> None:
            try:
                for turn in range(200):
                    text = f"{number} {turn}".encode()
                    assert self.client.call("echo", text).payload == text
                assert shared.result().payload == b"0.3"
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_one_thread_cancels_what_another_waits_for(self) -> None:
        pending = self.client.submit("waits")
        ends: List[object] = []

        def wait() -> None:
            try:
                pending.result()
            except quickfire.Cancelled as error:
                ends.append(error.fault)

        waiter = threading.Thread(target=wait)
        waiter.start()
        eventually("it runs", lambda: "began" in self.router.log("waits"))
        pending.cancel()
        waiter.join()
        self.assertEqual(ends, [quickfire.Fault.CALLER])

    def test_callbacks_are_called_once_with_the_call(self) -> None:
        seen: List[quickfire.PendingCall] = []
        pending = self.client.submit("naps", "0.05")
        pending.add_done_callback(seen.append)
        pending.result()
        eventually("the callback was called", lambda: seen == [pending])
        pending.add_done_callback(seen.append)
        self.assertEqual(seen, [pending, pending], "at once where the call has ended")

    def test_calls_are_awaited_in_asyncio(self) -> None:
        async def one(number: int) -> bytes:
            call = self.client.submit("naps" if number % 10 == 0 else "echo", "0.01", wait=False)
            return (await call).payload

        async def many() -> List[bytes]:
            with self.assertRaises(quickfire.UnknownFunction):
                await self.client.submit("nobody")
            return await asyncio.gather(*(one(number) for number in range(50)))

        self.assertEqual(asyncio.run(many()), [b"0.01"] * 50)

    def test_cancelling_a_task_cancels_its_call(self) -> None:
        async def run() -> quickfire.PendingCall:
            call = self.client.submit("waits")

            async def wait() -> None:
                await call

            task = asyncio.ensure_future(wait())
            await asyncio.sleep(0)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            return call

        with self.assertRaises(quickfire.Cancelled):
            asyncio.run(run()).result()

    def test_a_closed_client_takes_no_calls_and_those_on_their_way_end(self) -> None:
        with quickfire.Client(self.router.url) as client:
            pending = client.submit("naps", "0.1")
        with self.assertRaises(quickfire.ClientClosed):
            client.call("echo")
        self.assertEqual(pending.result().payload, b"0.1")
        client.close()

    def test_a_forked_process_leaves_its_parents_connection_alone(self) -> None:
        code = f"""
import os, quickfire
client = quickfire.Client({self.router.url!r})
pending = client.submit("naps", "0.3")
child = os.fork()
if child == 0:
    for use in [lambda: client.call("echo"), pending.result, pending.cancel, pending.done]:
        try:
            use()
        except quickfire.ForkedError:
            continue
        os._exit(1)
    client.close()
    del client, pending, use   # would end the parent's connection, and cancel its call
    with quickfire.Client({self.router.url!r}) as own:
        assert own.call("echo", b"child").payload == b"child"
    raise SystemExit
_, status = os.waitpid(child, 0)
print(status, pending.result().payload, client.call("echo", b"parent").payload)
"""
        # From 3.12 on, Python warns of any fork in a process with threads. This one calls nothing that the threads may have held.
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((ran.stdout, ran.stderr), ("0 b'0.3' b'parent'\n", ""))

    def test_ctrl_c_ends_a_wait_and_cancels_its_call(self) -> None:
        def said(word: str) -> int:
            return self.router.log("waits").count(word)

        for wait in ["client.call('waits')", "client.submit('waits').result()"]:
            with self.subTest(wait):
                eventually("earlier calls have ended", lambda: said("began") == said("noticed"))
                before = said("began")
                code = f"import quickfire\nclient = quickfire.Client({self.router.url!r})\n{wait}"
                child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
                eventually("it runs", lambda: said("began") > before)
                child.send_signal(signal.SIGINT)
                _, stderr = child.communicate()
                self.assertIn("KeyboardInterrupt", stderr)
                eventually("the call was cancelled", lambda: said("noticed") == said("began"))


class Connections(unittest.TestCase):
    def test_where_nobody_listens_there_is_no_connection(self) -> None:
        with self.assertRaises(quickfire.ConnectError) as raised:
            quickfire.Client("unix:///nowhere/router.sock")
        self.assertIsInstance(raised.exception, ConnectionError)
        self.assertIn("/nowhere/router.sock", str(raised.exception))
        for wrong in ["http://a", "quickfire://", "unix://relative"]:
            with self.assertRaises(ValueError):
                quickfire.Client(wrong)

    def test_a_router_that_dies_ends_its_calls_and_its_successor_takes_the_next(self) -> None:
        router = Router(table("waits"))
        self.addCleanup(router.stop)
        with quickfire.Client(router.url, connect_timeout=30) as client:
            pending = client.submit("waits")
            eventually("it runs", lambda: "began" in router.log("waits"))
            router.kill()
            with self.assertRaises(quickfire.Disconnected) as raised:
                pending.result()
            self.assertIs(raised.exception.started, None, "it may have run")
            self.assertIs(raised.exception.fault, quickfire.Fault.ROUTER)
            self.assertIs(raised.exception.retry, quickfire.Retry.IF_IDEMPOTENT)
            router.start()
            self.assertEqual(client.call("echo", b"again", timeout=30).payload, b"again")

    def test_without_an_address_the_environment_says_where(self) -> None:
        code = "import quickfire; quickfire.Client()"
        environment = {**os.environ, "QUICKFIRE_CONNECT": "unix:///said/by/the/environment"}
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
        self.assertIn("unix:///said/by/the/environment", ran.stderr)


if __name__ == "__main__":
    unittest.main()
