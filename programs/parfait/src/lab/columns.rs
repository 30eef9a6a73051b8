//! Tables for people, as kubectl prints them: columns, no lines, no blanks at the end.

use std::fmt;

use comfy_table::{Table, presets};

/// Columns under a header.
#[derive(Debug)]
pub struct Columns(Table);

impl Columns {
    /// A table without rows.
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(table)
    }

    /// One more row.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.0.add_row(cells);
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        f.write_str(&lines.join("\n"))
    }
}
