//! What came of the checks: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::connect::{Outcome, Verdict};
use super::plan::{Attempt, Transport};
use crate::args::Output;
use crate::lab::columns::Columns;
use crate::output::say;

/// One line of the result: one address of one attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub from: String,
    pub to: String,
    pub address: Option<SocketAddr>,
    pub transport: Transport,
    pub result: Result,
    /// What the network said, where it is not plain.
    pub detail: Option<String>,
    pub micros: u64,
    pub because: String,
    #[serde(skip)]
    host: String,
    #[serde(skip)]
    port: u16,
}

/// How it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Result {
    Ok,
    /// Nothing has this name, and the network says so.
    Absent,
    Failed,
}

/// A failure as a question to explain.
#[derive(Clone, Debug)]
pub struct FirstFailure {
    pub detail: String,
    pub from: String,
    pub host: String,
    pub port: u16,
    pub udp: bool,
}

/// Everything that was checked.
#[derive(Debug, Serialize)]
pub struct Report {
    pub passed: bool,
    pub checks: Vec<Line>,
    pub services_without_endpoints: Vec<String>,
}

impl Report {
    /// Judges outcomes.
    pub fn new(
        done: Vec<(Vec<Attempt>, Vec<Outcome>)>,
        services_without_endpoints: Vec<String>,
    ) -> Self {
        let mut checks = Vec::new();
        for (attempts, outcomes) in done {
            for (index, attempt) in attempts.iter().enumerate() {
                let mut mine = outcomes.iter().filter(|o| o.request == index).peekable();
                if mine.peek().is_none() {
                    // A sender that says nothing about an attempt did not make it.
                    checks.push(line(attempt, None));
                }
                checks.extend(mine.map(|outcome| line(attempt, Some(outcome))));
            }
        }
        let passed = checks.iter().all(|line| line.result != Result::Failed);
        Self {
            passed,
            checks,
            services_without_endpoints,
        }
    }

    /// Whether nothing failed.
    pub const fn passed(&self) -> bool {
        self.passed
    }

    /// How many connections work, are absent, failed.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |result| {
            self.checks
                .iter()
                .filter(|line| line.result == result)
                .count()
        };
        (
            count(Result::Ok),
            count(Result::Absent),
            count(Result::Failed),
        )
    }

    /// The first line that failed.
    pub fn first_failure(&self) -> Option<FirstFailure> {
        let line = self
            .checks
            .iter()
            .find(|line| line.result == Result::Failed)?;
        Some(FirstFailure {
            detail: line.detail.clone().unwrap_or_default(),
            from: line.from.clone(),
            host: line
                .address
                .map_or_else(|| line.host.clone(), |address| address.ip().to_string()),
            port: line.port,
            udp: line.transport == Transport::Udp,
        })
    }

    /// Prints it on standard output.
    pub fn print(&self, output: Output) {
        match output {
            Output::Json => say!("{}", serde_json::to_string_pretty(self).unwrap_or_default()),
            Output::Text => say!("{}\n{}", self.table(), self.summary()),
        }
    }

    /// `38 connections work, 1 name is absent, none failed`, and what is noteworthy.
    pub fn summary(&self) -> String {
        let (ok, absent, failed) = self.counts();
        let mut text = match ok {
            1 => "1 connection works".to_owned(),
            many => format!("{many} connections work"),
        };
        if absent > 0 {
            let lead = if absent == 1 { "leads" } else { "lead" };
            text += &format!(
                ", {absent} {lead} to names that nothing in the cluster has (absent: the network is right)"
            );
        }
        text += &if failed > 0 {
            format!(", {failed} FAILED")
        } else {
            ", none failed".to_owned()
        };
        for service in &self.services_without_endpoints {
            text += &format!("\nnote: svc/{service} has no ready endpoint: nothing to connect to");
        }
        text
    }

    /// The table. What every node finds alike is one line.
    pub fn table(&self) -> Columns {
        let mut table = Columns::new(["FROM", "TO", "ADDRESS", "RESULT", "TIME"]);
        for (line, senders) in grouped(&self.checks) {
            let result = match (line.result, &line.detail) {
                (Result::Ok, None) => "ok".to_owned(),
                (Result::Ok, Some(detail)) => format!("ok ({detail})"),
                (Result::Absent, _) => "absent".to_owned(),
                (Result::Failed, detail) => {
                    format!("FAILED: {}", detail.as_deref().unwrap_or("no reason known"))
                }
            };
            let from = if senders > 1 {
                format!("{senders} nodes")
            } else {
                line.from.clone()
            };
            let transport = if line.transport == Transport::Udp {
                " udp"
            } else {
                ""
            };
            let address = line
                .address
                .map_or_else(|| "-".to_owned(), |a| format!("{a}{transport}"));
            table.row([&from, &line.to, &address, &result, &time(line.micros)]);
        }
        table
    }
}

