//! Comparing what a command printed with what its story expects.
//!
//! | written | stands for |
//! |---|---|
//! | `...` alone on a line | any lines, or none |
//! | `[..]` | any text within the line, or none |
//! | `[IP]` | an IPv4 or IPv6 address |
//! | `[N]` | digits |
//! | `[TIME]` | a duration (`3s`, `1m20s`, `0.4 ms`) or a moment (`2026-01-31T12:00:00Z`) |
//! | blanks within the line | as many blanks, or more or fewer, but not none |
//!
//! Everything else stands for itself, other brackets included. Blanks at the end of a line and empty
//! lines at the end of the output do not count.

use std::net::IpAddr;

/// Where the output left the expectation.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// The first expected line that has no counterpart; none if the output goes on too long.
    pub expected: Option<&'a str>,
    /// The line that was printed there; none if the output ended.
    pub printed: Option<&'a str>,
}

/// Compares all lines; on failure says where the longest match ended.
pub fn compare<'a>(expected: &'a [String], printed: &'a str) -> Result<(), Difference<'a>> {
    let printed: Vec<&str> = printed.trim_end().lines().collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let kept = expected.iter().rposition(|line| !line.trim().is_empty());
    let expected = &expected[..kept.map_or(0, |last| last + 1)];
    let mut furthest = (0, 0);
    if lines_match(expected, &printed, (0, 0), &mut furthest) {
        return Ok(());
    }
    Err(Difference {
        expected: expected.get(furthest.0).copied(),
        printed: printed.get(furthest.1).copied(),
    })
}

/// Whether a line that was printed matches a line of a story.
pub fn line_matches(expected: &str, printed: &str) -> bool {
    let pieces = pieces(expected.trim_end());
    let text: Vec<char> = printed.trim_end().chars().collect();
    pieces_match(&pieces, &text)
}

fn lines_match(
    expected: &[&str],
    printed: &[&str],
    at: (usize, usize),
    furthest: &mut (usize, usize),
) -> bool {
    let (mut e, mut p) = at;
    while let Some(line) = expected.get(e) {
        if line.trim() == "..." {
            return (p..=printed.len())
                .any(|next| lines_match(expected, printed, (e + 1, next), furthest));
        }
        // After `...` many starts are tried: the one that came furthest in the story is worth telling.
        if e > furthest.0 || (e, p) == at && *furthest == (0, 0) {
            *furthest = (e, p);
        }
        match printed.get(p) {
            Some(text) if line_matches(line, text) => (e, p) = (e + 1, p + 1),
            _ => return false,
        }
    }
    if e >= furthest.0 {
        *furthest = (e, p);
    }
    p == printed.len()
}

/// A part of an expected line.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Char(char),
    Blanks,
    Any,
    Address,
    Number,
    Time,
}

fn pieces(line: &str) -> Vec<Piece> {
    let named = [
        ("[..]", (|| Piece::Any) as fn() -> Piece),
        ("[IP]", || Piece::Address),
        ("[N]", || Piece::Number),
        ("[TIME]", || Piece::Time),
    ];
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some((mark, piece)) = named.iter().find(|(mark, _)| rest.starts_with(mark)) {
            found.push(piece());
            rest = &rest[mark.len()..];
        } else if c == ' ' && !found.is_empty() {
            found.push(Piece::Blanks);
            rest = rest.trim_start_matches(' ');
        } else {
            found.push(Piece::Char(c));
            rest = &rest[c.len_utf8()..];
        }
    }
    found
}

fn pieces_match(pieces: &[Piece], text: &[char]) -> bool {
    let Some((piece, rest)) = pieces.split_first() else {
        return text.is_empty();
    };
    let try_each = |fits: fn(&str) -> bool| {
        let longest = text.iter().take_while(|c| **c != '\t').count();
        (1..=longest).rev().any(|n| {
            let part: String = text[..n].iter().collect();
            fits(&part) && pieces_match(rest, &text[n..])
        })
    };
    match piece {
        Piece::Char(c) => text.first() == Some(c) && pieces_match(rest, &text[1..]),
        Piece::Blanks => {
            let blanks = text.iter().take_while(|c| **c == ' ').count();
            blanks > 0 && pieces_match(rest, &text[blanks..])
        }
        Piece::Any => (0..=text.len()).any(|n| pieces_match(rest, &text[n..])),
        Piece::Address => try_each(|part| part.parse::<IpAddr>().is_ok()),
        Piece::Number => try_each(|part| part.bytes().all(|b| b.is_ascii_digit())),
        Piece::Time => try_each(|part| is_duration(part) || is_moment(part)),
    }
}

