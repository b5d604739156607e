//! Prose that is not checked drifts: links, commands and tables in our documents are held to the tree and to the
//! program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in links(&text) {
            if target.contains("://") || target.starts_with('#') || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = document.parent().unwrap().join(path);
            assert!(file.exists(), "{}: link to {target} leads nowhere", document.display());
            if !anchor.is_empty() && file.extension().is_some_and(|extension| extension == "md") {
                let headings = headings(&std::fs::read_to_string(&file).unwrap());
                assert!(headings.contains(anchor), "{}: no heading for {target}", document.display());
            }
        }
    }
}

#[test]
fn commands_in_documents_exist_with_their_flags() {
    let mut count = 0;
    for document in documents() {
        for command in commands(&std::fs::read_to_string(&document).unwrap()) {
            check_command(&document, &command);
            count += 1;
        }
    }
    assert!(count > 10, "only {count} commands found: the documents or this test's idea of them changed");
}

#[test]
fn stage_table_in_the_readme_names_real_files_and_functions() {
    let readme = read("README.md");
    let rows: Vec<_> = readme.lines().filter(|line| line.starts_with("| ") && line.contains("->")).collect();
    assert!(rows.len() >= 9, "the README's table has the loop and eight stages");
    for row in rows {
        for name in backquoted(row).filter(|name| name.contains('/')) {
            let (path, item) = name.split_once("::").unwrap_or((name, ""));
            assert!(root().join(path).exists(), "the stage table names {path}");
            if !item.is_empty() {
                assert!(read(path).contains(&format!("fn {item}")), "{path} has no function {item}");
            }
        }
    }
}

#[test]
fn glossary_has_each_word_once() {
    let mut seen = BTreeSet::new();
    for line in read("docs/glossary.md").lines().filter(|line| line.starts_with("- **")) {
        let word = line.trim_start_matches("- **").split("**").next().unwrap().to_lowercase();
        assert!(seen.insert(word.clone()), "{word} is in the glossary twice");
    }
    assert!(seen.len() > 15);
}

#[test]
fn every_promise_names_a_command() {
    let promises = read("docs/promises.md");
    let rows: Vec<_> =
        promises.lines().filter(|line| line.starts_with("| ") && !line.contains("---")).collect();
    assert!(rows.len() > 3);
    for row in rows.iter().skip(1) {
        assert!(backquoted(row).any(is_command), "no command shows this promise: {row}");
    }
}

#[test]
fn the_seccomp_profile_allows_io_uring_and_only_by_name() {
    let profile: serde_json::Value =
        serde_json::from_str(&read("docs/operating/seccomp-quickfire.json")).unwrap();
    // What is not named does not exist (ENOSYS): libraries then try an older call instead of giving up.
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(profile["defaultErrnoRet"], 38);
    let mut names = BTreeSet::new();
    for rule in profile["syscalls"].as_array().unwrap() {
        assert_eq!(rule["action"], "SCMP_ACT_ALLOW", "{rule}");
        for name in rule["names"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            assert!(names.insert(name) || name == "socket", "{name} is there twice");
        }
    }
    for needed in ["io_uring_setup", "io_uring_enter", "io_uring_register", "epoll_pwait", "memfd_create"] {
        assert!(names.contains(needed), "{needed} is missing");
    }
    for refused in ["bpf", "keyctl", "mount", "ptrace", "setns", "unshare", "clone3", "userfaultfd"] {
        assert!(!names.contains(refused), "{refused} is nothing for a container");
    }
}

/// Checks one command line as far as that is possible without running it.
fn check_command(document: &Path, line: &str) {
    let place = document.display();
    let words: Vec<&str> = without_variables(line).split_whitespace().collect();
    let after = |flag: &str| words.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1]);
    match words.as_slice() {
        ["cargo", rest @ ..] => {
            let manifest = read("Cargo.toml");
            if let Some(package) = after("-p") {
                let known = manifest.contains(&format!("\"{package}\""))
                    || manifest.contains(&format!("{package} ="));
                assert!(known, "{place}: no package {package} ({line})");
            }
            if let Some(test) = after("--test") {
                let folder = root().join(after("-p").unwrap_or(".")).join("tests");
                assert!(folder.join(format!("{test}.rs")).exists(), "{place}: {line}");
            }
            let is_quickfire =
                rest.first() == Some(&"run") && !rest.contains(&"-p") && !rest.contains(&"--example");
            if let Some(at) = rest.iter().position(|word| *word == "--").filter(|_| is_quickfire) {
                check_quickfire(document, line, &rest[at + 1..]);
            }
        }
        ["bash", script, ..] => assert!(root().join(script).exists(), "{place}: no script {script} ({line})"),
        ["quickfire" | "./target/release/quickfire" | "target/release/quickfire", rest @ ..] => {
            check_quickfire(document, line, rest);
        }
        _ => {}
    }
}

fn check_quickfire(document: &Path, line: &str, words: &[&str]) {
    let end = words.iter().position(|word| ["|", ">", "&", "#", "2>"].contains(word)).unwrap_or(words.len());
    let words = &words[..end];
    let Some(subcommand) = words.first().filter(|word| !word.starts_with('-')) else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_quickfire")).args([subcommand, "--help"]).output().unwrap();
    assert!(output.status.success(), "{}: no subcommand {subcommand} ({line})", document.display());
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for flag in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
        let flag = flag.split('=').next().unwrap();
        assert!(help.contains(flag), "{}: {subcommand} has no {flag} ({line})", document.display());
    }
    for path in words.iter().filter(|word| word.starts_with("examples/") || word.starts_with("docs/")) {
        assert!(root().join(path).exists(), "{}: no file {path} ({line})", document.display());
    }
}

/// Commands in fenced blocks marked `sh`.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_inside = line.starts_with("```sh");
        } else if is_inside && is_command(line.trim_start_matches("$ ")) {
            found.push(line.trim_start_matches("$ ").to_string());
        }
    }
    found
}

fn is_command(line: &str) -> bool {
    let first = without_variables(line).split_whitespace().next();
    matches!(
        first,
        Some("cargo" | "bash" | "quickfire" | "./target/release/quickfire" | "target/release/quickfire")
    )
}

/// The command behind its `NAME=value` and `NAME="two words"`.
fn without_variables(line: &str) -> &str {
    let mut rest = line.trim_start();
    loop {
        let name = rest.split('=').next().unwrap_or_default();
        let is_variable =
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_');
        if !is_variable || name.len() == rest.len() {
            return rest;
        }
        let value = &rest[name.len() + 1..];
        let end = match value.strip_prefix('"') {
            Some(quoted) => quoted.find('"').map_or(value.len(), |at| at + 2),
            None => value.find(' ').unwrap_or(value.len()),
        };
        rest = value[end..].trim_start();
    }
}

fn links(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            targets.extend(part.split(')').next().map(str::to_string));
        }
    }
    targets
}

/// Headings as the anchors that renderers make of them.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    titles
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
        })
        .collect()
}

fn backquoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn documents() -> Vec<PathBuf> {
    fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && name != ".git" {
                collect(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(&root(), &mut found);
    found.sort();
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
