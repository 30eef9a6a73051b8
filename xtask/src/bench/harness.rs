//! Samples, rows and tables, the same for every benchmark.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// One thing measured many times, in milliseconds; or in MiB, where the [`Goal`] is.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// One more.
    pub fn push(&mut self, sample: Duration) {
        self.0.push(sample.as_secs_f64() * 1e3);
    }

    /// One more that was measured elsewhere, in the unit of the others.
    pub fn push_number(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// The sample that this part (0 to 100) of all do not exceed.
    pub fn percentile(&self, part: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() * part).div_ceil(100).saturating_sub(1);
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// Samples by what they are of.
pub type Times = BTreeMap<String, Samples>;

/// Takes printed `NAME NUMBER` lines: milliseconds, or KiB of memory.
pub fn read(printed: &str, times: &mut Times) {
    for (name, number) in printed.lines().filter_map(|line| line.split_once(' ')) {
        let number: f64 = number.parse().unwrap_or(f64::NAN);
        let samples = times.entry(name.to_owned()).or_default();
        match name.starts_with("memory") {
            true => samples.push_number(number / 1024.0),
            false => samples.push_number(number),
        }
    }
}

/// What a row is held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// Our median divided by the reference's is at most this.
    Ratio(f64),
    /// Our median is at most this, in milliseconds.
    Milliseconds(f64),
    /// Our median is at most this, in MiB, as the samples are.
    Mebibytes(f64),
    /// None: told because it explains.
    Told,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was done.
    pub name: String,
    /// Ours.
    pub ours: Samples,
    /// The reference's name and samples.
    pub reference: (String, Samples),
    /// What is promised.
    pub goal: Goal,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours.percentile(50) / self.reference.1.percentile(50)
    }

    /// Whether it is not reached. A figure that could not be taken is missed.
    pub fn missed(&self) -> bool {
        let (figure, goal) = match self.goal {
            Goal::Ratio(goal) => (self.ratio(), goal),
            Goal::Milliseconds(goal) | Goal::Mebibytes(goal) => (self.ours.percentile(50), goal),
            Goal::Told => return false,
        };
        figure.is_nan() || figure > goal
    }

    fn verdict(&self) -> (String, &'static str) {
        let said = match self.missed() {
            true => "MISSED",
            false => "pass",
        };
        match self.goal {
            Goal::Ratio(goal) => (format!("ratio {goal:.2}"), said),
            Goal::Milliseconds(goal) => (format!("{goal} ms"), said),
            Goal::Mebibytes(goal) => (format!("{goal} MiB"), said),
            Goal::Told => ("-".to_owned(), "-"),
        }
    }
}

/// For a row that is compared with nothing.
pub fn nobody() -> (String, Samples) {
    ("-".to_owned(), Samples::default())
}

/// For people.
pub fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut out = format!(
        "{:<width$} {:>9} {:>9}  {:<18} {:>9} {:>9} {:>6}  {:<10} {}\n",
        "milliseconds", "median", "p99", "against", "median", "p99", "ratio", "goal", ""
    );
    for row in rows {
        let (goal, verdict) = row.verdict();
        let _ = writeln!(
            out,
            "{:<width$} {:>9} {:>9}  {:<18} {:>9} {:>9} {:>6}  {:<10} {}",
            row.name,
            shown(row.ours.percentile(50)),
            shown(row.ours.percentile(99)),
            row.reference.0,
            shown(row.reference.1.percentile(50)),
            shown(row.reference.1.percentile(99)),
            match row.ratio() {
                ratio if ratio.is_nan() => "-".to_owned(),
                ratio => format!("{ratio:.2}"),
            },
            goal,
            verdict
        );
    }
    out
}

/// What was not measured is a dash; what is small keeps its digits.
fn shown(value: f64) -> String {
    match value {
        value if value.is_nan() => "-".to_owned(),
        value if value < 1.0 => format!("{value:.4}"),
        value => format!("{value:.2}"),
    }
}

/// For programs. No text in it needs escaping: names are ours.
pub fn json(rows: &[Row]) -> String {
    let number = |value: f64| match value.is_finite() {
        true => format!("{value:.4}"),
        false => "null".to_owned(),
    };
    let row = |row: &Row| {
        format!(
            "{{\"name\":\"{}\",\"unit\":\"{}\",\"median\":{},\"p99\":{},\"against\":\"{}\",\"referenceMedian\":{},\"referenceP99\":{},\"ratio\":{},\"goal\":\"{}\",\"missed\":{}}}",
            row.name,
            match row.goal {
                Goal::Mebibytes(_) => "MiB",
                _ => "ms",
            },
            number(row.ours.percentile(50)),
            number(row.ours.percentile(99)),
            row.reference.0,
            number(row.reference.1.percentile(50)),
            number(row.reference.1.percentile(99)),
            number(row.ratio()),
            row.verdict().0,
            row.missed()
        )
    };
    let rows: Vec<String> = rows.iter().map(row).collect();
    format!("[{}]", rows.join(",\n "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(milliseconds: &[u64]) -> Samples {
        Samples(milliseconds.iter().map(|&sample| sample as f64).collect())
    }

    #[test]
    fn medians_are_compared_and_no_sample_is_a_miss() {
        let mut row = Row {
            name: "ADD".to_owned(),
            ours: samples(&[9, 1, 2]),
            reference: ("ptp".to_owned(), samples(&[8, 8, 100])),
            goal: Goal::Ratio(0.25),
        };
        assert!(!row.missed());
        assert!(table(&[row.clone()]).contains("pass"));
        row.goal = Goal::Ratio(0.24);
        assert!(row.missed() && json(&[row.clone()]).contains("\"missed\":true"));
        row.goal = Goal::Milliseconds(2.0);
        assert!(!row.missed());
        row.ours = Samples::default();
        assert!(row.missed());
        assert!((samples(&[1, 2, 3, 4]).percentile(99) - 4.0).abs() < 1e-9);
    }

    #[test]
    fn printed_lines_become_samples_and_memory_becomes_mebibytes() {
        let mut times = Times::new();
        read(
            "change 0.5\nmemory 2048\nchange 1.5\nchange 1.0\nnoise\n",
            &mut times,
        );
        assert!((times["change"].percentile(50) - 1.0).abs() < 1e-9);
        assert!((times["memory"].percentile(50) - 2.0).abs() < 1e-9);
        assert_eq!(times.len(), 2);
    }
}
