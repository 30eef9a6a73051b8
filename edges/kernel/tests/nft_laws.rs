//! nf_tables, against a real kernel: what is executed is observed, and as `nft` says.
//!
//! Each test has a network namespace of its own, on a thread of its own.

use std::cell::RefCell;
use std::process::Command;

use parfait_kernel::NetNs;
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::{Tables, diff, diff::comment, render};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

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
        let mut runner = TestRunner::new(Config::with_cases(150));
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
        if let Err(error) = result {
            panic!("{error}");
        }
    });
}

#[test]
fn nft_prints_it_as_we_do() {
    in_netns(|| {
        let socket = RefCell::new(NftSocket::open().expect("a socket"));
        let mut runner = TestRunner::new(Config::with_cases(60));
        let result = runner.run(&nft_tables::tables(), |desired| {
            let mut socket = socket.borrow_mut();
            let steps = socket.reconcile(nft_tables::NAME, &desired);
            prop_assert!(steps.is_ok(), "{:?}", steps);
            let printed = nft(&["--stateless", "list", "ruleset"]);
            prop_assert_eq!(normal(&printed), normal(&render::ruleset(&desired)));
            Ok(())
        });
        if let Err(error) = result {
            panic!("{error}");
        }
    });
}

/// What `nft` prints.
fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output();
    let output = output.expect("nft, of the package nftables, is needed by this test");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
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
        } else {
            block.push('\n');
            block.push_str(&sorted_elements(line));
        }
    }
    blocks.sort();
    blocks
}

fn sorted_elements(line: &str) -> String {
    let Some((before, rest)) = line.split_once("{ ") else {
        return line.to_owned();
    };
    let Some((elements, after)) = rest.rsplit_once(" }") else {
        return line.to_owned();
    };
    let mut elements: Vec<&str> = elements.split(", ").collect();
    elements.sort_unstable();
    format!("{before}{{ {} }}{after}", elements.join(", "))
}
