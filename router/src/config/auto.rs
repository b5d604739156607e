//! What `auto` stands for on this machine: how many shards, and where they run.
//!
//! In: the settings, and the machine.  Out: the same settings, each `auto` replaced by what was chosen and what from.
//! Always: what is chosen is within the option's range and passes the checks that a written value has to pass.
//! Why numbers and not a mode that goes on to the shards: the shim is handed the effective values, so that both processes
//! mean the same although one may see another mask than the other.  Rules and reasons: docs/decisions/0027.
#![forbid(unsafe_code)]

use super::problem::{Problem, ProblemKind};
use super::section::Section;
use super::settings::Setting;
use super::value::Value;
use crate::processors::{Machine, TopologyUnknown, list};

/// Of so many processors one is a shard's; the others are for functions, their callers and the shim.
const PROCESSORS_PER_SHARD: u32 = 4;
/// More shards are the operator's to ask for: each keeps `warm` processes of each function.
const SHARDS_AUTO_MAX: u32 = 16;

/// Chooses every `auto`. A value that cannot be chosen is a problem, and the settings are of no use then.
pub(super) fn choose(settings: &mut [Setting], machine: &dyn Fn() -> Machine, problems: &mut Vec<Problem>) {
    if settings.iter().all(|setting| setting.value != Value::Auto) {
        return;
    }
    let machine = machine();
    let pinned = match value(settings, "pin") {
        Some(Value::Processors(list)) if !list.is_empty() => Some(list.len() as u32),
        _ => None,
    };
    if let Some(shards) = auto(settings, "shards") {
        let count = shard_count(machine.processors.count()).min(pinned.unwrap_or(u32::MAX));
        shards.value = Value::Count(count.into());
        shards.chosen_from = Some(format!("processors {}", machine.processors));
    }
    let Some(Value::Count(shard_count)) = value(settings, "shards") else { return };
    let shard_count = usize::try_from(*shard_count).unwrap_or(usize::MAX);
    let of_functions = processors_of_functions(settings);
    if let Some(pin) = auto(settings, "pin") {
        match shard_processors(&machine, shard_count, &of_functions) {
            Ok(chosen) => {
                pin.value = Value::Processors(chosen);
                pin.chosen_from = Some("separate cores of one node where there are".to_owned());
            }
            Err(kind) => {
                let key = Section::Router.full_key("pin");
                problems.push(Problem { place: pin.place.clone(), key, kind });
            }
        }
    }
}

/// One shard for each four processors, at least one and at most sixteen.
fn shard_count(processor_count: u32) -> u32 {
    (processor_count / PROCESSORS_PER_SHARD).clamp(1, SHARDS_AUTO_MAX)
}

fn shard_processors(machine: &Machine, count: usize, of_functions: &[u32]) -> Result<Vec<u32>, ProblemKind> {
    let topology = machine.topology.as_ref().map_err(TopologyUnknown::clone)?;
    let mut order = topology.spread(of_functions);
    if order.len() < count {
        order.sort_unstable();
        let text = format!(
            "cannot give each of {count} shards a processor of its own; this process may use {}",
            list::format(&order)
        );
        return Err(ProblemKind::Contradiction(text));
    }
    order.truncate(count);
    Ok(order)
}

fn processors_of_functions(settings: &[Setting]) -> Vec<u32> {
    let lists = settings.iter().filter_map(|setting| match (&setting.section, &setting.value) {
        (Section::Function(_), Value::Processors(list)) => Some(list),
        _ => None,
    });
    lists.flatten().copied().collect()
}

fn value<'a>(settings: &'a [Setting], key: &str) -> Option<&'a Value> {
    settings
        .iter()
        .find(|setting| setting.section == Section::Router && setting.key == key)
        .map(|it| &it.value)
}

/// The router's setting, if it says `auto`.
fn auto<'a>(settings: &'a mut [Setting], key: &str) -> Option<&'a mut Setting> {
    settings.iter_mut().find(|setting| {
        setting.section == Section::Router && setting.key == key && setting.value == Value::Auto
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_processors_are_shards_but_one_at_least_and_sixteen_at_most() {
        let counts = [(1, 1), (2, 1), (4, 1), (7, 1), (8, 2), (12, 3), (63, 15), (64, 16), (256, 16)];
        for (processors, shards) in counts {
            assert_eq!(shard_count(processors), shards, "{processors} processors");
        }
    }
}
