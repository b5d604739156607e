//! The header says what the library has: every function with its arguments, every struct with its fields, every number.
//!
//! Functions are compared as texts of both sides, because a linker compares nothing but names. Structs and numbers are compared as a C
//! compiler sees the header.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::offset_of;
use std::path::Path;
use std::process::Command;

use quickfire::{Bytes, CallOptions, ConnectOptions, FLAGS, KINDS, Outcome, Timings, Trace};

#[test]
fn every_function_of_the_header_is_in_the_library_with_the_same_arguments_and_the_other_way_round() {
    let header = functions_of_the_header(&read("include/quickfire.h"));
    let sources =
        ["caller.rs", "function.rs", "outcome.rs", "queue.rs"].map(|file| read(&format!("src/{file}")));
    let library = functions_of_the_library(&sources.concat());
    assert!(header.len() > 25, "only {} functions found in the header", header.len());
    for (name, signature) in &library {
        assert_eq!(header.get(name), Some(signature), "{name}: the header and the library differ");
    }
    assert_eq!(header.len(), library.len(), "the header has functions that the library has not");
}

#[test]
fn structs_and_numbers_are_the_same_on_both_sides() {
    // Given a program that prints what the compiler makes of the header
    let mut program = String::from("#include \"quickfire.h\"\n#include <stdio.h>\nint main(void) {\n");
    let mut expected = String::new();
    let mut check = |expression: &str, value: i64| {
        writeln!(program, "    printf(\"%s %lld\\n\", \"{expression}\", (long long)({expression}));")
            .unwrap();
        writeln!(expected, "{expression} {value}").unwrap();
    };
    macro_rules! layout {
        ($c:literal, $rust:ty: $($field:ident)*) => {
            check(concat!("sizeof(", $c, ")"), size_of::<$rust>() as i64);
            $(check(
                &format!("offsetof({}, {})", $c, stringify!($field)),
                offset_of!($rust, $field) as i64,
            );)*
        };
    }
    layout!("qf_bytes", Bytes: data size);
    layout!("qf_trace", Trace: trace_id parent_span_id flags);
    layout!("qf_timings", Timings: received_at_ns admitted_ns queued_ns pushed_ns started_ns finished_ns answered_ns cause);
    layout!("qf_outcome", Outcome: kind status fault retry started has_timings retry_after_ns payload message timings);
    layout!("qf_connect_options", ConnectOptions: struct_size connect_timeout_ns credits frame_size_max);
    layout!("qf_call_options", CallOptions: struct_size timeout_ns start_after_ns flags criticality idempotency_key trace);
    KINDS.iter().for_each(|(name, value)| check(name, (*value).into()));
    FLAGS.iter().for_each(|(name, value)| check(name, (*value).into()));
    program.push_str("    return 0;\n}\n");

    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("layout.c"), dir.path().join("layout"));
    std::fs::write(&source, program).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-std=c11", "-I"]).arg(root().join("include"));
    let built = cc.arg(&source).arg("-o").arg(&binary).output().expect("a C compiler, `cc`");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let printed = Command::new(&binary).output().unwrap().stdout;
    assert_eq!(String::from_utf8(printed).unwrap(), expected);
}

/// `name -> (arguments) -> result`, in the words of the header.
fn functions_of_the_header(header: &str) -> BTreeMap<String, String> {
    let code = without_comments(header);
    let mut functions = BTreeMap::new();
    for statement in code.split(';') {
        let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        let statement = statement.rsplit("extern \"C\" {").next().unwrap().trim();
        let Some((before, arguments)) = statement.split_once('(') else { continue };
        let Some((_, name)) = before.rsplit_once([' ', '*']) else { continue };
        if !name.starts_with("qf_") || before.contains('{') || before.starts_with("typedef") {
            continue;
        }
        // The star that the split took belongs to the result.
        let result = &before[..before.len() - name.len()];
        let types = arguments.trim_end_matches(')').split(',').map(|argument| {
            let end = argument.rfind([' ', '*']).map_or(argument.len(), |at| at + 1);
            if argument == "void" { String::new() } else { spaceless(&argument[..end]) }
        });
        let types = types.collect::<Vec<_>>().join(",");
        functions.insert(name.to_owned(), format!("({types}) -> {}", spaceless(result)));
    }
    functions
}

/// The same of the library's sources.
fn functions_of_the_library(sources: &str) -> BTreeMap<String, String> {
    let mut functions = BTreeMap::new();
    for declaration in sources.split("#[unsafe(no_mangle)]").skip(1) {
        let (_, after) =
            declaration.split_once("extern \"C\" fn ").expect("what is exported is a C function");
        let (signature, _) = after.split_once('{').unwrap();
        let (name, rest) = signature.split_once('(').unwrap();
        let (arguments, result) = rest.rsplit_once(')').unwrap();
        let types = arguments.split(',').filter_map(|argument| argument.split_once(':'));
        let types = types.map(|(_, rust)| in_c(rust)).collect::<Vec<_>>().join(",");
        let result = result.trim().strip_prefix("->").map_or_else(|| "void".into(), in_c);
        functions.insert(name.to_owned(), format!("({types}) -> {result}"));
    }
    functions
}

/// A Rust type as the header writes it.
fn in_c(rust: &str) -> String {
    let rust = rust.trim();
    if let Some(pointee) = rust.strip_prefix("*mut ") {
        return format!("{}*", in_c(pointee));
    }
    if let Some(pointee) = rust.strip_prefix("*const ") {
        return format!("const{}*", in_c(pointee));
    }
    match rust {
        "c_char" => "char".into(),
        "c_int" => "int".into(),
        "c_void" => "void".into(),
        "usize" => "size_t".into(),
        "i32" => "int32_t".into(),
        "u8" => "uint8_t".into(),
        "u16" => "uint16_t".into(),
        "u32" => "uint32_t".into(),
        "u64" => "uint64_t".into(),
        ours => {
            let mut name = String::from("qf");
            for letter in ours.chars() {
                if letter.is_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_lowercase());
            }
            name
        }
    }
}

fn spaceless(text: &str) -> String {
    text.split_whitespace().collect()
}

fn without_comments(header: &str) -> String {
    let mut code = String::new();
    for (number, part) in header.split("/*").enumerate() {
        code.push_str(if number == 0 { part } else { part.split_once("*/").unwrap().1 });
    }
    // Lines of the preprocessor end without a semicolon.
    code.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
