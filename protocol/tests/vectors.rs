//! Golden vectors: `vectors/NAME.bin` is a frame, `vectors/NAME.txt` what it says or what is wrong with it.
//!
//! Both directions are checked: encoding the case gives the file's bytes, decoding the file gives its twin. Other
//! languages check the same files. `QUICKFIRE_BLESS=1 cargo test -p protocol --test vectors` writes them anew, which
//! is right after adding a case and wrong after changing one: these bytes are a promise.

use core::fmt::Write;
use protocol::limits::{FRAME_SIZE_MAX_DEFAULT, NAME_SIZE_MAX};
use protocol::*;
use std::collections::BTreeSet;
use std::path::PathBuf;

struct Vector {
    name: &'static str,
    shows: &'static str,
    bytes: Vec<u8>,
}

#[test]
fn encoding_gives_the_bytes_of_every_vector() {
    for vector in all() {
        let path = file(vector.name, "bin");
        if is_blessing() {
            std::fs::write(&path, &vector.bytes).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), vector.bytes, "{}", path.display());
    }
}

#[test]
fn decoding_gives_the_readable_twin_of_every_vector() {
    for vector in all() {
        let path = file(vector.name, "txt");
        let twin = format!("# {}\n{}", vector.shows, twin(&vector.bytes));
        if is_blessing() {
            std::fs::write(&path, &twin).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), twin, "{}", path.display());
    }
}

#[test]
fn every_file_belongs_to_a_vector() {
    let names: BTreeSet<String> =
        all().iter().flat_map(|vector| [".bin", ".txt"].map(|end| format!("{}{end}", vector.name))).collect();
    if is_blessing() {
        return; // The other tests are still writing them.
    }
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, names);
}

#[test]
fn every_kind_and_every_fault_of_a_first_frame_has_a_vector() {
    let twins: Vec<String> = all().iter().map(|vector| twin(&vector.bytes)).collect();
    let has = |line: &str| assert!(twins.iter().any(|twin| twin.lines().any(|its| its == line)), "{line}");
    for kind in Kind::ALL {
        has(&format!("kind: {}", kind.name()));
    }
    for fault in [
        "frame_too_large",
        "frame_too_small",
        "frame_size_unaligned",
        "extension_size_unaligned",
        "sizes_disagree",
        "extensions_missing",
        "unknown_kind",
        "unknown_critical_flag",
        "hello_too_short",
        "hello_magic_wrong",
        "unsupported_version",
        "frame_size_max_too_small",
    ] {
        has(&format!("fault: {fault}"));
    }
    has("expect: incomplete");
}

/// What a router makes of these bytes, as text.
fn twin(bytes: &[u8]) -> String {
    let frame = match decode(bytes, FRAME_SIZE_MAX_DEFAULT) {
        Ok(Some(frame)) => frame,
        Ok(None) => return "expect: incomplete\n".to_owned(),
        Err(fault) => return twin_of_fault(fault),
    };
    let hello = match frame.kind {
        Kind::Hello => match Hello::decode(frame.payload)
            .and_then(|hello| hello.answer(&Offer::default()).map(|_| hello))
        {
            Ok(hello) => Some(hello),
            Err(fault) => return twin_of_fault(fault),
        },
        _ => None,
    };
    twin_of_frame(&frame, hello).expect("writing to a string does not fail")
}

fn twin_of_fault(fault: ClientMisbehaved) -> String {
    format!("expect: fault\nfault: {}\nstatus: {}\n", fault.name(), fault.status() as u16)
}

