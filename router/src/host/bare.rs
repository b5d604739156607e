//! A plain thread.
#![forbid(unsafe_code)]

use std::io;
use std::thread::JoinHandle;

use super::Place;

/// Starts the thread.
pub fn start(place: Place) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(place.name()).spawn(move || {
        place.pin.into_iter().for_each(super::pin_to);
        let Some(mut shard) = place.make() else { return };
        while !shard.has_ended() {
            if shard.turn() == 0 {
                shard.rest();
            }
        }
    })
}
