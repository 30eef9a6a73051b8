//! The server's messages: answers to the simple and to the extended query protocol.

use super::query::{self, Column, Facts, Kind, Outcome};
use super::wire::{Body, Out};
use std::collections::BTreeMap;

/// Prepared statements and portals a session may hold.
const MOST_NAMES: usize = 256;

/// An error to send to the client.
#[derive(Debug)]
pub struct Refusal {
    pub code: &'static str,
    pub message: String,
}

impl Refusal {
    fn malformed() -> Refusal {
        Refusal {
            code: "08P01",
            message: "malformed or unknown message".to_owned(),
        }
    }

    fn no_such(name: &str) -> Refusal {
        Refusal {
            code: "26000",
            message: format!("prepared statement or portal \"{name}\" does not exist"),
        }
    }
}

/// Answers a query of the simple protocol.
pub fn simple(sql: &str, facts: &Facts) -> Out {
    let mut out = Out::default();
    for outcome in query::run(sql, facts) {
        out = describe(out, &outcome, Format::Text);
        out = execute(out, &outcome, Format::Text);
    }
    ready(out)
}

/// What a session has prepared, by name: statements, and the portals bound to them.
#[derive(Default)]
pub struct Names {
    statements: BTreeMap<String, (Outcome, Format)>,
    portals: BTreeMap<String, (Outcome, Format)>,
}

impl Names {
    /// Answers a message of the extended protocol.
    pub fn extended(&mut self, kind: u8, body: Body<'_>, facts: &Facts) -> Result<Out, Refusal> {
        match kind {
            b'P' => self.parse(body, facts),
            b'B' => self.bind(body),
            b'D' => self.describe(body),
            b'E' => self.execute(body),
            b'C' => self.close(body),
            _ => Err(Refusal::malformed()),
        }
    }

    /// A statement gets a name.
    fn parse(&mut self, mut body: Body<'_>, facts: &Facts) -> Result<Out, Refusal> {
        let name = body.text().ok_or_else(Refusal::malformed)?;
        let sql = body.text().ok_or_else(Refusal::malformed)?;
        let first = query::run(sql, facts).swap_remove(0);
        if let Outcome::Error { code, message } = first {
            return Err(Refusal { code, message });
        }
        keep(&mut self.statements, name, (first, Format::Text))?;
        Ok(Out::default().message(b'1', &[]))
    }

    /// A statement becomes a portal. No statement here has parameters.
    fn bind(&mut self, mut body: Body<'_>) -> Result<Out, Refusal> {
        let portal = body.text().ok_or_else(Refusal::malformed)?;
        let name = body.text().ok_or_else(Refusal::malformed)?;
        let format = result_format(body).ok_or_else(Refusal::malformed)?;
        let statement = self.statements.get(name);
        let (outcome, _) = statement.ok_or_else(|| Refusal::no_such(name))?;
        keep(&mut self.portals, portal, (outcome.clone(), format))?;
        Ok(Out::default().message(b'2', &[]))
    }

    fn describe(&self, mut body: Body<'_>) -> Result<Out, Refusal> {
        let of = body.byte().ok_or_else(Refusal::malformed)?;
        let name = body.text().ok_or_else(Refusal::malformed)?;
        let (known, out) = match of {
            b'S' => (&self.statements, Out::default().message(b't', &[&[0, 0]])),
            _ => (&self.portals, Out::default()),
        };
        let (outcome, format) = known.get(name).ok_or_else(|| Refusal::no_such(name))?;
        Ok(match outcome {
            Outcome::Row(..) => describe(out, outcome, *format),
            _ => out.message(b'n', &[]),
        })
    }

    fn execute(&self, mut body: Body<'_>) -> Result<Out, Refusal> {
        let name = body.text().ok_or_else(Refusal::malformed)?;
        let portal = self.portals.get(name);
        let (outcome, format) = portal.ok_or_else(|| Refusal::no_such(name))?;
        Ok(execute(Out::default(), outcome, *format))
    }

    fn close(&mut self, mut body: Body<'_>) -> Result<Out, Refusal> {
        let of = body.byte().ok_or_else(Refusal::malformed)?;
        let name = body.text().ok_or_else(Refusal::malformed)?;
        match of {
            b'S' => self.statements.remove(name),
            _ => self.portals.remove(name),
        };
        Ok(Out::default().message(b'3', &[]))
    }
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Binary,
}

