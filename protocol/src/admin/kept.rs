//! Calls that outlived their answers, as the admin socket tells of them; and lists of them.
//!
//! ```text
//!   first part   the names of their functions, a line each
//!   second part  for each call: number 8, ended at 8, bytes of payload 8, status 2, attempts 1, criticality 1, line 4
//! ```

/// Calls in one list: 2 MiB of names at their longest and half a MiB of rows, so that both fit one message.
pub const CALLS_PER_LIST_MAX: usize = 16_384;
/// Bytes of a payload or of a result in one message.
pub const PIECE_SIZE_MAX: usize = 4 << 20;

const _: () =
    assert!(CALLS_PER_LIST_MAX * (ROW_SIZE + crate::limits::NAME_SIZE_MAX + 1) <= super::PARTS_SIZE_MAX);

/// Bytes of a call in a list.
const ROW_SIZE: usize = 32;

/// Where calls are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shelf {
    /// Two processes died of them.
    Quarantine,
    /// They failed with no attempt left.
    DeadLetters,
}

/// A kept call without its payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptCall {
    /// Which: no other call of the router's life has this number.
    pub number: u64,
    /// The name of its function.
    pub function: String,
    /// How it ended, as on the wire.
    pub status: u16,
    /// Times it was handed to a worker.
    pub attempts: u8,
    /// 0 to 3.
    pub criticality: u8,
    /// When it ended; CLOCK_MONOTONIC.
    pub ended_at_ns: u64,
    /// Bytes of its payload.
    pub payload_size: u64,
}

/// Both parts of a list.
pub fn encode_list(calls: &[KeptCall]) -> (String, Vec<u8>) {
    let mut names: Vec<&str> = calls.iter().map(|call| call.function.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut rows = Vec::with_capacity(calls.len() * ROW_SIZE);
    for call in calls {
        let line = names.partition_point(|name| *name < call.function.as_str());
        rows.extend_from_slice(&call.number.to_le_bytes());
        rows.extend_from_slice(&call.ended_at_ns.to_le_bytes());
        rows.extend_from_slice(&call.payload_size.to_le_bytes());
        rows.extend_from_slice(&call.status.to_le_bytes());
        rows.extend_from_slice(&[call.attempts, call.criticality]);
        rows.extend_from_slice(&(line as u32).to_le_bytes());
    }
    (names.iter().map(|name| format!("{name}\n")).collect(), rows)
}

/// The reverse. None: the parts are no list, or a longer one than may be.
pub fn decode_list(names: &str, rows: &[u8]) -> Option<Vec<KeptCall>> {
    let names: Vec<&str> = names.lines().collect();
    let (rows, rest) = rows.as_chunks::<ROW_SIZE>();
    if !rest.is_empty() || rows.len() > CALLS_PER_LIST_MAX {
        return None;
    }
    rows.iter().map(|row| decode_row(row, &names)).collect()
}

fn decode_row(row: &[u8; ROW_SIZE], names: &[&str]) -> Option<KeptCall> {
    let (number, rest) = row.split_first_chunk()?;
    let (ended_at_ns, rest) = rest.split_first_chunk()?;
    let (payload_size, rest) = rest.split_first_chunk()?;
    let (status, rest) = rest.split_first_chunk()?;
    let ([attempts, criticality], rest) = rest.split_first_chunk()?;
    let line = u32::from_le_bytes(*rest.first_chunk()?);
    Some(KeptCall {
        number: u64::from_le_bytes(*number),
        function: (*names.get(line as usize)?).to_owned(),
        status: u16::from_le_bytes(*status),
        attempts: *attempts,
        criticality: *criticality,
        ended_at_ns: u64::from_le_bytes(*ended_at_ns),
        payload_size: u64::from_le_bytes(*payload_size),
    })
}
