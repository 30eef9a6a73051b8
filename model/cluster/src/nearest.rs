//! [`nearest`]: the name that somebody probably meant.

/// The name most like `wanted`, unless none is much like it.
///
/// A name that begins with what was written wins (`frontend` for `frontend-6d5f-x2x`); else the
/// smallest edit distance (Levenshtein), if less than half of the longer name would change.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| {
            let distance = if name.starts_with(wanted) {
                0
            } else {
                edit_distance(wanted, name)
            };
            (distance, name)
        })
        .filter(|(distance, name)| distance * 2 < wanted.len().max(name.len()))
        .min()
        .map(|(_, name)| name)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_nonsense_is_not() {
        let names = || ["frontend-7c9f4", "cartservice", "web"].into_iter();
        assert_eq!(nearest("cartsevice", names()), Some("cartservice"));
        // Pods begin with their Deployment's name.
        assert_eq!(nearest("frontend", names()), Some("frontend-7c9f4"));
        assert_eq!(nearest("postgres", names()), None);
        assert_eq!(nearest("x", std::iter::empty()), None);
    }

    #[test]
    fn distances() {
        for (a, b, d) in [
            ("", "", 0),
            ("a", "", 1),
            ("kitten", "sitting", 3),
            ("web", "wbe", 2),
        ] {
            assert_eq!(edit_distance(a, b), d, "{a} {b}");
        }
    }
}