/// The end of a Bind message: formats of parameters, parameters, formats of results. Several formats
/// that differ are taken for the first, as there is rarely more than one column.
fn result_format(mut body: Body<'_>) -> Option<Format> {
    for _ in 0..body.i16()? {
        body.i16()?;
    }
    for _ in 0..body.i16()? {
        let length = body.i32()?;
        body.bytes(usize::try_from(length).unwrap_or(0))?;
    }
    match body.i16()? {
        1.. if body.i16()? == 1 => Some(Format::Binary),
        _ => Some(Format::Text),
    }
}

fn keep<T>(names: &mut BTreeMap<String, T>, name: &str, what: T) -> Result<(), Refusal> {
    if names.len() >= MOST_NAMES && !names.contains_key(name) {
        return Err(Refusal {
            code: "53000",
            message: "too many prepared statements for this stand-in".to_owned(),
        });
    }
    names.insert(name.to_owned(), what);
    Ok(())
}

/// RowDescription, for what has rows.
fn describe(out: Out, outcome: &Outcome, format: Format) -> Out {
    let Outcome::Row(columns, _) = outcome else {
        return out;
    };
    let mut body = (columns.len() as i16).to_be_bytes().to_vec();
    for column in columns {
        let (oid, length) = column.kind.oid_and_length();
        body.extend_from_slice(column.name.as_bytes());
        body.push(0);
        // No table, no column of one.
        body.extend([0; 6]);
        body.extend(oid.to_be_bytes());
        body.extend(length.to_be_bytes());
        // No type modifier.
        body.extend((-1i32).to_be_bytes());
        body.extend([0, u8::from(format == Format::Binary)]);
    }
    out.message(b'T', &[&body])
}

/// DataRow and CommandComplete, or what comes in their place.
fn execute(out: Out, outcome: &Outcome, format: Format) -> Out {
    match outcome {
        Outcome::Empty => out.message(b'I', &[]),
        Outcome::Done(tag) => out.message(b'C', &[tag.as_bytes(), b"\0"]),
        Outcome::Error { code, message } => error(out, "ERROR", code, message),
        Outcome::Row(columns, tag) => {
            let mut body = (columns.len() as i16).to_be_bytes().to_vec();
            for column in columns {
                match written(column, format) {
                    Some(value) => {
                        body.extend((value.len() as i32).to_be_bytes());
                        body.extend(value);
                    }
                    None => body.extend((-1i32).to_be_bytes()),
                }
            }
            let out = out.message(b'D', &[&body]);
            out.message(b'C', &[tag.as_bytes(), b"\0"])
        }
    }
}

/// A value as its type is written in the format; `None` is NULL.
fn written(column: &Column, format: Format) -> Option<Vec<u8>> {
    let text = column.value.as_ref()?;
    Some(match (format, column.kind) {
        (Format::Binary, Kind::Int4) => text.parse::<i32>().unwrap_or(0).to_be_bytes().to_vec(),
        (Format::Binary, Kind::Bool) => vec![u8::from(text == "t")],
        (Format::Text, _) | (Format::Binary, Kind::Text) => text.clone().into_bytes(),
    })
}

/// Adds ReadyForQuery: the session is idle, in no transaction.
pub fn ready(out: Out) -> Out {
    out.message(b'Z', &[b"I"])
}

/// Adds an ErrorResponse.
pub fn error(out: Out, severity: &str, code: &str, message: &str) -> Out {
    let mut body = Vec::new();
    for (field, value) in [
        (b'S', severity),
        (b'V', severity),
        (b'C', code),
        (b'M', message),
    ] {
        body.push(field);
        body.extend(value.bytes().filter(|b| *b != 0));
        body.push(0);
    }
    body.push(0);
    out.message(b'E', &[&body])
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

    #[test]
    fn a_driver_may_ask_for_binary_values() {
        let mut names = Names::default();
        let mut say = |kind, body: &[u8]| names.extended(kind, Body(body), &facts()).unwrap().0;
        say(b'P', b"s\0SELECT 7\0\0\0");
        say(b'B', b"\0s\0\0\0\0\0\0\x01\0\x01");
        let row = say(b'E', b"\0\0\0\0\0");
        assert_eq!(&row[..15], b"D\0\0\0\x0e\0\x01\0\0\0\x04\0\0\0\x07");
        say(b'B', b"\0s\0\0\0\0\0\0\0");
        let row = say(b'E', b"\0\0\0\0\0");
        assert_eq!(&row[..12], b"D\0\0\0\x0b\0\x01\0\0\0\x017");
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange(
            said in proptest::collection::vec((proptest::sample::select(b"PBDECSx".to_vec()),
                proptest::collection::vec(0u8..4, 0..24)), 0..16)
        ) {
            let mut names = Names::default();
            for (kind, body) in said {
                let _ = names.extended(kind, Body(&body), &facts());
            }
        }
    }
}
