//! Every package we build with has a licence that `deny.toml` allows, checked without an extra tool.

use std::collections::BTreeSet;

use cargo_metadata::MetadataCommand;

#[test]
fn every_dependency_has_an_allowed_licence() {
    check("Cargo.toml");
}

#[test]
#[ignore = "fetches what only a build of the Python package needs: .ci/run has built it"]
fn so_has_every_dependency_of_the_python_package() {
    check("clients/python/Cargo.toml");
}

fn check(manifest: &str) {
    let allowed = allowed_licences();
    assert!(allowed.contains("MIT"), "deny.toml lists the licences we allow");
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(manifest);
    let metadata = MetadataCommand::new().manifest_path(manifest).exec();
    let metadata = metadata.expect("cargo metadata describes this workspace");
    for package in &metadata.packages {
        let licence = package.license.as_deref().unwrap_or("none");
        assert!(is_allowed(licence, &allowed), "{} {} is under {licence}", package.name, package.version);
    }
}

#[test]
fn licence_expressions_are_judged_as_spdx_means_them() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(String::from).into();
    let check = |expression: &str, expected: bool| {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    };
    check("MIT", true);
    check("MIT/Apache-2.0", true);
    check("GPL-3.0", false);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0 AND MIT", false);
    check("(MIT OR GPL-3.0) AND Apache-2.0", true);
    check("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true);
    check("MIT+", true);
    check("none", false);
}

/// Judges the expressions that occur in practice: alternatives, all of whose parts must be allowed, with at most
/// one level of parentheses.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for letter in expression.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        parts.last_mut().unwrap().push(letter);
        if depth == 0 && parts.last().unwrap().ends_with(" AND ") {
            let whole = parts.pop().unwrap();
            parts.push(whole.trim_end_matches(" AND ").to_string());
            parts.push(String::new());
        }
    }
    if parts.len() > 1 {
        return parts.iter().all(|part| is_allowed(part.trim_matches(['(', ')', ' ']), allowed));
    }
    // "X+" is the older way of saying "X or later", which X itself satisfies.
    expression.split(" OR ").any(|choice| allowed.contains(choice.trim_matches(['(', ')', ' ', '+'])))
}

/// The `allow` list of deny.toml's `[licenses]`.
fn allowed_licences() -> BTreeSet<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml")).unwrap();
    let list = text.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    list.split(',').map(|entry| entry.trim().trim_matches('"').to_string()).collect()
}
