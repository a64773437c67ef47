//! Promise: what a panic says, which may be a piece of a prompt, is written nowhere.

use std::process::Command;

/// What must not come out, as a panic in a slice of text would say it.
const CANARY: &str = "sk-ant-panic-4fK9wQz7TnB2mXc8";

#[test]
fn a_panic_says_where_and_not_what() {
    let output = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", "hush::in_a_process_of_its_own", "--ignored", "--nocapture"])
        .output()
        .expect("the test's own binary can be run");
    let log = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(log.contains("a thread panicked") && log.contains("hush.rs:"), "{log}");
    assert!(!log.contains("4fK9wQz7"), "{log}");
}

#[test]
#[ignore = "run by the test before, alone in its process"]
fn in_a_process_of_its_own() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    rbees_workerd::private::hush_panics();
    for text in [format!("é{CANARY}"), CANARY.to_owned()] {
        let ended = std::thread::spawn(move || {
            assert!(text.is_char_boundary(1), "{}", &text[1..]);
            panic!("{text}");
        });
        assert!(ended.join().is_err());
    }
}
