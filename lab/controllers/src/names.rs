//! Names of children: chosen by hashing, so that no randomness is needed.
//!
//! Kubernetes draws five random letters for a pod. Here they come from the owner and from which
//! children exist, which has one more virtue: a controller that acts twice on the same picture
//! chooses the same names, and the second create answers AlreadyExists instead of making a double.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Kubernetes' alphabet for generated names: no vowels (no words by accident), nothing that looks
/// like something else (`apimachinery/pkg/util/rand`).
pub const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// `length` letters (at most 24) that depend on all of `parts`.
pub fn suffix(length: usize, parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let digest = hasher.finalize();
    let mut value = digest[..16]
        .iter()
        .fold(0u128, |all, byte| (all << 8) | u128::from(*byte));
    let mut letters = String::with_capacity(length);
    for _ in 0..length {
        letters.push(char::from(ALPHABET[(value % 27) as usize]));
        value /= 27;
    }
    letters
}

/// The `pod-template-hash` of a template: ten letters that change when anything in it does.
pub fn template_hash<T: Serialize>(template: &T) -> String {
    // Field order is the order of the struct and maps are sorted, so equal templates give equal text.
    let text = serde_json::to_string(template).unwrap_or_default();
    suffix(10, &[&text])
}

/// A base cut so that a five-letter suffix fits behind it, as Kubernetes cuts it.
pub fn with_suffix(base: &str, suffix: &str) -> String {
    const MAX_GENERATED: usize = 63 - 6;
    let mut base = base;
    if base.len() > MAX_GENERATED {
        let end = (0..=MAX_GENERATED)
            .rev()
            .find(|i| base.is_char_boundary(*i))
            .unwrap_or(0);
        base = &base[..end];
    }
    format!("{base}-{suffix}")
}

/// Fresh names for children of `owner_uid`: none is `taken`, and while the set of `existing`
/// children stays the same, so do the names.
pub fn fresh_names<'a>(
    base: &'a str,
    owner_uid: &'a str,
    existing: &[&str],
    taken: impl Fn(&str) -> bool + 'a,
) -> impl Iterator<Item = String> + 'a {
    let mut existing = existing.to_vec();
    existing.sort_unstable();
    let seed = existing.join(",");
    (0u64..)
        .map(move |n| with_suffix(base, &suffix(5, &[owner_uid, &seed, &n.to_string()])))
        .filter(move |name| !taken(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_distinct_and_in_the_alphabet() {
        let names: Vec<String> = fresh_names("web", "uid-1", &["a", "b"], |_| false)
            .take(20)
            .collect();
        let again: Vec<String> = fresh_names("web", "uid-1", &["b", "a"], |_| false)
            .take(20)
            .collect();
        assert_eq!(names, again, "the order of the children does not matter");
        assert_eq!(
            names
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            20
        );
        for name in &names {
            let letters = name.strip_prefix("web-").expect("the base comes first");
            assert_eq!(letters.len(), 5);
            assert!(letters.bytes().all(|b| ALPHABET.contains(&b)), "{name}");
        }
        let other: Vec<String> = fresh_names("web", "uid-1", &["a"], |_| false)
            .take(20)
            .collect();
        assert!(
            other.iter().all(|name| !names.contains(name)),
            "another set of children, other names"
        );
    }

    #[test]
    fn a_long_base_is_cut_to_a_dns_label() {
        let name = with_suffix(&"x".repeat(80), "bcdfg");
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("-bcdfg"));
    }
}
