//! Which call is in flight under which key: an open hash table of fixed size.
//!
//! In: a function, a key, and who is still in flight.  Out: the call that has the key, or a place to put the next one in.
//! Always: a key stands among the [`WINDOW`] places from where its hash points. Nothing is taken out when a call ends: an id
//! tells by itself whether its call is over, and the place of one that is over is as good as empty.
//! Never: allocates after the first key came; looks at more than [`WINDOW`] places. The hash starts from chance, so that
//! nobody can choose keys that crowd in one window.
//! Why not a table that finds a place as long as there is one: it would have to move entries, or to look at all of them.
//! With a quarter of the places taken, the chance that a window of 16 is full is below one in a million.

use protocol::FunctionId;

use crate::invocation::InvocationId;

/// A caller's name for what it wants done once.
pub type IdempotencyKey = [u8; 16];

/// What calls that are the same have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The one that was asked for, though another may stand in for it.
    pub function: FunctionId,
    pub name: IdempotencyKey,
}

/// Stands for no key.
pub(crate) const NO_KEY: Key = Key { function: FunctionId(0), name: [0; 16] };

/// Places where a key may stand: 8 cache lines in a row.
const WINDOW: usize = 16;

#[derive(Debug)]
pub(crate) struct Keys {
    /// A power of two; none before the first key.
    entries: Box<[Entry]>,
    seed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    call: InvocationId,
}

const EMPTY: Entry = Entry { key: NO_KEY, call: InvocationId::NONE };

/// What is under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// This call, which others may join.
    Call(InvocationId),
    /// No such call. The next one may have this place.
    Vacant(Place),
    /// No such call, and no place for one.
    Full,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl Keys {
    pub fn new() -> Keys {
        Keys { entries: Box::default(), seed: 0 }
    }

    /// Claims all the memory there will ever be, once.
    pub fn claim(&mut self, count: u32, seed: impl FnOnce() -> u64) {
        if self.entries.is_empty() {
            self.entries = vec![EMPTY; count as usize].into();
            self.seed = seed();
        }
    }

    /// Looks a key up. `is_joinable` tells of the calls met on the way whether they are still in flight.
    pub fn find(&self, key: &Key, is_joinable: impl Fn(InvocationId) -> bool) -> Found {
        let first = hash(self.seed, key) as usize;
        let mut vacant = Found::Full;
        for distance in 0..WINDOW.min(self.entries.len()) {
            let place = first.wrapping_add(distance) & (self.entries.len() - 1);
            let entry = &self.entries[place];
            let is_same = entry.key == *key;
            if !is_same && vacant != Found::Full {
                continue;
            }
            match is_joinable(entry.call) {
                true if is_same => return Found::Call(entry.call),
                true => {}
                false => vacant = Found::Vacant(Place(place as u32)),
            }
        }
        vacant
    }

    /// From now on the key is this call's.
    pub fn put(&mut self, place: Place, key: Key, call: InvocationId) {
        self.entries[place.0 as usize] = Entry { key, call };
    }
}

/// Two rounds of multiply and fold, as in wyhash: it spreads keys, and guards nothing but the evenness of the table.
fn hash(seed: u64, key: &Key) -> u64 {
    let whole = u128::from_le_bytes(key.name);
    let (low, high) = (whole as u64, (whole >> 64) as u64);
    let once = fold(low ^ seed, high ^ 0x9E37_79B9_7F4A_7C15);
    fold(once ^ u64::from(key.function.0), 0xBF58_476D_1CE4_E5B9 ^ seed)
}

fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECHO: FunctionId = FunctionId(3);

    fn keys(count: u32) -> Keys {
        let mut keys = Keys::new();
        keys.claim(count, || 7);
        keys
    }

    fn key(number: u128) -> Key {
        Key { function: ECHO, name: number.to_le_bytes() }
    }

    /// Puts a key in, and answers whether there was a place.
    fn insert(keys: &mut Keys, number: u64, is_joinable: impl Fn(InvocationId) -> bool) -> bool {
        let Found::Vacant(place) = keys.find(&key(number.into()), is_joinable) else { return false };
        keys.put(place, key(number.into()), InvocationId(number + 1));
        true
    }

    fn is_some(call: InvocationId) -> bool {
        call != InvocationId::NONE
    }

    #[test]
    fn a_key_is_found_for_its_function_while_its_call_is_in_flight() {
        let mut keys = keys(64);
        assert!(insert(&mut keys, 1, is_some));
        assert_eq!(keys.find(&key(1), is_some), Found::Call(InvocationId(2)));
        let elsewhere = Key { function: FunctionId(4), ..key(1) };
        assert!(matches!(keys.find(&elsewhere, is_some), Found::Vacant(_)));
        assert!(matches!(keys.find(&key(2), is_some), Found::Vacant(_)));
        assert!(matches!(keys.find(&key(1), |_| false), Found::Vacant(_)), "its call is over");
    }

    #[test]
    fn a_table_of_one_window_is_full_when_every_place_is_taken_and_places_of_the_dead_are_free() {
        let mut keys = keys(WINDOW as u32);
        for number in 0..WINDOW as u64 {
            assert!(insert(&mut keys, number, is_some));
        }
        assert_eq!(keys.find(&key(99), is_some), Found::Full);
        for number in 0..WINDOW as u64 {
            let call = InvocationId(number + 1);
            assert_eq!(keys.find(&key(number.into()), is_some), Found::Call(call));
        }
        assert!(insert(&mut keys, 99, |call| is_some(call) && call != InvocationId(5)));
        assert_eq!(keys.find(&key(99), is_some), Found::Call(InvocationId(100)));
        assert_eq!(keys.find(&key(4), is_some), Found::Full, "its place is another's");
    }

    #[test]
    fn a_quarter_full_nobody_is_turned_away() {
        let mut keys = keys(1 << 16);
        assert!((0..1 << 14).all(|number| insert(&mut keys, number, is_some)));
    }

    #[test]
    fn a_key_whose_call_is_over_is_given_to_the_next_one_in_the_same_place() {
        let mut keys = keys(64);
        assert!(insert(&mut keys, 1, is_some));
        let Found::Vacant(place) = keys.find(&key(1), |_| false) else { panic!("its call is over") };
        keys.put(place, key(1), InvocationId(6));
        assert_eq!(keys.find(&key(1), is_some), Found::Call(InvocationId(6)));
        assert_eq!(keys.entries.iter().filter(|entry| entry.key == key(1)).count(), 1);
    }
}
