//! The few questions the stand-in for PostgreSQL can answer.
//!
//! `SELECT` of literals and of facts about the session, `SHOW`, and the commands that change nothing
//! here (`SET`, `BEGIN`, …). Whatever needs a table gets the error `feature_not_supported`.

/// What a statement results in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Empty,
    /// One row of columns, and the command's tag.
    Row(Vec<Column>, &'static str),
    /// Only a tag, such as `BEGIN`.
    Done(String),
    Error {
        code: &'static str,
        message: String,
    },
}

/// A column of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    /// `None` is NULL.
    pub value: Option<String>,
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int4,
    Text,
}

impl Kind {
    /// The type's object identifier in PostgreSQL's catalogue, and its length (-1: it varies).
    pub fn oid_and_length(self) -> (i32, i16) {
        match self {
            Kind::Bool => (16, 1),
            Kind::Int4 => (23, 4),
            Kind::Text => (25, -1),
        }
    }
}

/// What statements may ask about.
#[derive(Debug, Clone)]
pub struct Facts {
    pub user: String,
    pub database: String,
}

pub const VERSION: &str = "15.0";

/// Runs the statements of a query up to the first error.
pub fn run(sql: &str, facts: &Facts) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for statement in statements(sql) {
        let outcome = run_one(&statement, facts);
        let stop = matches!(outcome, Outcome::Error { .. });
        outcomes.push(outcome);
        if stop {
            break;
        }
    }
    if outcomes.is_empty() {
        outcomes.push(Outcome::Empty);
    }
    outcomes
}

/// Splits at semicolons outside of quotes, and drops comments and empty statements.
fn statements(sql: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut rest = sql;
    let mut quote = None;
    while let Some(c) = rest.chars().next() {
        let last = found.len() - 1;
        if quote.is_none() && rest.starts_with("--") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        if quote.is_none() && rest.starts_with("/*") {
            rest = rest[2..].split_once("*/").map_or("", |(_, after)| after);
            continue;
        }
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        match (quote, c) {
            (None, ';') => found.push(String::new()),
            _ => found[last].push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    let trimmed = found.iter().map(|s| s.trim().to_owned());
    trimmed.filter(|s| !s.is_empty()).collect()
}

fn run_one(statement: &str, facts: &Facts) -> Outcome {
    let (word, rest) = match statement.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim()),
        None => (statement, ""),
    };
    let done = |tag: &str| Outcome::Done(tag.to_owned());
    match word.to_ascii_uppercase().as_str() {
        "SELECT" => match columns(rest, facts) {
            Some(columns) => Outcome::Row(columns, "SELECT 1"),
            None => unsupported(statement),
        },
        "SHOW" => match setting(rest) {
            Some(value) => Outcome::Row(
                vec![Column {
                    name: rest.to_ascii_lowercase(),
                    kind: Kind::Text,
                    value: Some(value.to_owned()),
                }],
                "SHOW",
            ),
            None => Outcome::Error {
                code: "42704",
                message: format!("unrecognized configuration parameter \"{}\"", short(rest)),
            },
        },
        "SET" | "RESET" | "DISCARD" => done("SET"),
        "BEGIN" | "START" => done("BEGIN"),
        "COMMIT" | "END" => done("COMMIT"),
        "ROLLBACK" | "ABORT" => done("ROLLBACK"),
        "DEALLOCATE" => done("DEALLOCATE"),
        _ => unsupported(statement),
    }
}

fn unsupported(statement: &str) -> Outcome {
    Outcome::Error {
        code: "0A000",
        message: format!(
            "this stand-in for PostgreSQL stores nothing and cannot run: {}",
            short(statement)
        ),
    }
}

fn setting(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "server_version" => VERSION,
        "server_encoding" | "client_encoding" => "UTF8",
        "standard_conforming_strings" | "integer_datetimes" => "on",
        "transaction_read_only" | "in_hot_standby" | "is_superuser" => "off",
        "transaction isolation level" | "transaction_isolation" => "read committed",
        "timezone" => "Etc/UTC",
        "datestyle" => "ISO, MDY",
        _ => return None,
    })
}

/// The columns of a SELECT without FROM, if each can be told.
fn columns(list: &str, facts: &Facts) -> Option<Vec<Column>> {
    split_list(list)
        .iter()
        .map(|item| column(item, facts))
        .collect()
}

