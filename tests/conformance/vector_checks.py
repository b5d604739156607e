"""The golden vectors both ways: NAME.bin is read into the lines of NAME.txt, and those lines are written back."""

import pathlib

import quickfire_wire as wire

# Their bytes hold what the twin cannot say, because a reader of version 1 does not look at it.
READ_ONLY = {"newer-extension", "newer-hello", "padding-not-zero"}


def checks(folder: pathlib.Path) -> list:
    names = sorted(path.stem for path in folder.glob("*.bin"))
    return [("vectors are there", lambda: check_presence(folder, names))] + [
        check for name in names for check in checks_of_one(folder, name)
    ]


def check_presence(folder: pathlib.Path, names: list) -> None:
    twins = sorted(path.stem for path in folder.glob("*.txt"))
    assert len(names) >= 50, f"only {len(names)} vectors in {folder}"
    assert names == twins, f"vectors without their other half: {set(names) ^ set(twins)}"


def checks_of_one(folder: pathlib.Path, name: str) -> list:
    data = (folder / f"{name}.bin").read_bytes()
    twin = read_twin(folder / f"{name}.txt")
    read = [(f"read {name}", lambda: check_equal(describe(data), twin))]
    if twin.get("expect") != "frame" or name in READ_ONLY:
        return read
    return read + [(f"write {name}", lambda: check_equal(wire.encode(frame_of(twin)).hex(), data.hex()))]


def check_equal(found, expected) -> None:
    assert found == expected, f"\n  found    {found}\n  expected {expected}"


def read_twin(path: pathlib.Path) -> dict:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split(": ", 1) if ": " in line else (line.rstrip(":"), "") for line in lines)


def describe(data: bytes) -> dict:
    """What a router makes of these bytes, in the words of the twin."""
    try:
        frame = wire.decode(data)
        hello = wire.Hello.decode(frame.payload) if frame and frame.kind == wire.HELLO else None
    except wire.Fault as fault:
        return {"expect": "fault", "fault": fault.name, "status": str(fault.status)}
    if frame is None:
        return {"expect": "incomplete"}
    lines = {
        "expect": "frame",
        "kind": wire.KIND_NAMES[frame.kind - 1],
        "frame_size": str(frame.frame_size),
        "payload_size": str(len(frame.payload)),
        "call_id": f"{frame.call_id:#018x}",
        "function_id": str(frame.function_id),
        "budget_us": str(frame.budget_us),
        "criticality": str(frame.criticality),
        "flags": f"{frame.flags:#06x}",
        "status": str(frame.status),
        "extension_size": str(frame.extension_size),
    }
    if frame.idempotency_key is not None:
        lines["idempotency_key"] = frame.idempotency_key.hex()
    if frame.trace is not None:
        trace_id, parent_span_id, trace_flags = frame.trace
        lines.update(trace_id=trace_id.hex(), parent_span_id=parent_span_id.hex(), trace_flags=str(trace_flags))
    if frame.timings is not None:
        lines["received_at_ns"] = str(frame.timings.received_at_ns)
        for stage, stamp in frame.timings.stages.items():
            lines[f"{stage}_ns"] = "not reached" if stamp is None else str(stamp)
        lines["cause"] = str(frame.timings.cause)
    if frame.called_by is not None:
        caller, depth, wait_token = frame.called_by
        lines.update(caller=f"0x{caller:016x}", depth=str(depth), wait_token=f"0x{wait_token:016x}")
    if frame.start_after_us is not None:
        lines["start_after_us"] = str(frame.start_after_us)
    if hello is not None:
        lines.update(version_min=str(hello.version_min), version_max=str(hello.version_max))
        lines.update(frame_size_max=str(hello.frame_size_max), credits=str(hello.credits))
        lines["features"] = f"{hello.features:#018x}"
    lines["payload"] = frame.payload.hex()
    return lines


def frame_of(twin: dict) -> wire.Frame:
    """The frame that these lines tell of. HELLO's payload is built from its fields, not copied."""
    frame = wire.Frame(
        kind=wire.KIND_NAMES.index(twin["kind"]) + 1,
        call_id=int(twin["call_id"], 16),
        function_id=int(twin["function_id"]),
        budget_us=int(twin["budget_us"]),
        criticality=int(twin["criticality"]),
        flags=int(twin["flags"], 16),
        status=int(twin["status"]),
        payload=bytes.fromhex(twin["payload"]),
    )
    if "idempotency_key" in twin:
        frame.idempotency_key = bytes.fromhex(twin["idempotency_key"])
    if "trace_id" in twin:
        ids = bytes.fromhex(twin["trace_id"]), bytes.fromhex(twin["parent_span_id"])
        frame.trace = (*ids, int(twin["trace_flags"]))
    if "received_at_ns" in twin:
        stamps = {stage: twin[f"{stage}_ns"] for stage in wire.STAGES}
        stages = {stage: None if stamp == "not reached" else int(stamp) for stage, stamp in stamps.items()}
        frame.timings = wire.Timings(int(twin["received_at_ns"]), stages, int(twin["cause"]))
    if "caller" in twin:
        frame.called_by = (int(twin["caller"], 16), int(twin["depth"]), int(twin["wait_token"], 16))
    if "start_after_us" in twin:
        frame.start_after_us = int(twin["start_after_us"])
    if frame.kind == wire.HELLO:
        limits = [int(twin[name]) for name in ("version_min", "version_max", "frame_size_max", "credits")]
        frame.payload = wire.Hello(*limits, features=int(twin["features"], 16)).encode()
    return frame
