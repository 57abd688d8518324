//! `docs/durability.md` names the test of each cell: each of them is there.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

/// The names of the functions in a folder's Rust files.
fn functions(folder: &Path, out: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn each_test_that_durability_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Ok(text) = std::fs::read_to_string(root.join("docs/durability.md")) else {
        return println!("SKIPPED: docs/durability.md is not here");
    };
    let mut code = String::new();
    for folder in ["argus-core", "argus-otel", "argus-tracing-layer", "argus-cli", "dev"] {
        functions(&root.join(folder), &mut code);
    }
    // What stands between backquotes and looks like the name of a test.
    let names = text.split('`').skip(1).step_by(2).filter(|name| {
        name.matches('_').count() >= 3
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    });
    let mut count = 0;
    for name in names {
        count += 1;
        assert!(code.contains(&format!("fn {name}(")), "`{name}` is no test any more");
    }
    assert!(count > 50, "only {count} tests are named");
}
