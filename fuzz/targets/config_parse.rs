//! Any text as a configuration file: parsing never panics, every refusal says why, and what was accepted reads back
//! the same from what `print-config` prints.
#![no_main]

use libfuzzer_sys::fuzz_target;
use router::Config;

fuzz_target!(|text: &str| {
    match Config::parse(text, "fuzz.toml") {
        Ok(config) => {
            let printed = config.to_toml();
            let again = match Config::parse(&printed, "fuzz.toml") {
                Ok(again) => again,
                Err(error) => panic!("what we printed is refused: {error}\n{printed}"),
            };
            assert_eq!(again.router, config.router);
            assert_eq!(again.functions, config.functions);
        }
        Err(error) => {
            assert!(!error.problems.is_empty(), "refused for no reason");
            assert!(!error.to_string().trim().is_empty(), "refused without a word");
        }
    }
});