fn twin_of_frame(frame: &Frame<'_>, hello: Option<Hello>) -> Result<String, core::fmt::Error> {
    let FrameHeader { frame_size, payload_size, call_id, function_id, budget_us, .. } = frame.header;
    let FrameHeader { kind: _, criticality, flags, status, extension_size, .. } = frame.header;
    let mut text = String::new();
    writeln!(text, "expect: frame\nkind: {}", frame.kind.name())?;
    writeln!(text, "frame_size: {frame_size}\npayload_size: {payload_size}")?;
    writeln!(text, "call_id: {:#018x}\nfunction_id: {}", call_id.0, function_id.0)?;
    writeln!(text, "budget_us: {budget_us}\ncriticality: {criticality}\nflags: {:#06x}", flags.0)?;
    writeln!(text, "status: {status}\nextension_size: {extension_size}")?;
    if let Some(key) = frame.idempotency_key() {
        writeln!(text, "idempotency_key: {}", hex(&key))?;
    }
    if let Some(trace) = frame.trace() {
        writeln!(text, "trace_id: {}\nparent_span_id: {}", hex(&trace.trace_id), hex(&trace.parent_span_id))?;
        writeln!(text, "trace_flags: {}", trace.trace_flags)?;
    }
    if let Some(timings) = frame.timings() {
        writeln!(text, "received_at_ns: {}", timings.received_at_ns)?;
        for (stage, stamp) in timings.stages() {
            let stamp = stamp.map_or("not reached".to_owned(), |stamp| stamp.to_string());
            writeln!(text, "{stage}_ns: {stamp}")?;
        }
        writeln!(text, "cause: {}", timings.cause as u8)?;
    }
    if let Some(called_by) = frame.called_by() {
        writeln!(text, "caller: {:#018x}\ndepth: {}", called_by.invocation_id, called_by.depth)?;
        writeln!(text, "wait_token: {:#018x}", called_by.wait_token.bits())?;
    }
    if let Some(start_after) = frame.start_after() {
        writeln!(text, "start_after_us: {}", start_after.us)?;
    }
    if let Some(hello) = hello {
        writeln!(text, "version_min: {}\nversion_max: {}", hello.version_min, hello.version_max)?;
        writeln!(text, "frame_size_max: {}\ncredits: {}", hello.frame_size_max, hello.credits)?;
        writeln!(text, "features: {:#018x}", hello.features)?;
    }
    writeln!(text, "payload: {}", hex(frame.payload))?;
    Ok(text)
}

fn all() -> Vec<Vector> {
    let mut vectors = well_formed();
    vectors.extend(from_a_newer_peer());
    vectors.extend(malformed());
    vectors
}

