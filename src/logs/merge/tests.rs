use std::path::Path;

use worker_shim::logs::line::{Line, Source};
use worker_shim::logs::name;

use super::*;

fn line(at_us: u64, text: &str) -> Vec<u8> {
    let source = Source::Out { goes_on: false };
    let line = Line { at_us, source, edition: 1, pid: None, call: None, text: text.as_bytes() };
    let mut bytes = Vec::new();
    line.write(&mut bytes).unwrap();
    bytes
}

/// Appends lines of one instance; the text of each is its time.
fn append(dir: &Path, instance: &str, times: impl IntoIterator<Item = u64>) {
    let bytes: Vec<u8> = times.into_iter().flat_map(|at_us| line(at_us, &at_us.to_string())).collect();
    append_bytes(dir, instance, &bytes);
}

fn append_bytes(dir: &Path, instance: &str, bytes: &[u8]) {
    use std::io::Write as _;
    let path = name::current(dir, "echo", instance);
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// As the shim does it.
fn rotate(dir: &Path, instance: &str, begun_at_ms: u64) {
    let path = name::current(dir, "echo", instance);
    std::fs::rename(&path, name::older(&path, begun_at_ms)).unwrap();
}

/// What is new: `INSTANCE TEXT`.
fn more(merge: &mut Merge) -> Vec<String> {
    assert!(merge.look().unwrap());
    rest(merge)
}

fn rest(merge: &mut Merge) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(entry) = merge.next().unwrap() {
        let text = String::from_utf8_lossy(Line::read(&entry.bytes).unwrap().text).into_owned();
        told.push(format!("{} {text}", entry.instance));
    }
    told
}

fn merge(dir: &Path) -> Merge {
    Merge::new(dir.to_owned(), "echo", None)
}

#[test]
fn lines_of_all_instances_and_files_come_in_the_order_of_time() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), "0", [1, 4]);
    rotate(dir.path(), "0", 9);
    append(dir.path(), "0", [5, 8]);
    rotate(dir.path(), "0", 10);
    append(dir.path(), "0", [9]);
    append(dir.path(), "1", [2, 3, 6, 7]);
    // Of others
    std::fs::write(dir.path().join("other.0.log"), line(0, "other")).unwrap();
    std::fs::write(dir.path().join("echo.x.0.log"), line(0, "other")).unwrap();
    let expected = ["0 1", "1 2", "1 3", "0 4", "0 5", "1 6", "1 7", "0 8", "0 9"];
    assert_eq!(more(&mut merge(dir.path())), expected);
    let mut only = Merge::new(dir.path().to_owned(), "echo", Some("1".into()));
    assert_eq!(more(&mut only), ["1 2", "1 3", "1 6", "1 7"]);
}

#[test]
fn what_comes_later_is_found_across_rotation_and_in_new_instances_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut merge = merge(dir.path());
    assert_eq!(more(&mut merge), [""; 0]);
    append(dir.path(), "0", [1]);
    assert_eq!(more(&mut merge), ["0 1"]);
    assert_eq!(more(&mut merge), [""; 0]);
    // Given: more in the same file, which is then put aside, twice
    append(dir.path(), "0", [2]);
    rotate(dir.path(), "0", 1);
    append(dir.path(), "0", [3]);
    rotate(dir.path(), "0", 2);
    append(dir.path(), "0", [4]);
    append(dir.path(), "1", [1]);
    assert_eq!(more(&mut merge), ["1 1", "0 2", "0 3", "0 4"]);
    // Given: put aside, and nothing new yet
    rotate(dir.path(), "0", 3);
    assert_eq!(more(&mut merge), [""; 0]);
    append(dir.path(), "0", [5]);
    assert_eq!(more(&mut merge), ["0 5"]);
}

#[test]
fn files_that_are_removed_before_they_were_read_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut merge = merge(dir.path());
    append(dir.path(), "0", [1]);
    assert_eq!(more(&mut merge), ["0 1"]);
    rotate(dir.path(), "0", 1);
    append(dir.path(), "0", [2]);
    rotate(dir.path(), "0", 2);
    append(dir.path(), "0", [3]);
    let path = name::current(dir.path(), "echo", "0");
    std::fs::remove_file(name::older(&path, 1)).unwrap();
    assert!(merge.look().unwrap());
    std::fs::remove_file(name::older(&path, 2)).unwrap();
    assert_eq!(rest(&mut merge), ["0 3"]);
}

#[test]
fn a_file_that_is_renamed_while_it_is_looked_for_is_read_as_what_it_became() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), "0", [1]);
    // Given: opened, and put aside before the older ones were listed
    let mut reader = Reader::new(dir.path(), "echo", "0");
    let current = reader.open_current().unwrap();
    append(dir.path(), "0", [2]);
    rotate(dir.path(), "0", 7);
    append(dir.path(), "0", [3]);
    assert!(!reader.take(current, &[7]).unwrap(), "the next one is yet to be found");
    let rest = |reader: &mut Reader| {
        std::iter::from_fn(|| reader.next_line().unwrap())
            .map(|bytes| [bytes, b"\n".to_vec()].concat())
            .collect::<Vec<_>>()
    };
    assert_eq!(rest(&mut reader), [line(1, "1"), line(2, "2")]);
    let current = reader.open_current().unwrap();
    assert!(reader.take(current, &[7]).unwrap());
    assert_eq!(rest(&mut reader), [line(3, "3")]);
}

#[test]
fn half_a_line_is_given_when_it_is_whole_and_what_is_no_line_never() {
    let dir = tempfile::tempdir().unwrap();
    let mut merge = merge(dir.path());
    let whole = line(1, "one");
    append_bytes(dir.path(), "0", &whole[..20]);
    assert_eq!(more(&mut merge), [""; 0]);
    append_bytes(dir.path(), "0", &whole[20..]);
    append_bytes(dir.path(), "0", b"nonsense\n\n17.1\n");
    append_bytes(dir.path(), "0", &vec![b'x'; 100_000]);
    append_bytes(dir.path(), "0", b"\n");
    append(dir.path(), "0", [2]);
    assert_eq!(more(&mut merge), ["0 one", "0 2"]);
}

#[test]
fn a_clock_that_was_set_back_changes_no_order_within_an_instance() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), "0", [10, 3, 11]);
    append(dir.path(), "1", [5, 12]);
    assert_eq!(more(&mut merge(dir.path())), ["1 5", "0 10", "0 3", "0 11", "1 12"]);
}
