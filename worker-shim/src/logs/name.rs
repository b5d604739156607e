//! Stage 6 of 8: the names of log files. Pure.
//!
//! ```text
//! DIR/logs/thumbnail.3.log                 what instance 3 of `thumbnail` writes now; its template 0: thumbnail.template-0.log
//! DIR/logs/thumbnail.3.log.1795465437123   what it wrote before: from this time on, in milliseconds since 1970
//! ```
//! Always: the names of the older files of an instance grow with time, so that their order needs no look inside.

use std::path::{Path, PathBuf};

/// A file of an instance, or of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogName {
    /// Whose.
    pub function: String,
    /// Of which: a number, or `template-` and a number.
    pub instance: String,
    /// When it was begun, in milliseconds since 1970; none for the one that is written.
    pub begun_at_ms: Option<u64>,
}

/// The file that is written.
pub fn current(logs_dir: &Path, function: &str, instance: &str) -> PathBuf {
    logs_dir.join(format!("{function}.{instance}.log"))
}

/// What it is called afterwards.
pub fn older(current: &Path, begun_at_ms: u64) -> PathBuf {
    let mut path = current.as_os_str().to_owned();
    path.push(format!(".{begun_at_ms}"));
    path.into()
}

impl LogName {
    /// What a file of the folder is; nothing if it is no log.
    pub fn read(file_name: &str) -> Option<LogName> {
        let (current, begun_at_ms) = match file_name.strip_suffix(".log") {
            Some(current) => (current, None),
            None => {
                let (path, begun_at_ms) = file_name.rsplit_once('.')?;
                (path.strip_suffix(".log")?, Some(number(begun_at_ms)?))
            }
        };
        let (function, instance) = current.rsplit_once('.')?;
        number(instance.strip_prefix("template-").unwrap_or(instance))?;
        Some(LogName { function: function.to_owned(), instance: instance.to_owned(), begun_at_ms })
    }
}

/// As we write it: another spelling of the same number would be another file.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is_whatever_the_function_is_called() {
        for function in ["echo", "a.b", "a.0", "a.0.log", "ä b"] {
            for instance in ["0", "17", "template-0"] {
                let path = current(Path::new("/r"), function, instance);
                for begun_at_ms in [None, Some(1_795_465_437_123)] {
                    let path = begun_at_ms.map_or(path.clone(), |at_ms| older(&path, at_ms));
                    let expected =
                        LogName { function: function.into(), instance: instance.into(), begun_at_ms };
                    assert_eq!(LogName::read(path.file_name().unwrap().to_str().unwrap()), Some(expected));
                }
            }
        }
    }

    #[test]
    fn other_files_are_none_of_ours() {
        for name in [
            "",
            "echo.log",
            "echo.x.log",
            "echo.template-.log",
            "echo.+1.log",
            "echo.01.log",
            "echo.0.log.old",
            "echo.0.log.",
            "echo.0",
        ] {
            assert_eq!(LogName::read(name), None, "{name}");
        }
    }
}