/// Every kind, with and without each extension.
fn well_formed() -> Vec<Vector> {
    let call = CallId::new(3, 1);
    let function = FunctionId(2);
    let invoke = FrameParts {
        budget_us: 50_000,
        criticality: Criticality::High as u8,
        ..FrameParts::invoke(call, function)
    };
    let reply = FrameParts { flags: Flags::STARTED, ..FrameParts::reply(call, Status::Ok) };
    let key = Extensions { idempotency_key: Some(*b"order-0000004711"), ..Extensions::NONE };
    let trace = Extensions { trace: Some(a_trace()), ..Extensions::NONE };
    let timings = Extensions { timings: Some(timings_of_a_whole_call()), ..Extensions::NONE };
    let everything = Extensions { trace: trace.trace, timings: timings.timings, ..key };
    let none = Extensions::NONE;
    let refused = FrameParts { budget_us: 250_000, ..FrameParts::reply(call, Status::QueueFull) };
    let refused_timings = Extensions { timings: Some(timings_of_a_refused_call()), ..none };
    let longest_name = "n".repeat(NAME_SIZE_MAX);
    vec![
        vector(
            "hello-client",
            "A client that leaves all limits to the router.",
            FrameParts::hello(),
            &none,
            &Hello::from_client(0, 0).encode(),
        ),
        vector(
            "hello-client-wishes",
            "A client that wants small frames and 64 credits.",
            FrameParts::hello(),
            &none,
            &Hello::from_client(65_536, 64).encode(),
        ),
        vector(
            "hello-router",
            "The router's answer: version, frame limit and credits for both.",
            FrameParts::hello(),
            &none,
            &Hello::from_client(FRAME_SIZE_MAX_DEFAULT, 1024).encode(),
        ),
        vector(
            "resolve",
            "Which number has the function echo?",
            FrameParts::resolve(CallId(1)),
            &none,
            b"echo",
        ),
        vector(
            "resolve-longest-name",
            "A name of 128 bytes.",
            FrameParts::resolve(CallId(2)),
            &none,
            longest_name.as_bytes(),
        ),
        vector(
            "resolved",
            "It is function 2.",
            FrameParts::resolved(CallId(1), function, Status::Ok),
            &none,
            b"",
        ),
        vector(
            "resolved-unknown",
            "No function has this name.",
            FrameParts::resolved(CallId(2), FunctionId(0), Status::UnknownFunction),
            &none,
            b"",
        ),
        vector(
            "invoke",
            "The worked example of the specification: function 2, slot 3, generation 1, 50 ms, high.",
            invoke,
            &none,
            b"hello",
        ),
        vector(
            "invoke-empty",
            "No payload, no deadline: the header alone.",
            FrameParts::invoke(CallId::new(0, 0), function),
            &none,
            b"",
        ),
        vector("invoke-16", "A payload that needs no padding.", invoke, &none, b"sixteen bytes ok"),
        vector("invoke-17", "A payload that needs the most padding.", invoke, &none, b"seventeen bytes !"),
        vector("invoke-key", "With an idempotency key.", invoke, &key, b"hello"),
        vector("invoke-trace", "With a trace context.", invoke, &trace, b"hello"),
        vector(
            "invoke-key-trace",
            "With both, in the order of their bits; wants timings and may run twice.",
            FrameParts { flags: Flags::WANT_TIMINGS.with(Flags::IDEMPOTENT), ..invoke },
            &Extensions { trace: trace.trace, ..key },
            b"hello",
        ),
        vector(
            "invoke-called-by",
            "Made by a running call, with the time that it hands on and its trace.",
            FrameParts { budget_us: 47_500, ..invoke },
            &Extensions { called_by: Some(a_caller()), ..trace },
            b"hello",
        ),
        vector(
            "invoke-called-by-wait-token",
            "Made by a running call, whose process shows that it does.",
            invoke,
            &Extensions {
                called_by: Some(CalledBy {
                    wait_token: WaitToken::from_bits(0x00fe_dcba_9876_0005),
                    ..a_caller()
                }),
                ..Extensions::NONE
            },
            b"hello",
        ),
        vector(
            "invoke-start-after",
            "To start in two seconds, and then to take at most 50 ms.",
            invoke,
            &Extensions { start_after: Some(StartAfter { us: 2_000_000 }), ..Extensions::NONE },
            b"hello",
        ),
        vector(
            "invoke-called-by-start-after",
            "Made by a running call, and as late as can be said: of both extensions the critical one is the last.",
            invoke,
            &Extensions {
                called_by: Some(a_caller()),
                start_after: Some(StartAfter { us: u64::MAX }),
                ..Extensions::NONE
            },
            b"hello",
        ),
        vector(
            "invoke-longest-budget",
            "Every bit of slot, generation, function and budget.",
            FrameParts {
                budget_us: u32::MAX,
                criticality: Criticality::Critical as u8,
                ..FrameParts::invoke(CallId::new(u32::MAX, u32::MAX), FunctionId(u32::MAX))
            },
            &none,
            b"",
        ),
        vector("reply", "The worked example's answer.", reply, &none, b"hello"),
        vector("reply-empty", "A result without bytes.", reply, &none, b""),
        vector(
            "reply-timings",
            "With the stage timings of a call that passed all stages.",
            reply,
            &timings,
            b"hello",
        ),
        vector(
            "reply-function-error",
            "The function ran and returned an error.",
            FrameParts { flags: Flags::STARTED, ..FrameParts::reply(call, Status::FunctionError) },
            &none,
            b"no such picture",
        ),
        vector(
            "reply-backpressure",
            "The function's database is overloaded: try again in 2.5 s.",
            FrameParts {
                flags: Flags::STARTED,
                budget_us: 2_500_000,
                ..FrameParts::reply(call, Status::Backpressure)
            },
            &none,
            b"database",
        ),
        vector("reply-refused", "The queue is full: try again in 250 ms.", refused, &none, b""),
        vector(
            "reply-refused-timings",
            "Refused, with timings: no stage was reached but the answer.",
            refused,
            &refused_timings,
            b"",
        ),
        vector(
            "reply-all-extensions",
            "All extensions at once: also those that mean nothing in a REPLY take their room.",
            reply,
            &everything,
            b"hello",
        ),
        vector(
            "cancel",
            "The answer to slot 3, generation 1 is no longer wanted.",
            FrameParts::cancel(call),
            &none,
            b"",
        ),
        vector("ping", "Are you there? The number comes back.", FrameParts::ping(0xDEAD_BEEF), &none, b""),
        vector("pong", "Yes.", FrameParts::pong(0xDEAD_BEEF), &none, b""),
        vector(
            "goaway-drain",
            "The router is shutting down.",
            FrameParts::goaway(Status::GoingAway),
            &none,
            "shutting down".as_bytes(),
        ),
        vector(
            "goaway-fault",
            "The client sent a frame that is too large.",
            FrameParts::goaway(Status::FrameTooLarge),
            &none,
            ClientMisbehaved::FrameTooLarge { size: 2_000_000, size_max: FRAME_SIZE_MAX_DEFAULT }
                .to_string()
                .as_bytes(),
        ),
    ]
}

