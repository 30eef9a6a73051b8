//! What the server fills in when the user leaves it out, kind by kind.
//!
//! Source: `pkg/apis/*/v1/defaults.go` of Kubernetes, plus the admission plugins that every default cluster runs
//! (ServiceAccount's account name, DefaultTolerationSeconds, Priority). Applied to what comes in, never to what is
//! stored.

pub mod apps;
pub mod network;
pub mod other;
pub mod pod;

/// Sets an absent field.
fn or<T>(field: &mut Option<T>, value: T) {
    if field.is_none() {
        *field = Some(value);
    }
}

/// Sets an absent or empty text.
fn or_text(field: &mut Option<String>, value: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(value.to_owned());
    }
}
