//! Plain-text snapshots for tests: `QUICKFIRE_BLESS=1 cargo test -p engine` rewrites them, and the diff is the review.

use std::path::Path;

/// Compares `actual` with `src/snapshots/<name>`.
pub(crate) fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/snapshots").join(name);
    if std::env::var_os("QUICKFIRE_BLESS").is_some() {
        std::fs::write(&path, actual).expect("the source tree is writable when blessing");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name} differs; if meant, run with QUICKFIRE_BLESS=1");
}
