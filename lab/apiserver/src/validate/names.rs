//! Names: RFC 1123 and 1035 labels and subdomains, label keys and values, port names.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation/validation.go`, messages included.

/// How the names of a kind are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, the usual case.
    Subdomain,
    /// RFC 1123 label (Namespaces).
    Label1123,
    /// RFC 1035 label (Services).
    Label1035,
    /// Anything that is one segment of a path (rbac).
    PathSegment,
    /// A canonical IP address (IPAddress).
    IpAddress,
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1123: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

impl NameRule {
    /// What is wrong with a name; nothing if it is right.
    pub fn complaint(self, name: &str) -> Option<String> {
        let fixed = |right: bool, text: &str| (!right).then(|| text.to_owned());
        match self {
            NameRule::Subdomain if name.len() > 253 => {
                Some("must be no more than 253 bytes".to_owned())
            }
            NameRule::Label1123 | NameRule::Label1035 if name.len() > 63 => {
                Some("must be no more than 63 bytes".to_owned())
            }
            NameRule::Subdomain => fixed(name.split('.').all(is_dns_text), SUBDOMAIN),
            NameRule::Label1123 => fixed(is_dns_text(name), LABEL_1123),
            NameRule::Label1035 => fixed(
                is_dns_text(name) && name.starts_with(|c: char| c.is_ascii_lowercase()),
                LABEL_1035,
            ),
            NameRule::PathSegment if name == "." || name == ".." => {
                Some(format!("may not be '{name}'"))
            }
            NameRule::PathSegment => {
                fixed(!name.contains(['/', '%']), "may not contain '/' or '%'")
            }
            NameRule::IpAddress => {
                let canonical = name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|a| a.to_string() == name);
                fixed(canonical, "must be a valid address in canonical form")
            }
        }
    }
}

/// What is wrong with an RFC 1123 label.
pub fn label1123_complaint(text: &str) -> Option<String> {
    NameRule::Label1123.complaint(text)
}

/// A label or annotation key: `[prefix/]name`.
pub fn is_qualified_name(text: &str) -> bool {
    qualified_name_complaint(text).is_none()
}

/// What is wrong with a label or annotation key.
pub fn qualified_name_complaint(text: &str) -> Option<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Some("prefix part must be non-empty".to_owned());
        }
        if let Some(complaint) = NameRule::Subdomain.complaint(prefix) {
            return Some(format!("prefix part {complaint}"));
        }
    }
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".to_owned());
    }
    (!is_token(name)).then(|| QUALIFIED.to_owned())
}

/// A label value: empty or a token of at most 63 bytes.
pub fn is_label_value(text: &str) -> bool {
    label_value_complaint(text).is_none()
}

/// What is wrong with a label value.
pub fn label_value_complaint(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 bytes".to_owned());
    }
    (!text.is_empty() && !is_token(text)).then(|| LABEL_VALUE.to_owned())
}

/// What is wrong with the name of a port (an IANA service name, RFC 6335).
pub fn port_name_complaint(text: &str) -> Option<String> {
    let complaint = if text.len() > 15 {
        "must be no more than 15 characters"
    } else if !text
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    {
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
    } else if !text.chars().any(|c| c.is_ascii_lowercase()) {
        "must contain at least one letter (a-z)"
    } else if text.contains("--") {
        "must not contain consecutive hyphens"
    } else if text.starts_with('-') || text.ends_with('-') {
        "must not begin or end with a hyphen"
    } else {
        return None;
    };
    Some(complaint.to_owned())
}

fn is_dns_text(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(letter)
        && text.ends_with(letter)
        && text.chars().all(|c| letter(c) || c == '-')
}

fn is_token(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(letter)
        && text.ends_with(letter)
        && text.chars().all(|c| letter(c) || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let right = |rule: NameRule, name: &str| rule.complaint(name).is_none();
        for (rule, good, bad) in [
            (
                NameRule::Subdomain,
                &["a", "a.b", "1-a.b"][..],
                &["", "A", "a..b", "-a", "a_b", "a."][..],
            ),
            (NameRule::Label1123, &["a", "0", "a-b"], &["", "a.b", "a-"]),
            (NameRule::Label1035, &["a", "a-0"], &["0a", "", "A"]),
            (
                NameRule::PathSegment,
                &["system:node", "A b"],
                &[".", "..", "a/b", "%"],
            ),
            (
                NameRule::IpAddress,
                &["10.0.0.1", "fd00::1"],
                &["10.0.0.01", "FD00::1", "x"],
            ),
        ] {
            good.iter()
                .for_each(|name| assert!(right(rule, name), "{rule:?} {name}"));
            bad.iter()
                .for_each(|name| assert!(!right(rule, name), "{rule:?} {name}"));
        }
        assert!(label1123_complaint(&"a".repeat(64)).is_some());
        assert!(
            is_qualified_name("app.kubernetes.io/name")
                && !is_qualified_name("/a")
                && !is_qualified_name("a/b/c")
        );
        assert!(is_label_value("") && !is_label_value("a b"));
        assert!(port_name_complaint("http-2").is_none());
        for bad in ["", "80", "a--b", "-a", "Http", "a-very-long-port-name"] {
            assert!(port_name_complaint(bad).is_some(), "{bad}");
        }
    }
}
