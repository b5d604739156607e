//! Stage 6 of 8: what the shim tells others about its processes: `DIR/shim.json`.
//!
//! In: a [`Status`] made by the shim after a turn.  Out: the file, replaced as a whole.
//! Always: a reader sees one complete status, the old one or the new one (written aside, then renamed).
//! Never: written when nothing changed. An idle shim leaves the disk alone.

use std::io;
use std::path::PathBuf;

use serde::Serialize;

/// The content of `shim.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The shim's own process.
    pub pid: u32,
    /// As given at start, in hexadecimal: JSON numbers are not safe beyond 53 bits.
    pub config_digest: String,
    /// `attached` or `away`.
    pub router: &'static str,
    /// True from the moment the shim began to stop.
    pub is_stopping: bool,
    /// Orphans inherited from function processes and reaped.
    pub orphans_reaped: u64,
    /// One for each function, in the order of the configuration.
    pub functions: Vec<FunctionStatus>,
}

/// One function in `shim.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FunctionStatus {
    /// Its name.
    pub name: String,
    /// It is not configured any more; what is listed are processes that have not left yet.
    pub is_removed: bool,
    /// Processes wanted, of all shards: for each as many as its router asks for, between `warm` and `warm_max`.
    pub warm_wanted: u32,
    /// Processors they run on; none: those of the shim.
    pub processors: Vec<u32>,
    /// Its processes, in the order of their places.
    pub places: Vec<PlaceStatus>,
    /// What its processes are copied from, if they are.
    pub templates: Vec<TemplateStatus>,
    /// Processes started since the shim began, those that were copied included.
    pub starts: u64,
    /// Processes that ended without being told to, templates included.
    pub exits: u64,
    /// Times the program could not be started at all.
    pub spawn_failures: u64,
    /// Processes killed because `memory_max` was reached, of instances that have ended.
    pub memory_kills: u64,
    /// Processes and threads refused because of `processes_max`, likewise.
    pub processes_refused: u64,
    /// Log lines that could not be written.
    pub log_lines_dropped: u64,
    /// Why the last process ended, or could not be started.
    pub last_exit: Option<LastExit>,
}

/// One place in `shim.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlaceStatus {
    /// The number in the name of its log file.
    pub place: usize,
    /// The shard its process serves.
    pub shard: u32,
    /// How its processes come to be: `exec`, or `snapshot`: copied from a template.
    pub start: &'static str,
    /// `in_force`, or `earlier`: its program, environment or ring is not what the function is by now.
    pub edition: &'static str,
    /// `spawning`, `starting`, `warm`, `backing_off`, `leaving`, `stopping` or `gone`.
    pub life: &'static str,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// Failures in a row.
    pub failures: u32,
}

/// One template in `shim.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TemplateStatus {
    /// The number in the name of its log file.
    pub template: usize,
    /// `in_force`, or `earlier`.
    pub edition: &'static str,
    /// `initialising`, `ready`, `backing_off`, `stopping` or `gone`.
    pub state: &'static str,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// Failures in a row.
    pub failures: u32,
    /// Processes that were copied here.
    pub copies: u64,
}

/// The last end of a process of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastExit {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Of which place; `None`: of a template.
    pub place: Option<usize>,
    /// Such as `killed by SIGKILL`, `exited with code 1`, `cannot start ./x: No such file or directory`.
    pub reason: String,
    /// Its last lines on stderr.
    pub stderr: Vec<String>,
}

/// Writes the file, on change only.
pub struct StatusFile {
    path: PathBuf,
    written: Option<Status>,
}

impl StatusFile {
    /// A file that has not been written yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, written: None }
    }

    /// Makes the file say `status`. A failure is not remembered as written, so that the next change tries again.
    pub fn write(&mut self, status: Status) -> io::Result<()> {
        if self.written.as_ref() == Some(&status) {
            return Ok(());
        }
        let aside = self.path.with_extension("json.new");
        let mut text = serde_json::to_string_pretty(&status)?;
        text.push('\n');
        std::fs::write(&aside, text)?;
        std::fs::rename(&aside, &self.path)?;
        self.written = Some(status);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(router: &'static str) -> Status {
        Status {
            pid: 1,
            config_digest: "00000000000000ff".into(),
            router,
            is_stopping: false,
            orphans_reaped: 0,
            functions: vec![],
        }
    }

    #[test]
    fn the_file_is_replaced_on_change_and_left_alone_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shim.json");
        let mut file = StatusFile::new(path.clone());
        file.write(status("away")).unwrap();
        let first = std::fs::read_to_string(&path).unwrap();
        assert!(first.contains("\"router\": \"away\""));

        // Given that someone removed it, expect that the same status does not bring it back
        std::fs::remove_file(&path).unwrap();
        file.write(status("away")).unwrap();
        assert!(!path.exists());
        file.write(status("attached")).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("attached"));
    }
}
