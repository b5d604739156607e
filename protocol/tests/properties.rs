//! Properties that hold for every frame and for every sequence of bytes.

use proptest::prelude::*;
use protocol::limits::FRAME_SIZE_MAX_DEFAULT;
use protocol::*;

proptest! {
    #[test]
    fn random_bytes_are_decoded_refused_or_awaited_but_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..256),
    ) {
        if let Ok(Some(frame)) = decode(&bytes, FRAME_SIZE_MAX_DEFAULT) {
            prop_assert!(frame.size() <= bytes.len());
            let _ = frame.known_extensions();
        }
        let _ = Hello::decode(&bytes).map(|hello| hello.answer(&Offer::default()));
        let _ = attach::decode(&bytes);
    }

    // Random headers hardly ever have sizes that agree; these do, and everything else is random.
    #[test]
    fn random_fields_behind_consistent_sizes_never_panic(
        rest in any::<[u8; 20]>(), extension_count in 0u16..8, payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let padded = payload.len().next_multiple_of(FRAME_ALIGN);
        let extension_size = extension_count * 16;
        let frame_size = HEADER_SIZE + usize::from(extension_size) + padded;
        let mut bytes = (frame_size as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&rest);
        bytes.resize(30, 0);
        bytes.extend_from_slice(&extension_size.to_le_bytes());
        bytes.resize(HEADER_SIZE + usize::from(extension_size), 0xA5);
        bytes.extend_from_slice(&payload);
        bytes.resize(frame_size, 0);
        match decode(&bytes, FRAME_SIZE_MAX_DEFAULT) {
            Ok(frame) => {
                let frame = frame.expect("all bytes are there");
                prop_assert_eq!(frame.payload, &payload[..]);
                prop_assert!(frame.extensions.len() >= frame.header.flags.known_extension_size());
                let known = frame.known_extensions();
                prop_assert_eq!(known.flags(), Flags(frame.header.flags.0 & Flags::WITH_EXTENSION.0));
            }
            Err(fault) => prop_assert_ne!(fault.status(), Status::FrameTooLarge),
        }
    }

    #[test]
    fn what_is_encoded_is_decoded_again_wherever_it_lies(
        parts in any_parts(), extensions in any_extensions(),
        payload in prop::collection::vec(any::<u8>(), 0..200), before in 0usize..40, after in 0usize..40,
    ) {
        let mut bytes = vec![0x5A; before];
        let size = encode(&mut bytes, &parts, &extensions, &payload);
        prop_assert_eq!(bytes.len(), before + size);
        bytes.resize(bytes.len() + after, 0x5A);
        let frame = decode(&bytes[before..], FRAME_SIZE_MAX_DEFAULT).unwrap().unwrap();
        prop_assert_eq!(frame.size(), size);
        prop_assert_eq!(frame.kind, parts.kind);
        prop_assert_eq!(frame.payload, &payload[..]);
        prop_assert_eq!(frame.known_extensions(), extensions);
        prop_assert_eq!(frame.header.call_id, parts.call_id);
        prop_assert_eq!(frame.header.function_id, parts.function_id);
        prop_assert_eq!(frame.header.budget_us, parts.budget_us);
        prop_assert_eq!(frame.header.criticality, parts.criticality);
        prop_assert_eq!(frame.header.status, parts.status as u16);
        prop_assert_eq!(frame.header.flags, parts.flags.with(extensions.flags()));
        prop_assert_eq!(&encode_header(&frame.header)[..], &bytes[before..before + HEADER_SIZE]);
    }

    #[test]
    fn every_truncation_of_a_frame_waits_for_more(
        parts in any_parts(), extensions in any_extensions(), payload in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = Vec::new();
        encode(&mut bytes, &parts, &extensions, &payload);
        for size in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..size], FRAME_SIZE_MAX_DEFAULT), Ok(None));
        }
    }

    #[test]
    fn every_damaged_byte_gives_a_frame_a_fault_or_patience(
        parts in any_parts(), extensions in any_extensions(), place in 0usize..32, value in any::<u8>(),
    ) {
        let mut bytes = Vec::new();
        encode(&mut bytes, &parts, &extensions, b"payload");
        bytes[place] = value;
        if let Ok(Some(frame)) = decode(&bytes, FRAME_SIZE_MAX_DEFAULT) {
            prop_assert!(frame.size() <= bytes.len());
        }
    }

    #[test]
    fn a_frame_fits_exactly_when_its_payload_is_within_the_limit(
        extensions in any_extensions(), frame_size_max in 4096u32..8192, over in 0usize..2,
    ) {
        let extension_size = extensions.flags().known_extension_size() as u16;
        let payload = vec![7; limits::payload_size_max(frame_size_max, extension_size) as usize + over];
        let mut bytes = Vec::new();
        encode(&mut bytes, &FrameParts::invoke(CallId(0), FunctionId(0)), &extensions, &payload);
        prop_assert_eq!(decode(&bytes, frame_size_max).is_ok(), over == 0);
    }
}

fn any_parts() -> impl Strategy<Value = FrameParts> {
    let kind = prop::sample::select(Kind::ALL.to_vec());
    let status = prop::sample::select(Status::ALL.to_vec());
    let flags =
        prop::sample::select(vec![Flags::NONE, Flags::STARTED, Flags::WANT_TIMINGS, Flags::IDEMPOTENT]);
    (kind, any::<u64>(), any::<u32>(), any::<u32>(), any::<u8>(), flags, status).prop_map(
        |(kind, call_id, function_id, budget_us, criticality, flags, status)| FrameParts {
            kind,
            call_id: CallId(call_id),
            function_id: FunctionId(function_id),
            budget_us,
            criticality,
            flags,
            status,
        },
    )
}

fn any_extensions() -> impl Strategy<Value = Extensions> {
    let trace = any::<([u8; 16], [u8; 8], u32)>().prop_map(|(trace_id, parent_span_id, trace_flags)| {
        TraceContext { trace_id, parent_span_id, trace_flags }
    });
    let cause = prop::sample::select(Cause::ALL.to_vec());
    let timings = (any::<[u64; 7]>(), cause).prop_map(|(stamps, cause)| {
        let [received_at_ns, admitted_ns, queued_ns, pushed_ns, started_ns, finished_ns, answered_ns] =
            stamps;
        Timings {
            received_at_ns,
            admitted_ns,
            queued_ns,
            pushed_ns,
            started_ns,
            finished_ns,
            answered_ns,
            cause,
        }
    });
    let called_by = any::<(u64, u8, u64)>().prop_map(|(invocation_id, depth, token)| CalledBy {
        invocation_id,
        depth,
        wait_token: WaitToken::from_bits(token),
    });
    let key = prop::option::of(any::<[u8; 16]>());
    let start_after = any::<u64>().prop_map(|us| StartAfter { us });
    let (trace, timings) = (prop::option::of(trace), prop::option::of(timings));
    let (called_by, start_after) = (prop::option::of(called_by), prop::option::of(start_after));
    (key, trace, timings, called_by, start_after).prop_map(
        |(idempotency_key, trace, timings, called_by, start_after)| Extensions {
            idempotency_key,
            trace,
            timings,
            called_by,
            start_after,
        },
    )
}
