//! Who is attached, kept by the shard beside its counters so that a publishing can show it.

use engine::{Nanos, WorkerId};

/// The attached workers of a shard, by their place in the engine.
#[derive(Debug, Default)]
pub struct Roster {
    places: Vec<Option<Attached>>,
}

/// One attached worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// Its name in the engine; its ring carries the same numbers.
    pub worker: WorkerId,
    /// Its process.
    pub pid: u32,
    /// When it attached.
    pub attached_at: Nanos,
}

impl Roster {
    /// A worker attached.
    pub fn arrive(&mut self, attached: Attached) {
        let index = attached.worker.index as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, None);
        }
        self.places[index] = Some(attached);
    }

    /// A worker went away. A later one in its place stays.
    pub fn leave(&mut self, worker: WorkerId) {
        if let Some(place) = self.places.get_mut(worker.index as usize)
            && place.is_some_and(|attached| attached.worker == worker)
        {
            *place = None;
        }
    }

    /// All places, empty ones too, in order.
    pub fn places(&self) -> &[Option<Attached>] {
        &self.places
    }
}
