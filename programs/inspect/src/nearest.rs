//! [`nearest`]: the name that somebody probably meant.

/// The candidate that takes the fewest edits to reach, if it takes few enough to be a likely slip, or
/// else the first that begins with the text (as pods begin with their Deployment's name).
#[must_use]
pub fn nearest(text: &str, candidates: impl IntoIterator<Item = String>) -> Option<String> {
    let candidates: Vec<_> = candidates.into_iter().collect();
    let close = candidates
        .iter()
        .map(|candidate| (distance(text, candidate), candidate))
        .filter(|(edits, candidate)| *edits <= candidate.chars().count().max(3) / 3)
        .min();
    let begins = || {
        candidates
            .iter()
            .find(|candidate| candidate.starts_with(text))
    };
    close
        .map(|(_, candidate)| candidate)
        .or_else(begins)
        .cloned()
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_nonsense_is_not() {
        let names = || ["frontend-7c9f4", "cartservice", "web"].map(String::from);
        assert_eq!(
            nearest("cartsevice", names()).as_deref(),
            Some("cartservice")
        );
        assert_eq!(
            nearest("frontend", names()).as_deref(),
            Some("frontend-7c9f4")
        );
        assert_eq!(nearest("postgres", names()), None);
        assert_eq!(nearest("x", []), None);
    }
}
