//! The names of functions and their ids, for as long as the router lives.
//!
//! Always: an id means one name. A name that is removed keeps its id and has it again when it comes back, because clients
//! resolve a name once and may keep the number for ever.
//! Never: on the way of a call, which carries the id.
#![forbid(unsafe_code)]

use std::sync::{Arc, PoisonError, RwLock};

use protocol::FunctionId;

use crate::config::FunctionConfig;

/// Every name that a function had since the router started; its place is its id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    all: Vec<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    name: String,
    is_removed: bool,
}

/// The same for those who are to see what comes later.
#[derive(Debug, Clone, Default)]
pub struct SharedNames(Arc<RwLock<Names>>);

impl Names {
    /// These, in this order.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Names {
        let name = |name: &str| Name { name: name.to_owned(), is_removed: false };
        Names { all: names.into_iter().map(name).collect() }
    }

    /// The id of a function that is configured.
    pub fn id(&self, name: &str) -> Option<FunctionId> {
        let position = self.all.iter().position(|known| known.name == name && !known.is_removed)?;
        Some(FunctionId(position as u32))
    }

    /// The name of an id, also of a function that was removed.
    pub fn name(&self, id: FunctionId) -> Option<&str> {
        self.all.get(id.0 as usize).map(|known| known.name.as_str())
    }

    /// How many there are, those that were removed included.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// All by id; none where the function was removed.
    pub fn by_id(&self) -> impl Iterator<Item = Option<&str>> {
        self.all.iter().map(|known| (!known.is_removed).then_some(known.name.as_str()))
    }

    /// The names when these functions are configured and no others.
    pub fn after(&self, functions: &[FunctionConfig]) -> Names {
        let mut after = self.clone();
        after.all.iter_mut().for_each(|known| known.is_removed = true);
        for function in functions {
            match after.all.iter_mut().find(|known| known.name == function.name) {
                Some(known) => known.is_removed = false,
                None => after.all.push(Name { name: function.name.clone(), is_removed: false }),
            }
        }
        after
    }
}

impl SharedNames {
    /// Beginning with these.
    pub fn new(names: Names) -> SharedNames {
        SharedNames(Arc::new(RwLock::new(names)))
    }

    /// Looks at them.
    pub fn read<T>(&self, look: impl FnOnce(&Names) -> T) -> T {
        // The list is replaced as a whole: a panic leaves the one before or the one after.
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in their place.
    pub fn replace(&self, names: Names) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = names;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn after(names: &Names, text: &str) -> Names {
        let tables: String =
            text.split(' ').map(|name| format!("[functions.{name}]\ncommand = [\"x\"]\n")).collect();
        names.after(&Config::parse(&tables, "q.toml").unwrap().functions)
    }

    #[test]
    fn an_id_means_one_name_whatever_comes_and_goes() {
        let shared = SharedNames::new(Names::new(["a", "b"]));
        let seen_by_others = shared.clone();
        shared.replace(shared.read(|names| after(names, "0 b")));
        seen_by_others.read(|names| {
            assert_eq!(
                [names.id("a"), names.id("b"), names.id("0")],
                [None, Some(FunctionId(1)), Some(FunctionId(2))]
            );
            assert_eq!(names.name(FunctionId(0)), Some("a"), "its kept calls are still its");
            assert_eq!(names.by_id().collect::<Vec<_>>(), [None, Some("b"), Some("0")]);
            assert_eq!((names.count(), names.name(FunctionId(3))), (3, None));
            assert_eq!(after(names, "a b").id("a"), Some(FunctionId(0)));
        });
    }
}
