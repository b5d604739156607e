//! What runs where, and what to try next, in a few lines that can be copied.

use std::path::Path;

use router::config::Place;
use router::processors::{Processors, list};
use router::{Config, config::Listen, run_dir};

use crate::flags;

/// A sample of this repository, offered where the command is started inside it.
const PICTURE: &str = "examples/functions/samples/picture.jpg";

/// The text, given the addresses bound and what the shards run on.
pub fn text(config: &Config, bound: &[Listen], io: &str) -> String {
    let mut out = format!("quickfire {} runs, pid {}\n", env!("CARGO_PKG_VERSION"), std::process::id());
    let listening: Vec<_> = bound.iter().map(Listen::to_string).collect();
    out.push_str(&format!("  listens    {}\n", listening.join("\n             ")));
    let names: Vec<_> = config.functions.iter().map(|function| function.name.as_str()).collect();
    let is_bundled = config
        .settings
        .iter()
        .filter(|setting| setting.key == "command")
        .all(|setting| setting.place == Place::Default);
    let bundled = if is_bundled { "  (bundled; your own: --config FILE)" } else { "" };
    out.push_str(&format!("  functions  {}{bundled}\n", names.join(", ")));
    let warm: u32 = config.functions.iter().map(|function| function.warm * config.router.shards).sum();
    out.push_str(&format!("  processors {}\n", Processors::of_this_process()));
    let shards = match config.router.shards {
        1 => "1 shard".to_owned(),
        shards => format!("{shards} shards"),
    };
    out.extend(placement(config).map(|placement| format!("  placement  {placement}\n")));
    out.push_str(&format!("  processes  1 router ({shards}), 1 shim, {warm} functions\n"));
    out.push_str(&format!("  io         {io}\n"));
    out.push_str(&format!("  directory  {}  (logs, counters, sockets)\n", config.router.run_dir.display()));
    out.push_str("\nTry in another terminal:\n");
    for line in suggestions(config, bound, &names) {
        out.push_str(&format!("  {line}\n"));
    }
    out.push_str("\nStop with Ctrl-C.\n");
    out
}

/// Which processors are whose; nothing where the kernel chooses for all.
fn placement(config: &Config) -> Option<String> {
    let pinned = config.router.pin.iter().zip(0..config.router.shards);
    let shards = pinned.map(|(processor, shard)| format!("shard {shard} on {processor}"));
    let given = config.functions.iter().filter(|function| !function.processors.is_empty());
    let functions = given.map(|it| format!("{} on {}", it.name, list::format(&it.processors)));
    let all: Vec<_> = shards.chain(functions).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn suggestions(config: &Config, bound: &[Listen], names: &[&str]) -> Vec<String> {
    let program = std::env::args().next().unwrap_or_else(|| "quickfire".into());
    let connect = match bound.first() {
        Some(listen) if listen.to_string() != quickfire_client::URL_DEFAULT => format!(" --connect {listen}"),
        _ => String::new(),
    };
    // Not what QUICKFIRE_DIR says here: it may not be set in another terminal.
    let is_usual = run_dir::usual_place(&flags::variable) == config.router.run_dir;
    let dir = config.router.run_dir.display();
    let (run_dir_flag, dir) =
        if is_usual { Default::default() } else { (format!(" --run-dir {dir}"), format!(" {dir}")) };

    let mut lines = Vec::new();
    if names.contains(&"echo") {
        lines.push(format!("{program} invoke echo --data hello --timings{connect}"));
    }
    if names.contains(&"thumbnail") {
        let picture = if Path::new(PICTURE).exists() { PICTURE } else { "picture.jpg" };
        lines.push(format!("{program} invoke thumbnail --in {picture} --out small.jpg{connect}"));
    }
    let target = if names.contains(&"echo") { Some("echo") } else { names.first().copied() };
    if let Some(name) = target {
        if name != "echo" {
            lines.push(format!("{program} invoke {name} --data hello --timings{connect}"));
        }
        lines.push(format!("{program} load {name} --window 64 --duration 5s{connect}"));
    }
    lines.push(format!("{program} functions{run_dir_flag}"));
    lines.push(format!("{program} inspect{dir}"));
    lines
}