/// `3s`, `1m20s`, `0.4 ms`.
fn is_duration(part: &str) -> bool {
    let mut rest = part;
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - digits.len()];
        if number.parse::<f64>().is_err() {
            return false;
        }
        let unit = digits.trim_start_matches(' ');
        let Some(name) = ["ns", "µs", "us", "ms", "s", "m", "h", "d"]
            .iter()
            .find(|name| unit.starts_with(*name))
        else {
            return false;
        };
        rest = &unit[name.len()..];
    }
    !part.is_empty()
}

/// `2026-01-31T12:00:00Z`, with or without a fraction; a time of day alone, `12:00:00`.
fn is_moment(part: &str) -> bool {
    let time = match part.split_once('T') {
        Some((date, time)) if shaped(date, "dddd-dd-dd") => time.trim_end_matches('Z'),
        Some(_) => return false,
        None => part,
    };
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    shaped(whole, "dd:dd:dd") && fraction.bytes().all(|b| b.is_ascii_digit())
}

fn shaped(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(c, s)| match s {
            b'd' => c.is_ascii_digit(),
            _ => c == s,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_match_and_lines_that_do_not() {
        let cases = [
            ("plain", "plain", true),
            ("plain", "plain text", false),
            ("plain  ", "plain   ", true),
            ("a [..] z", "a to z", true),
            ("a[..]z", "az", true),
            ("a[..]b[..]c", "aXbYbZc", true),
            ("a[..]b", "acd", false),
            ("to [IP]:80", "to 10.96.0.1:80", true),
            ("to [[IP]]:80", "to [fd00:10:96::1]:80", true),
            ("to [IP]", "to 10.96.0.256", false),
            ("[IP]", "", false),
            ("[N] nodes", "12 nodes", true),
            ("[N] nodes", "some nodes", false),
            ("[N] nodes", " nodes", false),
            ("in [TIME].", "in 1m20s.", true),
            ("in [TIME]", "in 0.4 ms", true),
            ("in [TIME]", "in 4 apples", false),
            ("[TIME] ok", "2026-01-31T12:00:00.123Z ok", true),
            ("[TIME]", "12:34:56", true),
            ("[TIME]", "2026-01-31", false),
            ("NAME  READY", "NAME          READY", true),
            ("NAME READY", "NAMEREADY", false),
            ("  indented", "  indented", true),
            ("  indented", "indented", false),
            ("[other] [N", "[other] [N", true),
            ("é [..] ü", "é ö ü", true),
        ];
        for (expected, printed, matches) in cases {
            assert_eq!(
                line_matches(expected, printed),
                matches,
                "{expected} | {printed}"
            );
        }
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_string).collect()
    }

    #[test]
    fn outputs_that_match() {
        for (expected, printed) in [
            ("", ""),
            ("", "\n\n"),
            ("a\nb", "a\nb\n"),
            ("a\nb\n\n", "a\nb"),
            ("...", ""),
            ("...", "a\nb"),
            ("...\nb", "a\na\nb"),
            ("a\n...", "a\nb\nc"),
            ("a\n...\nz", "a\nz"),
            ("...\nb\n...\nb", "a\nb\nc\nb"),
            ("...\nb\nc", "b\na\nb\nc"),
        ] {
            assert_eq!(
                compare(&lines(expected), printed),
                Ok(()),
                "{expected} | {printed}"
            );
        }
    }

    #[test]
    fn outputs_that_differ_say_where() {
        for (expected, printed, e, p) in [
            ("a", "", Some("a"), None),
            ("", "a", None, Some("a")),
            ("a\nb", "a\nc", Some("b"), Some("c")),
            ("a", "a\nb", None, Some("b")),
            ("a\nb", "a", Some("b"), None),
            ("a\n...\nb\nc", "a\nx\nb\nd", Some("c"), Some("d")),
        ] {
            let difference = Difference {
                expected: e,
                printed: p,
            };
            assert_eq!(
                compare(&lines(expected), printed),
                Err(difference),
                "{expected} | {printed}"
            );
        }
    }
}