/// Frames of later minor versions that version 1 must still read.
fn from_a_newer_peer() -> Vec<Vector> {
    let invoke = find("invoke");
    let keyed = find("invoke-key");
    // An extension of 32 bytes for the ignorable bit 7, behind the known key.
    let mut unknown_extension = keyed[..48].to_vec();
    unknown_extension.extend_from_slice(&[0xAB; 32]);
    unknown_extension.extend_from_slice(&keyed[48..]);
    let unknown_extension = patched(
        &patched(&patched(&unknown_extension, 0, &96u32.to_le_bytes()), 26, &0x0081u16.to_le_bytes()),
        30,
        &48u16.to_le_bytes(),
    );
    let mut padded = invoke.clone();
    padded[37..48].fill(0xFF);
    let mut hello = find("hello-client");
    hello.extend_from_slice(&[0xCD; 16]);
    let longer_hello = patched(&patched(&hello, 0, &80u32.to_le_bytes()), 4, &48u32.to_le_bytes());
    let wide_hello = patched(&find("hello-client"), 36, &[0, 0, 9, 0]);
    vec![
        Vector {
            name: "newer-flag",
            shows: "An unknown flag that may be ignored.",
            bytes: patched(&invoke, 26, &0x0080u16.to_le_bytes()),
        },
        Vector {
            name: "newer-extension",
            shows: "An unknown extension behind a known one: skipped.",
            bytes: unknown_extension,
        },
        Vector {
            name: "newer-status",
            shows: "A status of class refused that is not defined yet.",
            bytes: patched(&find("reply-refused"), 28, &31u16.to_le_bytes()),
        },
        Vector {
            name: "newer-hello",
            shows: "A HELLO with a longer payload: its tail is skipped.",
            bytes: longer_hello,
        },
        Vector {
            name: "newer-hello-versions",
            shows: "A client that speaks versions 0 to 9.",
            bytes: wide_hello,
        },
        Vector {
            name: "newer-criticality",
            shows: "A well-formed INVOKE with an unknown criticality: refused by REPLY, not by the decoder.",
            bytes: patched(&invoke, 25, &[4]),
        },
        Vector { name: "padding-not-zero", shows: "Padding is not looked at.", bytes: padded },
    ]
}

