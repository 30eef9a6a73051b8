//! Branches weighed against each other: what is the same, and how probable.

use std::collections::BTreeSet;

use parfait_packet::Packet;

use super::{Branch, End};

/// What there is of a branch besides how it got there.
type Outcome<'a> = (
    &'a Packet,
    [u32; 2],
    Option<u32>,
    [bool; 3],
    &'a BTreeSet<String>,
    &'a End,
);

/// Puts branches together that come out the same; the first one's steps stand for all.
pub fn merge(branches: Vec<Branch>) -> Vec<Branch> {
    let mut merged: Vec<Branch> = Vec::new();
    for branch in branches {
        match merged
            .iter_mut()
            .find(|other| outcome(other) == outcome(&branch))
        {
            Some(other) => other.weight = add(other.weight, branch.weight),
            None => merged.push(branch),
        }
    }
    merged
}

/// Whether the same comes out, with the same probabilities. Of a packet that is dropped nobody asks
/// what it looked like, nor of any what was not found on its way.
pub fn same(left: &[Branch], right: &[Branch]) -> bool {
    let (left, right) = (fates(left), fates(right));
    left.len() == right.len() && left.iter().all(|fate| right.contains(fate))
}

type Fate<'a> = (
    Option<(&'a Packet, [u32; 2], Option<u32>, [bool; 3])>,
    &'a End,
);

fn fates(branches: &[Branch]) -> Vec<(Fate<'_>, (u64, u64))> {
    let mut fates: Vec<(Fate<'_>, (u64, u64))> = Vec::new();
    for branch in branches {
        let (packet, numbers, ct_mark, translated, _, end) = outcome(branch);
        let left = (*end != End::Dropped).then_some((packet, numbers, ct_mark, translated));
        match fates.iter_mut().find(|(fate, _)| *fate == (left, end)) {
            Some((_, weight)) => *weight = add(*weight, branch.weight),
            None => fates.push(((left, end), branch.weight)),
        }
    }
    fates
}

fn outcome(branch: &Branch) -> Outcome<'_> {
    (
        &branch.packet,
        [branch.ct_status, branch.mark],
        branch.ct_mark,
        [branch.untracked, branch.masquerade, branch.snat],
        &branch.missed,
        &branch.end,
    )
}

/// The probability of both.
pub fn multiply(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    reduce(wide(a.0) * wide(b.0), wide(a.1) * wide(b.1))
}

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    reduce(
        wide(a.0) * wide(b.1) + wide(b.0) * wide(a.1),
        wide(a.1) * wide(b.1),
    )
}

fn wide(number: u64) -> u128 {
    u128::from(number)
}

/// In lowest terms; what does not fit then is rounded to what does.
fn reduce(numerator: u128, denominator: u128) -> (u64, u64) {
    let (mut a, mut b) = (numerator, denominator);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let (mut numerator, mut denominator) = (numerator / a.max(1), denominator / a.max(1));
    while denominator > wide(u64::MAX) {
        numerator >>= 1;
        denominator >>= 1;
    }
    let narrow = |number| u64::try_from(number).unwrap_or(u64::MAX);
    (narrow(numerator), narrow(denominator))
}
