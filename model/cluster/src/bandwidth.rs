//! [`Bandwidth`]: how much a pod may receive and send, as its annotations say. Runtimes hand them to the CNI plugin as
//! the capability `bandwidth`; what they say here is what the plugin was told.

use std::collections::BTreeMap;

use parfait_packet::Origin;

use crate::Note;

/// Limits of a pod, in bits a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// What comes in: the annotation [`Bandwidth::INGRESS`].
    pub ingress: Option<u64>,
    /// What goes out: the annotation [`Bandwidth::EGRESS`].
    pub egress: Option<u64>,
}

impl Bandwidth {
    /// The annotation for what comes in.
    pub const INGRESS: &'static str = "kubernetes.io/ingress-bandwidth";

    /// The annotation for what goes out.
    pub const EGRESS: &'static str = "kubernetes.io/egress-bandwidth";

    pub(crate) fn read(
        annotations: Option<&BTreeMap<String, String>>,
        origin: &Origin,
        notes: &mut Vec<Note>,
    ) -> Self {
        let mut limit = |key: &str| {
            let text = annotations?.get(key)?;
            let bits = bits(text);
            if bits.is_none() {
                let origin = origin
                    .clone()
                    .field(&format!("metadata.annotations[{key}]"));
                let message = format!(
                    "{text:?} is not a rate, like 10M; how the runtime takes it is not known here"
                );
                notes.push(Note::new(origin, message));
            }
            bits
        };
        Self {
            ingress: limit(Self::INGRESS),
            egress: limit(Self::EGRESS),
        }
    }
}

/// `10 Mbit/s`, as exact as it was written.
#[must_use]
pub fn rate(bits: u64) -> String {
    let units = [
        (1_000_000_000, "Gbit/s"),
        (1_000_000, "Mbit/s"),
        (1_000, "kbit/s"),
    ];
    let whole = units
        .into_iter()
        .find(|(unit, _)| bits.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{} {name}", bits / unit),
        None => format!("{bits} bit/s"),
    }
}

/// A quantity of Kubernetes, as far as rates are written so: `10M`, `1.5G`, `512Ki`, `1000000`.
fn bits(text: &str) -> Option<u64> {
    let end = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let decimal = ["", "k", "M", "G", "T", "P"];
    let binary = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let power = |names: [&str; 6], base: u128| {
        let power = names.iter().position(|name| *name == suffix)?;
        base.checked_pow(u32::try_from(power).ok()?)
    };
    let factor = power(decimal, 1000).or_else(|| power(binary, 1024))?;
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{rest}");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || digits.len() > 18 {
        return None;
    }
    let ten = 10u128.checked_pow(u32::try_from(rest.len()).ok()?)?;
    let value = digits.parse::<u128>().ok()?.checked_mul(factor)? / ten;
    u64::try_from(value).ok().filter(|bits| *bits > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_kubernetes_writes_them() {
        for (text, wanted) in [
            ("10M", Some(10_000_000)),
            ("1.5G", Some(1_500_000_000)),
            ("512Ki", Some(524_288)),
            ("1000000", Some(1_000_000)),
            ("0", None),
            ("", None),
            ("fast", None),
            ("10Mbit", None),
            ("-1M", None),
            ("99999999999999999999P", None),
        ] {
            assert_eq!(bits(text), wanted, "{text}");
        }
        assert_eq!(rate(10_000_000), "10 Mbit/s");
        assert_eq!(rate(1_500_000_000), "1500 Mbit/s");
        assert_eq!(rate(524_288), "524288 bit/s");
    }
}
