//! What the shards' edges to the kernel run on, said once: a name for the welcome, and a line where it is not what it
//! could be.
//!
//! Always: silent where everything is as usual or as asked for; one line otherwise, with who refuses and how to allow
//! it. Shards decide one by one (the tenth ring may be the one too much for the locked memory), so it can be some.

use router::io::{IoBackend, SetupRefused};

/// The backend's name, or both where shards differ.
pub fn name(backends: &[IoBackend]) -> String {
    let on_epoll = backends.iter().filter(|backend| **backend != IoBackend::Uring).count();
    match backends.first() {
        Some(first) if on_epoll == 0 || on_epoll == backends.len() => first.to_string(),
        _ => format!("io_uring, and epoll for {on_epoll} of {} shards", backends.len()),
    }
}

/// Why there is epoll where io_uring was wanted.
pub fn fallback(backends: &[IoBackend]) -> Option<String> {
    let refused: Vec<(usize, &SetupRefused)> = backends
        .iter()
        .enumerate()
        .filter_map(|(shard, backend)| match backend {
            IoBackend::Epoll { refused: Some(refused) } => Some((shard, refused)),
            _ => None,
        })
        .collect();
    // The first reason stands for all: they come from the same kernel a moment apart.
    let (_, reason) = refused.first()?;
    let who = match refused.len() {
        count if count == backends.len() => String::new(),
        1 => format!(" in shard {}", refused[0].0),
        count => format!(" in {count} of {} shards", backends.len()),
    };
    Some(format!("runs on epoll instead of io_uring{who}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FALLEN_BACK: IoBackend = IoBackend::Epoll { refused: Some(SetupRefused::NoMemory) };
    const ASKED_FOR: IoBackend = IoBackend::Epoll { refused: None };

    fn check(backends: &[IoBackend], expected_name: &str, expected_line: Option<&str>) {
        assert_eq!(name(backends), expected_name);
        let line = fallback(backends);
        assert_eq!(line.is_some(), expected_line.is_some(), "{line:?}");
        if let (Some(line), Some(expected)) = (line, expected_line) {
            assert!(line.starts_with(expected), "{line}");
            assert!(line.contains("raise the limit"), "it says what to do: {line}");
            assert_eq!(line.lines().count(), 1);
        }
    }

    #[test]
    fn a_line_is_said_only_where_io_uring_was_wanted_and_refused() {
        check(&[IoBackend::Uring, IoBackend::Uring], "io_uring", None);
        check(&[ASKED_FOR], "epoll", None);
        check(&[FALLEN_BACK, FALLEN_BACK], "epoll", Some("runs on epoll instead of io_uring: "));
        let name = "io_uring, and epoll for 1 of 2 shards";
        check(&[IoBackend::Uring, FALLEN_BACK], name, Some("runs on epoll instead of io_uring in shard 1: "));
    }
}
