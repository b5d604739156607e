//! Which processors the shards and the functions' processes run on: shards as their counters files say, functions as the
//! shim last wrote.

use std::path::Path;

use router::counters::Snapshot;
use router::processors::list;
use serde_json::Value;

use crate::functions;
use crate::table;

/// One line for each shard and function.
pub fn show(shards: &[Snapshot], run_dir: &Path) -> String {
    let shards = shards.iter().map(|shard| {
        let place = shard.pinned_to.map_or("any processor".to_owned(), |index| format!("processor {index}"));
        vec![format!("shard {}", shard.shard), place]
    });
    let functions = functions::of_shim(run_dir);
    let functions = functions.iter().map(|function| {
        let named = function["processors"].as_array().into_iter().flatten();
        let named: Vec<u32> =
            named.filter_map(Value::as_u64).filter_map(|it| u32::try_from(it).ok()).collect();
        let place = if named.is_empty() {
            "any processor".to_owned()
        } else {
            format!("processors {}", list::format(&named))
        };
        vec![function["name"].as_str().unwrap_or("?").to_owned(), place]
    });
    table::columns(&shards.chain(functions).collect::<Vec<_>>())
}
