use std::path::PathBuf;

use super::file::RETRY_NS;
use super::*;

const EDITION: u64 = 0xC7;
const BOUNDS: LogBounds =
    LogBounds { size_max: 1 << 20, age_max: Duration::from_secs(3600), rate_max: 1 << 30 };

fn log(dir: &Path, bounds: LogBounds) -> PlaceLog {
    let mut log = PlaceLog::new(dir, "echo", "3", EDITION, bounds);
    log.started(0, 1);
    log
}

/// The files of a place, oldest first.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut named: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some((name::LogName::read(path.file_name()?.to_str()?)?, path)))
        .collect();
    named.sort_by_key(|(name, _)| name.begun_at_ms.unwrap_or(u64::MAX));
    named.into_iter().map(|(_, path)| path).collect()
}

/// Every line that is kept, as `source call text`.
fn lines(dir: &Path) -> Vec<String> {
    let bytes: Vec<u8> = files(dir).iter().flat_map(|path| std::fs::read(path).unwrap()).collect();
    let whole = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let shown = |bytes: &[u8]| {
        let Some(line) = Line::read(bytes) else { return "torn".to_owned() };
        assert_eq!(line.edition, EDITION);
        let call = line.call.map_or("-".to_owned(), |call| format!("{call:x}"));
        format!("{} {call} {}", line.source.name(), String::from_utf8_lossy(line.text))
    };
    whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(shown).collect()
}

#[test]
fn lines_that_arrive_in_pieces_are_written_whole_and_streams_are_kept_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), BOUNDS);
    log.append(0, Stream::Out, b"hel");
    log.append(0, Stream::Err, b"oh\nno");
    log.append(0, Stream::Out, b"lo\n\nend");
    let last_errors = log.ended(0, "exited with code 0");
    let expected = [
        "shim - started, pid 1",
        "err - oh",
        "out - hello",
        "out - ",
        "out - end",
        "err - no",
        "shim - exited with code 0",
    ];
    assert_eq!(lines(dir.path()), expected);
    assert_eq!(last_errors, ["oh", "no"]);
}

#[test]
fn a_marked_line_is_of_its_call_and_the_next_one_of_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), BOUNDS);
    log.append(0, Stream::Err, b"\x1e1f\x1fof a call\nof none\n\x1e");
    log.append(0, Stream::Err, b"2");
    log.append(0, Stream::Out, b"\x1e\x1f\x1eno mark\nnot \x1e1f\x1fat the beginning\n");
    log.append(0, Stream::Err, b"0\x1fin pieces");
    assert_eq!(log.ended(0, "gone"), ["of a call", "of none", "in pieces"]);
    let expected = [
        "shim - started, pid 1",
        "err 1f of a call",
        "err - of none",
        "out - \x1eno mark",
        "out - not \x1e1f\x1fat the beginning",
        "err 20 in pieces",
        "shim - gone",
    ];
    assert_eq!(lines(dir.path()), expected);
}

#[test]
fn any_bytes_are_kept_as_they_were_printed() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), BOUNDS);
    let bytes: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    log.append(0, Stream::Out, &bytes);
    log.append(0, Stream::Out, b"\n");
    let written = std::fs::read(&files(dir.path())[0]).unwrap();
    let line = written.split(|byte| *byte == b'\n').nth(1).unwrap();
    assert_eq!(Line::read(line).unwrap().text, bytes);
}

#[test]
fn only_the_last_four_stderr_lines_are_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), BOUNDS);
    log.append(0, Stream::Err, b"1\n2\n3\n4\n5\n6\n");
    assert_eq!(log.ended(0, "gone"), ["3", "4", "5", "6"]);
    assert_eq!(log.ended(0, "gone"), [""; 0], "the next process starts with none");
}

#[test]
fn a_line_without_an_end_is_broken_and_not_hoarded_and_all_of_it_is_of_its_call() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), BOUNDS);
    log.append(0, Stream::Out, b"\x1e1f\x1f");
    log.append(0, Stream::Out, &vec![b'x'; 3 * LINE_SIZE_MAX - 4]);
    assert!(log.unfinished[0].text.capacity() <= 2 * LINE_SIZE_MAX);
    let _ = log.ended(0, "gone");
    let mut kept = lines(dir.path());
    kept.retain(|line| !line.starts_with("shim"));
    let sizes = [LINE_SIZE_MAX - 4, LINE_SIZE_MAX, LINE_SIZE_MAX];
    let expected: Vec<_> = ["out+", "out+", "out"]
        .iter()
        .zip(sizes)
        .map(|(source, size)| format!("{source} 1f {}", "x".repeat(size)))
        .collect();
    assert_eq!(kept, expected);
}

#[test]
fn all_files_together_stay_within_the_size_and_nothing_is_lost_at_a_seam() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), LogBounds { size_max: 4_000, ..BOUNDS });
    for number in 0..200 {
        log.append(0, Stream::Out, format!("line {number:03}\n").as_bytes());
        let sizes = files(dir.path()).iter().map(|path| path.metadata().unwrap().len()).collect::<Vec<_>>();
        assert!(sizes.iter().sum::<u64>() <= 4_000, "{sizes:?}");
    }
    assert_eq!(files(dir.path()).len(), 4);
    let kept = lines(dir.path());
    let expected: Vec<_> = (200 - kept.len()..200).map(|number| format!("out - line {number:03}")).collect();
    assert_eq!(kept, expected);
    assert!(kept.len() > 40, "three quarters of what fits, at least: {}", kept.len());
}

