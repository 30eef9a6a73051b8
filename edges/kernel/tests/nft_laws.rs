//! nf_tables, against a real kernel: what is executed is observed, and as `nft` says.
//!
//! Each test has a network namespace of its own, on a thread of its own.

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use parfait_kernel::NetNs;
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::{Tables, diff, diff::comment, render};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

#[path = "../../../model/linux/tests/support/nft_tables.rs"]
mod nft_tables;

/// Runs in a fresh network namespace.
fn in_netns<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let netns = NetNs::create().expect("a network namespace (this test needs root)");
    netns.run(run).expect("entering it")
}

/// With the origins of rules and elements as text, which their own equality leaves out.
fn with_origins(tables: &Tables) -> Vec<Option<String>> {
    let text = |origin: &Option<_>| origin.as_ref().map(comment);
    tables
        .values()
        .flat_map(|table| {
            let elements = table.sets.values().flat_map(|set| set.elements.values());
            let rules = table.chains.values().flat_map(|chain| &chain.rules);
            elements
                .map(move |element| text(&element.origin))
                .chain(rules.map(move |rule| text(&rule.origin)))
        })
        .collect()
}

#[test]
fn what_is_executed_is_observed_and_then_there_is_nothing_to_do() {
    in_netns(|| {
        let socket = RefCell::new(NftSocket::open().expect("a socket"));
        let mut runner = TestRunner::new(cases(150));
        let result = runner.run(&nft_tables::tables(), |desired| {
            let mut socket = socket.borrow_mut();
            let before = socket.observe_all().expect("observing");
            let steps = diff(&before.tables, &desired);
            if let Err(error) = socket.execute_at(&steps, before.generation) {
                return Err(TestCaseError::fail(error.to_string()));
            }
            let after = socket.observe_all().expect("observing");
            prop_assert_eq!(render::ruleset(&after.tables), render::ruleset(&desired));
            prop_assert_eq!(&after.tables, &desired);
            prop_assert_eq!(with_origins(&after.tables), with_origins(&desired));
            prop_assert_eq!(diff(&after.tables, &desired), vec![]);
            Ok(())
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(why, _)) => panic!("{why}"),
            Err(TestError::Abort(why)) => panic!("{why}"),
        }
    });
}

#[test]
fn nft_prints_it_as_we_do() {
    in_netns(|| {
        let socket = RefCell::new(NftSocket::open().expect("a socket"));
        let mut runner = TestRunner::new(cases(60));
        let result = runner.run(&nft_tables::tables(), |desired| {
            let mut socket = socket.borrow_mut();
            let steps = socket.reconcile(nft_tables::NAME, &desired);
            prop_assert!(steps.is_ok(), "{:?}", steps);
            let Some(printed) = nft(&["--stateless", "list", "ruleset"]) else {
                return Err(TestCaseError::reject(
                    "nft 1.0.6 fails an assertion of its own",
                ));
            };
            let (theirs, ours) = (normal(&printed), normal(&render::ruleset(&desired)));
            if theirs != ours {
                return Err(TestCaseError::fail(difference(&theirs, &ours)));
            }
            Ok(())
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(why, _)) => panic!("{why}"),
            Err(TestError::Abort(why)) => panic!("{why}"),
        }
    });
}

/// The lines that only one of the two has.
fn difference(theirs: &[String], ours: &[String]) -> String {
    let lines = |blocks: &[String]| -> Vec<String> {
        let lines = blocks.iter().flat_map(|block| block.lines());
        lines.map(str::to_owned).collect()
    };
    let (theirs, ours) = (lines(theirs), lines(ours));
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    format!(
        "only nft:\n{}\nonly we:\n{}",
        only(&theirs, &ours).join("\n"),
        only(&ours, &theirs).join("\n")
    )
}

/// What `nft` prints; `None` if it aborts, as 1.0.6 does over some sequences of protocols.
fn nft(arguments: &[&str]) -> Option<String> {
    let output = Command::new("nft").args(arguments).output();
    let output = output.expect("nft, of the package nftables, is needed by this test");
    if output.status.signal().is_some() {
        return None;
    }
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// Without what is the kernel's own choice: the order of sets, chains and elements.
fn normal(ruleset: &str) -> Vec<String> {
    let one_line = ruleset.replace(",\n\t\t\t     ", ", ");
    let mut blocks: Vec<String> = Vec::new();
    let mut table = String::new();
    let mut block = String::new();
    for line in one_line.lines() {
        if line.starts_with("table") {
            line.clone_into(&mut table);
        } else if line == "\t}" {
            blocks.push(format!("{table}{block}"));
            block.clear();
        } else if !line.is_empty() && line != "}" {
            block.push('\n');
            block.push_str(&sorted_elements(line));
        }
    }
    blocks.sort();
    blocks
}

fn sorted_elements(line: &str) -> String {
    let mut parts = line.split("{ ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (elements, after) = part.split_once(" }").unwrap_or((part, ""));
        let mut elements: Vec<&str> = elements.split(", ").collect();
        elements.sort_unstable();
        out.push_str(&format!("{{ {} }}{after}", elements.join(", ")));
    }
    out
}

/// Failures are printed, not written beside the sources.
fn cases(cases: u32) -> Config {
    Config {
        failure_persistence: None,
        ..Config::with_cases(cases)
    }
}
