//! Holds the tables of `docs/spec/wire.md` to the code, and the code's citations to the document.

use protocol::limits::*;
use protocol::*;
use std::collections::BTreeSet;
use std::mem::offset_of;
use std::path::{Path, PathBuf};

#[test]
fn the_header_table_is_the_archived_header() {
    let expected = [
        ("frame_size", offset_of!(ArchivedFrameHeader, frame_size)),
        ("payload_size", offset_of!(ArchivedFrameHeader, payload_size)),
        ("call_id", offset_of!(ArchivedFrameHeader, call_id)),
        ("function_id", offset_of!(ArchivedFrameHeader, function_id)),
        ("budget_us", offset_of!(ArchivedFrameHeader, budget_us)),
        ("kind", offset_of!(ArchivedFrameHeader, kind)),
        ("criticality", offset_of!(ArchivedFrameHeader, criticality)),
        ("flags", offset_of!(ArchivedFrameHeader, flags)),
        ("status", offset_of!(ArchivedFrameHeader, status)),
        ("extension_size", offset_of!(ArchivedFrameHeader, extension_size)),
    ];
    let rows = table("| Offset | Size | Field | Meaning |");
    let written: Vec<(&str, usize)> = rows.iter().map(|row| (row[2].as_str(), number(&row[0]))).collect();
    assert_eq!(written, expected);
    // Without gaps: each field starts where the one before ends.
    let mut end = 0;
    for row in &rows {
        assert_eq!(number(&row[0]), end, "{}", row[2]);
        end += number(&row[1]);
    }
    assert_eq!(end, HEADER_SIZE);
}

#[test]
fn the_kind_table_is_the_enum() {
    let expected: Vec<[String; 3]> = Kind::ALL
        .iter()
        .map(|kind| {
            let sender = match (kind.is_sent_by_client(), kind.is_sent_by_router()) {
                (true, true) => "both",
                (true, false) => "client",
                (false, _) => "router",
            };
            [(*kind as u8).to_string(), kind.name().to_owned(), sender.to_owned()]
        })
        .collect();
    assert_eq!(columns(table("| Kind | Name | Sent by | Payload | Call id |"), [0, 1, 2]), expected);
}

#[test]
fn the_flag_table_is_the_constant() {
    let expected: Vec<[String; 3]> = Flags::ALL
        .iter()
        .map(|(flag, name, size)| [flag.0.trailing_zeros().to_string(), (*name).to_owned(), size.to_string()])
        .collect();
    assert_eq!(columns(table("| Bit | Name | In | Extension size | Meaning |"), [0, 1, 3]), expected);
}

#[test]
fn the_status_table_is_the_enum() {
    let expected: Vec<[String; 6]> = Status::ALL
        .iter()
        .map(|status| {
            [
                (*status as u16).to_string(),
                status.name().to_owned(),
                status.class().name().to_owned(),
                status.fault().name().to_owned(),
                status.retry().name().to_owned(),
                status.explain().to_owned(),
            ]
        })
        .collect();
    let rows = table("| Status | Name | Class | Fault | Retry | What happened: what to do |");
    assert_eq!(columns(rows, [0, 1, 2, 3, 4, 5]), expected);
}

#[test]
fn the_criticality_and_cause_tables_are_the_enums() {
    let criticalities: Vec<[String; 2]> = Criticality::ALL
        .iter()
        .map(|criticality| [(*criticality as u8).to_string(), criticality.name().to_owned()])
        .collect();
    assert_eq!(columns(table("| Criticality | Name | Meaning |"), [0, 1]), criticalities);
    let causes: Vec<[String; 3]> = Cause::ALL
        .iter()
        .map(|cause| [(*cause as u8).to_string(), cause.name().to_owned(), cause.explain().to_owned()])
        .collect();
    assert_eq!(columns(table("| Cause | Name | Meaning |"), [0, 1, 2]), causes);
}