/// Frames that end the connection, and frames that are not all there.
fn malformed() -> Vec<Vector> {
    let invoke = find("invoke");
    let hello = find("hello-client");
    let size = |size: u32| patched(&invoke, 0, &size.to_le_bytes());
    let header_of_a_huge_frame = {
        let payload_size = FRAME_SIZE_MAX_DEFAULT - 16;
        let header = patched(&invoke, 0, &(FRAME_SIZE_MAX_DEFAULT + 16).to_le_bytes());
        patched(&header, 4, &payload_size.to_le_bytes())[..HEADER_SIZE].to_vec()
    };
    let garbage: Vec<u8> =
        (0..64u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect();
    let case = |name, shows, bytes| Vector { name, shows, bytes };
    vec![
        case("truncated-nothing", "No byte yet.", Vec::new()),
        case("truncated-header", "One byte short of a header.", invoke[..31].to_vec()),
        case("truncated-payload", "One byte short of a frame.", invoke[..47].to_vec()),
        case(
            "bad-frame-too-large",
            "16 bytes over the limit: refused from the header alone.",
            header_of_a_huge_frame,
        ),
        case("bad-frame-size-zero", "A frame of no bytes.", size(0)),
        case("bad-frame-size-16", "A frame smaller than its header.", size(16)),
        case("bad-frame-size-unaligned", "A frame size that is not a multiple of 16.", size(49)),
        case("bad-frame-size-longer", "A frame 16 bytes longer than its parts.", size(64)),
        case(
            "bad-payload-size",
            "A payload larger than its frame.",
            patched(&invoke, 4, &17u32.to_le_bytes()),
        ),
        case(
            "bad-payload-size-max",
            "A payload size that overflows 32 bits when rounded up.",
            patched(&invoke, 4, &u32::MAX.to_le_bytes()),
        ),
        case(
            "bad-extension-size-unaligned",
            "An extension size that is not a multiple of 16.",
            patched(&invoke, 30, &8u16.to_le_bytes()),
        ),
        case(
            "bad-extension-size",
            "Extensions that leave no room for the payload.",
            patched(&invoke, 30, &16u16.to_le_bytes()),
        ),
        case(
            "bad-extension-missing",
            "The flag of an idempotency key without the key.",
            patched(&invoke, 26, &1u16.to_le_bytes()),
        ),
        case("bad-kind-0", "Kind 0.", patched(&invoke, 24, &[0])),
        case("bad-kind-10", "A kind that is not defined.", patched(&invoke, 24, &[10])),
        case(
            "bad-critical-flag",
            "A flag that must be understood and is not.",
            patched(&invoke, 26, &0x0200u16.to_le_bytes()),
        ),
        case(
            "bad-first-of-two-faults",
            "Unaligned and of unknown kind: the first in the order of W-8 is named.",
            patched(&size(49), 24, &[10]),
        ),
        case(
            "bad-hello-short",
            "HELLO with 16 bytes of payload.",
            patched(&patched(&hello, 0, &48u32.to_le_bytes()), 4, &16u32.to_le_bytes())[..48].to_vec(),
        ),
        case("bad-hello-magic", "HELLO of something else.", patched(&hello, 32, b"HTTP")),
        case(
            "bad-hello-version",
            "A client that speaks versions 2 to 3.",
            patched(&hello, 36, &[2, 0, 3, 0]),
        ),
        case("bad-hello-version-empty", "An empty range of versions.", patched(&hello, 36, &[1, 0, 0, 0])),
        case(
            "bad-hello-frame-size-max",
            "A client that takes only 4095 bytes.",
            patched(&hello, 40, &4095u32.to_le_bytes()),
        ),
        case("bad-garbage", "Bytes without meaning.", garbage),
        case("bad-http", "A browser.", b"GET / HTTP/1.1\r\nHost: localhost:7450\r\n\r\n".to_vec()),
    ]
}

fn vector(
    name: &'static str,
    shows: &'static str,
    parts: FrameParts,
    extensions: &Extensions,
    payload: &[u8],
) -> Vector {
    let mut bytes = Vec::new();
    assert_eq!(encode(&mut bytes, &parts, extensions, payload), bytes.len());
    Vector { name, shows, bytes }
}

fn find(name: &str) -> Vec<u8> {
    well_formed().into_iter().find(|vector| vector.name == name).unwrap().bytes
}

fn patched(bytes: &[u8], offset: usize, field: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[offset..offset + field.len()].copy_from_slice(field);
    bytes
}

fn a_trace() -> TraceContext {
    TraceContext {
        trace_id: [
            0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36,
        ],
        parent_span_id: [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7],
        trace_flags: 1,
    }
}

fn a_caller() -> CalledBy {
    CalledBy { invocation_id: 0x0000_0007_0000_0300, depth: 1, wait_token: WaitToken::NONE }
}

fn timings_of_a_whole_call() -> Timings {
    Timings {
        received_at_ns: 1_000_000_000_007,
        admitted_ns: 0,
        queued_ns: 0,
        pushed_ns: 1_200,
        started_ns: 2_900,
        finished_ns: 41_000,
        answered_ns: 43_500,
        cause: Cause::Function,
    }
}

fn timings_of_a_refused_call() -> Timings {
    Timings { received_at_ns: 1_000_000_000_007, answered_ns: 300, ..Timings::default() }
}

fn file(name: &str, end: &str) -> PathBuf {
    folder().join(format!("{name}.{end}"))
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn is_blessing() -> bool {
    std::env::var_os("QUICKFIRE_BLESS").is_some()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
