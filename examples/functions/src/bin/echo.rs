//! The `echo` function as a program of its own; see the module of that name.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    example_functions::run("echo")
}