#[test]
fn the_fault_table_is_the_enum_in_the_order_of_the_checks() {
    let (size, kind) = (0, 0);
    let faults = [
        ClientMisbehaved::FrameTooLarge { size, size_max: 0 },
        ClientMisbehaved::FrameTooSmall { size },
        ClientMisbehaved::FrameSizeUnaligned { size },
        ClientMisbehaved::ExtensionSizeUnaligned { size: 0 },
        ClientMisbehaved::SizesDisagree { frame_size: 0, extension_size: 0, payload_size: 0 },
        ClientMisbehaved::ExtensionsMissing { size: 0, size_needed: 0 },
        ClientMisbehaved::UnknownKind(kind),
        ClientMisbehaved::UnknownCriticalFlag(0),
        ClientMisbehaved::HelloExpected { kind },
        ClientMisbehaved::UnexpectedFrame { kind },
        ClientMisbehaved::HelloTooShort { size: 0 },
        ClientMisbehaved::HelloMagicWrong { magic: 0 },
        ClientMisbehaved::UnsupportedVersion { version_min: 0, version_max: 0 },
        ClientMisbehaved::FrameSizeMaxTooSmall { size_max: 0 },
    ];
    let expected: Vec<[String; 3]> = faults
        .iter()
        .enumerate()
        .map(|(index, fault)| {
            [(index + 1).to_string(), fault.name().to_owned(), (fault.status() as u16).to_string()]
        })
        .collect();
    assert_eq!(columns(table("| Order | Fault | Condition | Status |"), [0, 1, 3]), expected);
}

#[test]
fn the_limit_table_is_the_constants() {
    let expected = [
        ("frame_size_max", FRAME_SIZE_MAX_DEFAULT as usize),
        ("frame_size_max_floor", FRAME_SIZE_MAX_FLOOR as usize),
        ("credits_default", CREDITS_DEFAULT as usize),
        ("credits_max", CREDITS_MAX as usize),
        ("name_size_max", NAME_SIZE_MAX),
        ("reason_size_max", REASON_SIZE_MAX),
    ]
    .map(|(name, value)| [name.to_owned(), value.to_string()]);
    assert_eq!(columns(table("| Limit | Default or bound | What |"), [0, 1]), expected);
}

#[test]
fn the_worked_example_is_the_golden_vectors() {
    for name in ["invoke", "reply"] {
        let document = document();
        let (_, after) = document.split_once(&format!("```hex {name}\n")).expect("the example is there");
        let (block, _) = after.split_once("```").unwrap();
        let bytes: Vec<u8> =
            block.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let path = crate_folder().join("vectors").join(format!("{name}.bin"));
        assert_eq!(bytes, std::fs::read(path).unwrap(), "{name}");
    }
}

#[test]
fn rules_are_numbered_once_in_ascending_order_within_each_section() {
    let rules = rules();
    let unique: BTreeSet<u32> = rules.iter().copied().collect();
    assert_eq!(unique.len(), rules.len(), "a number is used twice in {rules:?}");
    for section in document().split("\n## ") {
        let numbers = rules_of(section);
        assert!(numbers.is_sorted() || section.starts_with("3."), "{numbers:?}");
    }
}

#[test]
fn every_rule_cited_by_the_code_exists() {
    let rules: BTreeSet<u32> = rules().into_iter().collect();
    let mut cited = 0;
    for path in sources(&crate_folder().join("src")) {
        for word in
            std::fs::read_to_string(&path).unwrap().split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        {
            if let Some(rule) = word.strip_prefix("W-").and_then(|digits| digits.parse().ok()) {
                assert!(rules.contains(&rule), "{} cites W-{rule}", path.display());
                cited += 1;
            }
        }
    }
    assert!(cited > 20, "only {cited} citations were found: is the search broken?");
}

/// The rows below the one with this text, as cells.
fn table(head: &str) -> Vec<Vec<String>> {
    let document = document();
    let mut lines = document.lines().skip_while(|line| *line != head).skip(2).peekable();
    assert!(lines.peek().is_some(), "no table {head}");
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

fn columns<const N: usize>(rows: Vec<Vec<String>>, chosen: [usize; N]) -> Vec<[String; N]> {
    rows.iter().map(|row| chosen.map(|column| row[column].clone())).collect()
}

fn number(cell: &str) -> usize {
    cell.parse().unwrap()
}

fn rules() -> Vec<u32> {
    rules_of(&document())
}

fn rules_of(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.strip_prefix("- **W-")?.split_once("**")?.0.parse().ok()).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

fn document() -> String {
    std::fs::read_to_string(crate_folder().join("../docs/spec/wire.md")).unwrap()
}

fn crate_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