/// Nodes' lines with the same receiver and result become one, with the longest time.
fn grouped(checks: &[Line]) -> Vec<(Line, usize)> {
    let mut lines: Vec<(Line, usize)> = Vec::new();
    let mut seen = BTreeMap::new();
    for check in checks {
        let key = (
            check.to.clone(),
            check.address,
            check.transport,
            check.result,
            check.detail.clone(),
        );
        match seen.get(&key) {
            Some(&index) if check.from.starts_with("node/") => {
                let (line, senders): &mut (Line, usize) = &mut lines[index];
                *senders += 1;
                line.micros = line.micros.max(check.micros);
            }
            _ => {
                if check.from.starts_with("node/") {
                    seen.insert(key, lines.len());
                }
                lines.push((check.clone(), 1));
            }
        }
    }
    lines
}

fn line(attempt: &Attempt, outcome: Option<&Outcome>) -> Line {
    let (result, detail) = match outcome.map(|o| &o.verdict) {
        None => (Result::Failed, Some("it was not tried".to_owned())),
        Some(Verdict::Connected) => (Result::Ok, None),
        Some(Verdict::Sent) => (Result::Ok, Some("sent, not refused".to_owned())),
        Some(Verdict::NoSuchName) if !attempt.exists => (Result::Absent, None),
        Some(Verdict::NoSuchName) => (
            Result::Failed,
            Some("the DNS knows no such name, but it exists".to_owned()),
        ),
        Some(Verdict::LookupFailed(why) | Verdict::Failed(why)) => {
            (Result::Failed, Some(why.clone()))
        }
    };
    Line {
        from: attempt.from.to_string(),
        to: attempt.to.clone(),
        address: outcome.and_then(|o| o.address),
        transport: attempt.transport,
        result,
        detail,
        micros: outcome.map_or(0, |o| o.micros),
        because: attempt.because.clone(),
        host: attempt.host.clone(),
        port: attempt.port,
    }
}

fn time(micros: u64) -> String {
    if micros >= 1_000_000 {
        format!("{:.1} s", micros as f64 / 1e6)
    } else {
        format!("{:.1} ms", micros as f64 / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parfait_lab_fabric::Target;

    fn attempt(from: Target, to: &str, exists: bool) -> Attempt {
        let (to, host) = (to.to_owned(), to.to_owned());
        Attempt {
            from,
            to,
            host,
            port: 80,
            transport: Transport::Tcp,
            exists,
            because: String::new(),
        }
    }

    fn outcome(request: usize, verdict: Verdict) -> Outcome {
        let address =
            matches!(verdict, Verdict::Connected).then(|| "10.96.0.7:80".parse().unwrap());
        Outcome {
            request,
            address,
            verdict,
            micros: 1500,
        }
    }

    #[test]
    fn absence_is_no_failure_but_a_lost_name_is() {
        let pod = || Target::Pod("web".to_owned());
        let node = |n: &str| Target::Node(n.to_owned());
        let report = Report::new(
            vec![
                (
                    vec![
                        attempt(pod(), "api", true),
                        attempt(pod(), "ai", false),
                        attempt(pod(), "db", true),
                    ],
                    vec![
                        outcome(0, Verdict::Connected),
                        outcome(1, Verdict::NoSuchName),
                        outcome(2, Verdict::NoSuchName),
                    ],
                ),
                (
                    vec![attempt(node("node-1"), "api", true)],
                    vec![outcome(0, Verdict::Connected)],
                ),
                (
                    vec![attempt(node("node-2"), "api", true)],
                    vec![outcome(0, Verdict::Connected)],
                ),
                (vec![attempt(node("node-3"), "api", true)], vec![]),
            ],
            vec!["idle".to_owned()],
        );
        assert_eq!(report.counts(), (3, 1, 2));
        assert!(!report.passed());
        let first = report.first_failure().unwrap();
        assert_eq!(
            (first.from.as_str(), first.host.as_str()),
            ("pod/web", "db")
        );
        let table = report.table().to_string();
        let lines: Vec<String> = table
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "FROM TO ADDRESS RESULT TIME",
                "pod/web api 10.96.0.7:80 ok 1.5 ms",
                "pod/web ai - absent 1.5 ms",
                "pod/web db - FAILED: the DNS knows no such name, but it exists 1.5 ms",
                "2 nodes api 10.96.0.7:80 ok 1.5 ms",
                "node/node-3 api - FAILED: it was not tried 0.0 ms",
            ]
        );
        assert!(
            report
                .summary()
                .ends_with("2 FAILED\nnote: svc/idle has no ready endpoint: nothing to connect to")
        );
    }
}
