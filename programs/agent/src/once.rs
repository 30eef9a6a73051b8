//! [`Once`]: what goes on for a while is said when it begins, not at every turn.

use std::collections::BTreeSet;

/// What was said last time.
#[derive(Debug)]
pub(crate) struct Once<T>(BTreeSet<T>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Ord + Clone> Once<T> {
    /// What is new about what there is to say now.
    pub(crate) fn news(&mut self, now: impl IntoIterator<Item = T>) -> Vec<T> {
        let now: BTreeSet<T> = now.into_iter().collect();
        let new = now.difference(&self.0).cloned().collect();
        self.0 = now;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_said_again_when_it_comes_back() {
        let mut once = Once::default();
        assert_eq!(once.news(["a", "b"]), ["a", "b"]);
        assert_eq!(once.news(["a", "c"]), ["c"]);
        assert_eq!(once.news(["b"]), ["b"]);
    }
}
