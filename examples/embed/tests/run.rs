//! The example does what its README says.

#[test]
fn the_second_run_computes_only_what_the_change_reaches() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_e3-example-embed")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("completed: 3 computed"), "{text}");
    assert!(text.contains("run of 3 tasks, 1 of them untouched since the last run"), "{text}");
    assert!(text.ends_with("completed: 2 computed\nGOOD EVENING / 6\n"), "{text}");
}
