//! Telling from a connection's first bytes what its client speaks.
//!
//! The stand-in answers several protocols on one port, which works because the client speaks first in
//! all of them and each opens differently:
//!
//! | opening | protocol |
//! |---|---|
//! | `PRI * HTTP/2.0␍␊␍␊SM␍␊␍␊` | HTTP/2 with prior knowledge, RFC 9113 section 3.4 |
//! | `METHOD target HTTP/1.x` | HTTP/1, RFC 9112 section 3 |
//! | `*2␍␊$…` | Redis, an array of bulk strings |
//! | `16 03` | a TLS handshake, RFC 8446 section 5.1 |
//! | anything else | an echo client |

/// The opening of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A request line longer than this is no request line.
const LONGEST_LINE: usize = 16 * 1024;
/// The methods of RFC 9110 section 9 and RFC 5789.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
];

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    Http1,
    Http2,
    Redis,
    Tls,
    Other,
}

/// What the first bytes say, or `None` while they could still become one thing or another.
pub fn sniff(start: &[u8]) -> Option<Speech> {
    let first = *start.first()?;
    if PREFACE.starts_with(start) {
        return None;
    }
    if start.starts_with(PREFACE) {
        return Some(Speech::Http2);
    }
    match first {
        0x16 => match start.get(1) {
            None => None,
            Some(0x03) => Some(Speech::Tls),
            Some(_) => Some(Speech::Other),
        },
        b'*' => redis(&start[1..]),
        _ => http1(start),
    }
}

/// After the asterisk: a count of at most five digits, the end of the line, and a dollar sign.
fn redis(rest: &[u8]) -> Option<Speech> {
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > 5 {
        return Some(Speech::Other);
    }
    let (tail, wanted) = (&rest[digits..], b"\r\n$".as_slice());
    match (digits, tail.len()) {
        (_, 0) => None,
        (0, _) => Some(Speech::Other),
        (_, n) if n >= wanted.len() => Some(if tail.starts_with(wanted) {
            Speech::Redis
        } else {
            Speech::Other
        }),
        _ if wanted.starts_with(tail) => None,
        _ => Some(Speech::Other),
    }
}

fn http1(start: &[u8]) -> Option<Speech> {
    if METHODS.iter().any(|method| method.starts_with(start)) {
        return None;
    }
    if !METHODS.iter().any(|method| start.starts_with(method)) {
        return Some(Speech::Other);
    }
    match start.iter().position(|b| *b == b'\n') {
        Some(end) => {
            let line = start[..end].strip_suffix(b"\r").unwrap_or(&start[..end]);
            let version = line.rsplit(|b| *b == b' ').next().unwrap_or_default();
            Some(if version.starts_with(b"HTTP/1.") {
                Speech::Http1
            } else {
                Speech::Other
            })
        }
        None if start.len() > LONGEST_LINE => Some(Speech::Other),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_protocol_by_its_opening() {
        for (start, speech) in [
            ("", None),
            ("G", None),
            ("GET / HT", None),
            ("GET / HTTP/1.1\r\n", Some(Speech::Http1)),
            ("GET / HTTP/1.0\n", Some(Speech::Http1)),
            ("GET me a beer\n", Some(Speech::Other)),
            ("GETTING", Some(Speech::Other)),
            ("get / HTTP/1.1\r\n", Some(Speech::Other)),
            ("P", None),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n", None),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0", Some(Speech::Http2)),
            ("PRI * HTTP/3", Some(Speech::Other)),
            ("PING\r\n", Some(Speech::Other)),
            ("*", None),
            ("*1\r\n", None),
            ("*1\r\n$4\r\nPING\r\n", Some(Speech::Redis)),
            ("*x", Some(Speech::Other)),
            ("*1 stars", Some(Speech::Other)),
            ("\u{16}", None),
            ("\u{16}\u{3}\u{1}", Some(Speech::Tls)),
            ("hello\n", Some(Speech::Other)),
        ] {
            assert_eq!(sniff(start.as_bytes()), speech, "{start:?}");
        }
    }

    #[test]
    fn an_endless_request_line_is_given_up() {
        let mut start = b"GET /".to_vec();
        start.resize(LONGEST_LINE + 2, b'a');
        assert_eq!(sniff(&start), Some(Speech::Other));
    }

    proptest! {
        /// Bytes that come later never change what was said, and no bytes are undecided for ever.
        #[test]
        fn a_verdict_stands(start in openings(), more in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut verdict = None;
            let all: Vec<u8> = start.iter().chain(&more).copied().collect();
            for end in 0..=all.len() {
                let now = sniff(&all[..end]);
                prop_assert!(verdict.is_none() || now == verdict);
                verdict = now;
            }
            let mut endless = all;
            endless.resize(endless.len() + LONGEST_LINE + 1, b'x');
            prop_assert!(sniff(&endless).is_some());
        }
    }

    fn openings() -> impl Strategy<Value = Vec<u8>> {
        let known = proptest::sample::select(vec![
            "GET / HTTP/1.1\r\n",
            "POST /x HTTP/1.0\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "*3\r\n$3\r\nSET",
            "\u{16}\u{3}\u{1}",
            "hello\n",
            "PATCH ",
            "*12",
        ]);
        prop_oneof![
            (known, 0usize..30)
                .prop_map(|(text, cut)| text.as_bytes()[..cut.min(text.len())].to_vec()),
            proptest::collection::vec(any::<u8>(), 0..64),
        ]
    }
}