#[test]
fn the_next_shim_goes_on_with_the_files_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = LogBounds { size_max: 4_000, ..BOUNDS };
    for round in 0..8 {
        let mut log = log(dir.path(), bounds);
        (0..20).for_each(|number| log.append(0, Stream::Out, format!("{round} {number}\n").as_bytes()));
    }
    let sizes: u64 = files(dir.path()).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!(sizes <= 4_000 && files(dir.path()).len() == 4, "{sizes}");
    assert_eq!(lines(dir.path()).last().unwrap(), "out - 7 19");
}

#[test]
fn half_a_line_of_a_shim_that_was_killed_spoils_no_other() {
    let dir = tempfile::tempdir().unwrap();
    log(dir.path(), BOUNDS).append(0, Stream::Out, b"whole\n");
    let path = &files(dir.path())[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes.extend_from_slice(b"1795465437.12");
    std::fs::write(path, bytes).unwrap();
    log(dir.path(), BOUNDS).append(0, Stream::Out, b"next\n");
    let expected = ["shim - started, pid 1", "out - whole", "torn", "shim - started, pid 1", "out - next"];
    assert_eq!(lines(dir.path()), expected);
}

#[test]
fn a_flood_is_dropped_with_a_count_and_what_follows_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), LogBounds { rate_max: 1_000, ..BOUNDS });
    for number in 0..1_000 {
        log.append(0, Stream::Out, format!("line {number:03}\n").as_bytes());
    }
    let kept = lines(dir.path());
    assert_eq!(kept.last().unwrap(), "out - line 124", "8 bytes each, and a second's worth at once");
    assert_eq!(log.lines_dropped(), 875);
    log.append(RETRY_NS, Stream::Err, b"later\n");
    let told =
        "shim - 875 lines, 7000 bytes of stdout were dropped here: more than log_rate_max, 1000 a second";
    assert_eq!(lines(dir.path())[kept.len()..], [told, "err - later"]);
    // Expect: the end of a process tells what was dropped since
    (0..1_000).for_each(|_| log.append(RETRY_NS, Stream::Err, b"more\n"));
    assert_eq!(log.ended(RETRY_NS, "gone"), ["more"; 4], "also what was dropped may be the reason of an end");
    let kept = lines(dir.path());
    let [.., told, end] = &kept[..] else { panic!("{kept:?}") };
    assert!(told.contains("were dropped here") && end == "shim - gone", "{told}");
}

#[test]
fn lines_that_cannot_be_written_are_counted_and_the_count_is_told_when_there_is_room() {
    // Given a directory that does not exist yet
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let mut log = PlaceLog::new(&logs, "echo", "0", EDITION, BOUNDS);
    log.append(0, Stream::Out, b"one\ntwo\n");
    assert_eq!(log.lines_dropped(), 2);
    // Expect that the disk is left alone for a second, even when there is room again
    std::fs::create_dir(&logs).unwrap();
    log.append(RETRY_NS - 1, Stream::Out, b"three\n");
    assert_eq!(log.lines_dropped(), 3);
    log.append(RETRY_NS, Stream::Out, b"four\n");
    assert_eq!(lines(&logs), ["shim - 3 lines before this one could not be written", "out - four"]);
}

/// A file that was begun at this second and has one line.
fn old_file(dir: &Path, name: &str, at_s: u64) -> PathBuf {
    let path = dir.join(name);
    let line = Line {
        at_us: at_s * 1_000_000,
        source: Source::Shim,
        edition: EDITION,
        pid: None,
        call: None,
        text: b"old",
    };
    let mut bytes = Vec::new();
    line.write(&mut bytes).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn what_is_too_old_is_swept_and_what_is_not_stays() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str, at_s: u64| old_file(dir.path(), name, at_s);
    let gone = [at("short.0.log", 8_000), at("short.0.log.8999999", 8_999), at("long.0.log.5999999", 5_999)];
    let kept = [
        at("short.1.log", 9_001),
        at("short.0.log.9000001", 9_000),
        at("long.0.log.6000001", 6_000),
        at("not-ours", 0),
        at("ahead.0.log", 20_000),
    ];
    std::fs::write(dir.path().join("empty.0.log"), "").unwrap();
    let age_max_of = |function: &str| Duration::from_secs(if function == "long" { 4_000 } else { 1_000 });
    sweep::sweep(dir.path(), 10_000_000_000, age_max_of);
    assert_eq!(gone.iter().filter(|path| path.exists()).count(), 0);
    assert_eq!(kept.iter().filter(|path| !path.exists()).count(), 0);
    assert!(dir.path().join("empty.0.log").exists());
    assert_eq!(sweep::period(Duration::from_secs(80)), Duration::from_secs(10));
    assert_eq!(sweep::period(Duration::ZERO), Duration::from_secs(1), "never a busy loop");
}

#[test]
fn a_file_is_put_aside_when_its_first_line_has_a_quarter_of_the_age_and_then_swept() {
    let dir = tempfile::tempdir().unwrap();
    let now_s = unix_us() / 1_000_000;
    let path = old_file(dir.path(), "echo.3.log", now_s - 1_000);
    // Given: a place that goes on with a file of a quarter of an hour ago. Expect: a new file, because an hour may be kept.
    let mut log = log(dir.path(), BOUNDS);
    assert_eq!(lines(dir.path()), ["shim - old", "shim - started, pid 1"]);
    assert_eq!(files(dir.path()).len(), 2);
    // Given: bounds that a file just begun has reached. Expect: nothing stays open that a sweep could remove
    log.set_bounds(LogBounds { age_max: Duration::ZERO, ..BOUNDS });
    log.retire();
    assert!(!path.exists());
    sweep::sweep(dir.path(), unix_us() + 1_000_000, |_| Duration::ZERO);
    assert!(files(dir.path()).is_empty());
    log.set_bounds(BOUNDS);
    log.append(0, Stream::Out, b"goes on\n");
    assert_eq!(lines(dir.path()), ["out - goes on"]);
}
