//! The reference page for operators, written from the option table.

use std::fmt::Write as _;

use super::{FUNCTION_OPTIONS, OptionSpec, ROUTER_OPTIONS, TENANT_OPTIONS};

/// `docs/operating/configuration.md`, whole.
pub fn reference_page() -> String {
    let mut page = String::from(REFERENCE_HEAD);
    page.push_str("\n## `[router]`\n\n");
    for spec in ROUTER_OPTIONS {
        reference_entry(&mut page, "router", spec);
    }
    page.push_str("## `[tenants.NAME]`\n\n");
    page.push_str("A tenant is whose functions they are: a team, a customer. The tenant `default` is always there; functions that ");
    page.push_str(
        "name no other belong to it, and it may have a table too. NAME is made as a function's.\n\n",
    );
    for spec in TENANT_OPTIONS {
        reference_entry(&mut page, "tenants.NAME", spec);
    }
    page.push_str("## `[defaults]`\n\n");
    page.push_str("Takes every option of `[functions.NAME]` but `command`, and holds for every function that does not say ");
    page.push_str("otherwise. What a function says replaces it whole, also a table such as `env`.\n\n");
    page.push_str("## `[functions.NAME]`\n\n");
    page.push_str("NAME is what callers ask for: 1 to 128 letters, digits, `.`, `_` or `-`, the first a letter or digit. ");
    page.push_str("A file that names no function runs the bundled ones.\n\n");
    for spec in FUNCTION_OPTIONS {
        reference_entry(&mut page, "functions.NAME", spec);
    }
    page
}

const REFERENCE_HEAD: &str = "\
# Configuration

<!-- Written by the option table, router/src/options.rs. Do not edit: QUICKFIRE_BLESS=1 cargo test -p router -->

`quickfire up` reads a TOML file (`--config FILE`), environment variables and flags. A flag wins over a variable,
a variable over the file, the file over the default. Unknown keys are errors. `quickfire check FILE` tells every
mistake of a file at once; `quickfire print-config` prints the effective values, each with where it came from.
SIGHUP makes a running router read its file again: see [command.md](command.md#starting-and-stopping).

Durations need a unit: `ns`, `us`, `ms`, `s`, `m`, `h`. Sizes are bytes or carry `kB`, `KiB`, `MB`, `MiB`, `GB`, `GiB`;
counts may carry `k`, `M` or `G` (thousands). Values with a unit stand in quotes: `timeout = \"50ms\"`.

```toml
[router]
listen = [\"quickfire://127.0.0.1:7450\", \"unix://DIR/router.sock\"]
shards = 1

[defaults]                       # options of every function that does not say otherwise
timeout = \"5s\"

[tenants.images]
weight = 3

[functions.echo]
command = [\"builtin:echo\"]      # or [\"./path/to/program\", \"argument\"]
tenant = \"images\"
timeout = \"30s\"
```
";

fn reference_entry(page: &mut String, table: &str, spec: &OptionSpec) {
    let _ = writeln!(page, "### `{table}.{}`\n\n{}\n", spec.key, spec.meaning);
    let _ = writeln!(page, "- allowed: {}", spec.kind.allowed());
    match spec.default {
        Some(text) => _ = writeln!(page, "- default: `{text}`"),
        None => page.push_str("- default: none, must be given\n"),
    }
    if let (Some(flag), Some(env)) = (spec.flag, spec.env) {
        let _ = writeln!(page, "- flag `--{flag}`, variable `{env}`");
    }
    let _ = writeln!(page, "- since {}\n", spec.since);
}
