//! `parfait` is the plugin, too: by its subcommand, and where `CNI_COMMAND` is set.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::process::{Command, Stdio};

use serde_json::{Value, json};

#[test]
fn help_names_the_plugin_and_says_how_it_is_called() {
    let run = |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_parfait"));
        let output = program.args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text)
    };
    let (code, help) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(help.contains("\n  cni  "), "{help}");
    for arguments in [["cni", "--help"], ["help", "cni"]] {
        let (code, help) = run(&arguments);
        assert_eq!(code, Some(0));
        assert!(help.contains("CNI_CONTAINERID"), "{help}");
    }
    assert_eq!(run(&["cni", "ADD"]).0, Some(2));
}

#[test]
fn it_is_the_plugin_by_its_subcommand_too() {
    let output = Command::new(env!("CARGO_BIN_EXE_parfait"))
        .arg("cni")
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["cniVersion"], "1.1.0");
    let output = Command::new(env!("CARGO_BIN_EXE_parfait"))
        .arg("cni")
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.success(), &answer["code"]),
        (false, &json!(4))
    );
}
