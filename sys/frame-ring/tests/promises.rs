//! The table of promises in the documentation of the crate names tests: they are there.

use std::fs;

#[test]
fn every_test_that_proves_a_promise_is_there() {
    let mut sources = String::new();
    for directory in ["src", "tests"] {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let crate_text = fs::read_to_string("src/lib.rs").unwrap();
    let rows: Vec<&str> = crate_text.lines().filter(|line| line.starts_with("//! | ")).skip(1).collect();
    assert!(rows.len() > 10, "where is the table?");
    for row in rows {
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 2).collect();
        assert!(!names.is_empty(), "nothing proves this: {row}");
        for name in names {
            let is_test = sources.contains(&format!("#[test]\nfn {name}()"))
                || sources.contains(&format!("#[test]\n    fn {name}("));
            assert!(is_test, "no test is called {name}");
        }
    }
}
