//! What a run measured, as it is kept: raw values by name, and what could not be measured and why.
//!
//! In: values from experiments.  Out: JSON, under `bench/baselines/<date>-<machine>/` with `--save`.
//! Always: names are `experiment/side/quantity`; the JSON is this struct, field by field, and names are only added.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine;
use crate::series::{Series, Unit};

/// All raw figures of one run of this program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, in UTC.
    pub date: String,
    /// Where.
    pub machine: String,
    /// Of which source.
    pub commit: String,
    /// Length of each measurement.
    pub seconds: f64,
    /// Calls outstanding where many are and an experiment does not try several windows.
    pub window: u32,
    /// Raw values by `experiment/side/quantity`.
    pub series: BTreeMap<String, Series>,
    /// Experiments that cannot be done here, with the reason.
    pub absent: BTreeMap<String, String>,
    /// Experiments that went wrong, with the error.
    pub failed: BTreeMap<String, String>,
}

impl Record {
    /// An empty record of this machine and commit.
    pub fn new(seconds: f64, window: u32) -> Self {
        Self {
            date: machine::date("+%Y-%m-%d %H:%M"),
            machine: machine::description(),
            commit: machine::commit(),
            seconds,
            window,
            series: BTreeMap::new(),
            absent: BTreeMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Adds one run's value.
    pub fn add(&mut self, name: String, unit: Unit, value: f64) {
        self.series.entry(name).or_insert_with(|| Series { unit, values: Vec::new() }).values.push(value);
    }

    /// The values of one quantity; empty when it was not measured.
    pub fn values(&self, name: &str) -> &[f64] {
        self.series.get(name).map_or(&[], |series| &series.values)
    }

    /// Reads a record: a file, a folder with `targets.json`, or the name of a folder under `bench/baselines/`.
    pub fn read(place: &Path) -> Result<Self, String> {
        let path = find(place).ok_or_else(|| {
            format!("{}: no such file, and no such folder under bench/baselines/", place.display())
        })?;
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text)
            .map_err(|error| format!("{} is not a record of this program: {error}", path.display()))
    }

    /// Writes the record into a file, its folder included.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }
}

fn find(place: &Path) -> Option<PathBuf> {
    let kept = machine::baselines().join(place);
    [place.to_path_buf(), place.join("targets.json"), kept.clone(), kept.join("targets.json")]
        .into_iter()
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_from_its_file_and_a_stranger_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::new(1.0, 64);
        record.add("tcp-pipelined/floor/calls_per_s".into(), Unit::CallsPerS, 5.0);
        record.absent.insert("nginx".into(), "not installed".into());
        record.write(&dir.path().join("targets.json")).unwrap();
        // The folder is enough.
        assert_eq!(Record::read(dir.path()).unwrap(), record);

        std::fs::write(dir.path().join("other.json"), "{\"rows\": 1}").unwrap();
        let refusal = Record::read(&dir.path().join("other.json")).unwrap_err();
        assert!(refusal.contains("not a record of this program"), "{refusal}");
        assert!(Record::read(Path::new("nowhere")).unwrap_err().contains("no such file"));
    }
}
