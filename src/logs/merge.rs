//! The lines of all instances of a function in the order of time.
//!
//! Always: of each instance the order is that of its file, also where the clock was set back. What comes late, after lines that are
//! younger were given, is given all the same.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::io;
use std::path::PathBuf;

use worker_shim::logs::line;
use worker_shim::logs::name::LogName;

use super::reader::Reader;

/// See above.
pub struct Merge {
    logs_dir: PathBuf,
    function: String,
    only: Option<String>,
    readers: BTreeMap<String, Reader>,
    /// The next line of each instance that has one.
    heads: BinaryHeap<Reverse<Entry>>,
    /// Instances whose next line is not among the heads.
    dry: Vec<String>,
}

/// A line of an instance, as it stands in its file. The order of fields is that of lines.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    at_us: u64,
    /// Whose.
    pub instance: String,
    /// Without its line feed.
    pub bytes: Vec<u8>,
}

impl Merge {
    /// Of `only` this instance, if one is named.
    pub fn new(logs_dir: PathBuf, function: &str, only: Option<String>) -> Self {
        let function = function.to_owned();
        Self { logs_dir, function, only, readers: BTreeMap::new(), heads: BinaryHeap::new(), dry: Vec::new() }
    }

    /// Finds what is new; false if something is yet to be found, because it was renamed at this moment.
    pub fn look(&mut self) -> io::Result<bool> {
        for instance in self.listed()?.into_keys() {
            let Merge { logs_dir, function, .. } = self;
            self.readers
                .entry(instance)
                .or_insert_with_key(|instance| Reader::new(logs_dir, function, instance));
        }
        let mut opened = Vec::with_capacity(self.readers.len());
        for reader in self.readers.values() {
            opened.push(reader.open_current()?);
        }
        let listed = self.listed()?;
        let mut is_whole = true;
        for ((instance, reader), current) in self.readers.iter_mut().zip(opened) {
            is_whole &= reader.take(current, listed.get(instance).map_or(&[], Vec::as_slice))?;
        }
        let has_head: BTreeSet<_> = self.heads.iter().map(|Reverse(entry)| &entry.instance).collect();
        self.dry = self.readers.keys().filter(|instance| !has_head.contains(instance)).cloned().collect();
        Ok(is_whole)
    }

    /// The oldest line that has not been given.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        while let Some(instance) = self.dry.pop() {
            let Some(reader) = self.readers.get_mut(&instance) else { continue };
            while let Some(bytes) = reader.next_line()? {
                // Half a line of a shim that was killed has no time, or the line is nobody's.
                if let Some(at_us) = line::begun_at_us(&bytes) {
                    self.heads.push(Reverse(Entry { at_us, instance, bytes }));
                    break;
                }
            }
        }
        let next = self.heads.pop().map(|Reverse(entry)| entry);
        self.dry.extend(next.as_ref().map(|entry| entry.instance.clone()));
        Ok(next)
    }

    /// The instances that have files, with the names of the older ones in their order.
    fn listed(&self) -> io::Result<BTreeMap<String, Vec<u64>>> {
        let mut listed = BTreeMap::<String, Vec<u64>>::new();
        for entry in std::fs::read_dir(&self.logs_dir)? {
            let Some(name) = entry?.file_name().to_str().and_then(LogName::read) else { continue };
            if name.function == self.function && self.only.as_ref().is_none_or(|only| *only == name.instance)
            {
                listed.entry(name.instance).or_default().extend(name.begun_at_ms);
            }
        }
        listed.values_mut().for_each(|older| older.sort_unstable());
        Ok(listed)
    }
}

#[cfg(test)]
mod tests;