/// Splits at commas outside of quotes.
fn split_list(list: &str) -> Vec<&str> {
    let mut quoted = false;
    list.split(|c| {
        quoted ^= c == '\'';
        c == ',' && !quoted
    })
    .map(str::trim)
    .collect()
}

fn column(item: &str, facts: &Facts) -> Option<Column> {
    let lower = item.to_ascii_lowercase();
    let (expression, name) = match lower.rfind(" as ").filter(|_| !item.ends_with('\'')) {
        Some(at) => (item[..at].trim(), Some(item[at + 4..].trim())),
        None => (item, None),
    };
    let (usual, kind, value) = value(expression, facts)?;
    Some(Column {
        name: name.unwrap_or(usual).trim_matches('"').to_owned(),
        kind,
        value,
    })
}

fn value(expression: &str, facts: &Facts) -> Option<(&'static str, Kind, Option<String>)> {
    let unnamed = "?column?";
    if expression.parse::<i32>().is_ok() {
        return Some((unnamed, Kind::Int4, Some(expression.to_owned())));
    }
    if let Some(text) = expression
        .strip_prefix('\'')
        .and_then(|e| e.strip_suffix('\''))
    {
        // An odd quote inside means that this is no single literal.
        let text = (!text.replace("''", "").contains('\'')).then(|| text.replace("''", "'"))?;
        return Some((unnamed, Kind::Text, Some(text)));
    }
    Some(match expression.to_ascii_lowercase().as_str() {
        "null" => (unnamed, Kind::Text, None),
        "true" => ("bool", Kind::Bool, Some("t".to_owned())),
        "false" => ("bool", Kind::Bool, Some("f".to_owned())),
        "pg_is_in_recovery()" | "pg_catalog.pg_is_in_recovery()" => {
            ("pg_is_in_recovery", Kind::Bool, Some("f".to_owned()))
        }
        "version()" | "pg_catalog.version()" => {
            let version = format!("PostgreSQL {VERSION} (Parfait's stand-in)");
            ("version", Kind::Text, Some(version))
        }
        "current_user" | "session_user" | "user" => {
            ("current_user", Kind::Text, Some(facts.user.clone()))
        }
        "current_database()" | "pg_catalog.current_database()" => {
            ("current_database", Kind::Text, Some(facts.database.clone()))
        }
        _ => return None,
    })
}

/// The start of a text from outside, for a message.
fn short(text: &str) -> String {
    let cut: String = text.chars().take(80).collect();
    match cut.len() < text.len() {
        true => format!("{cut}…"),
        false => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts() -> Facts {
        Facts {
            user: "me".to_owned(),
            database: "db".to_owned(),
        }
    }

    /// Outcomes in short: columns as `name=value`, tags, error codes.
    fn outcomes(sql: &str) -> Vec<String> {
        run(sql, &facts())
            .into_iter()
            .map(|outcome| match outcome {
                Outcome::Empty => "empty".to_owned(),
                Outcome::Done(tag) => tag,
                Outcome::Error { code, .. } => code.to_owned(),
                Outcome::Row(columns, _) => {
                    let columns = columns.into_iter();
                    let shown =
                        columns.map(|c| format!("{}={}", c.name, c.value.unwrap_or("NULL".into())));
                    shown.collect::<Vec<_>>().join(" ")
                }
            })
            .collect()
    }

    #[test]
    fn questions_and_answers() {
        for (sql, expected) in [
            ("SELECT 1", "?column?=1"),
            (
                "select 1 AS one, 'a,b' as two, null;",
                "one=1 two=a,b ?column?=NULL",
            ),
            ("-- ping", "empty"),
            (";", "empty"),
            ("", "empty"),
            (
                "/* x; */ BEGIN; SELECT current_user; COMMIT",
                "BEGIN|current_user=me|COMMIT",
            ),
            ("SELECT current_database()", "current_database=db"),
            ("SELECT 'it''s'", "?column?=it's"),
            ("SELECT 'a;b'", "?column?=a;b"),
            ("SELECT * FROM t; SELECT 1", "0A000"),
            ("CREATE TABLE t (x int)", "0A000"),
            ("SHOW server_version", "server_version=15.0"),
            ("SHOW nosuch", "42704"),
        ] {
            assert_eq!(outcomes(sql).join("|"), expected, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn no_statement_is_too_strange(sql in ".*", tail in "(SELECT|SHOW|SET) [-'\";,/* a-z0-9]*") {
            run(&sql, &facts());
            run(&tail, &facts());
        }
    }
}
