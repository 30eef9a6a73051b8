//! Kubernetes quantities as whole numbers: `128Mi` is 134217728, `0.5` of a CPU with divisor `1m` is 500.
//!
//! Only what the kubelet needs of `apimachinery/pkg/api/resource`: decimal and binary suffixes and
//! exponents, in thousandths, rounded up.

/// The quantity in thousandths of its unit.
pub fn milli(text: &str) -> Option<u128> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (numerator, denominator): (u128, u128) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "" => (1_000, 1),
        "k" => (1_000_000, 1),
        "M" => (10u128.pow(9), 1),
        "G" => (10u128.pow(12), 1),
        "T" => (10u128.pow(15), 1),
        "P" => (10u128.pow(18), 1),
        "E" => (10u128.pow(21), 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000 << 40, 1),
        "Pi" => (1_000 << 50, 1),
        "Ei" => (1_000 << 60, 1),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<u32>().ok()?;
            (10u128.checked_pow(exponent)?.checked_mul(1_000)?, 1)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let value = digits.checked_mul(numerator)?;
    Some(value.div_ceil(denominator * scale))
}

/// The quantity in whole units.
pub fn whole(text: &str) -> Option<u64> {
    u64::try_from(milli(text)?.div_ceil(1_000)).ok()
}

/// The quantity counted in `divisor`s, as `resourceFieldRef` gives it.
pub fn divided(text: &str, divisor: &str) -> Option<u64> {
    let divisor = match milli(divisor)? {
        0 => 1_000,
        d => d,
    };
    u64::try_from(milli(text)?.div_ceil(divisor)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_as_the_api_writes_them() {
        for (text, expected) in [
            ("128Mi", Some(128 << 20)),
            ("1", Some(1)),
            ("1.5Gi", Some(3 << 29)),
            ("100m", Some(1)),
            ("2k", Some(2000)),
            ("1e3", Some(1000)),
            ("", None),
            ("Mi", None),
            ("1.2.3", None),
            ("12 apples", None),
        ] {
            assert_eq!(whole(text), expected, "{text:?}");
        }
        assert_eq!(divided("250m", "1m"), Some(250));
        assert_eq!(divided("0.5", "1"), Some(1));
        assert_eq!(divided("64Mi", "1Mi"), Some(64));
        assert_eq!(divided("64Mi", "0"), Some(64 << 20));
    }
}
