//! Base chains of one priority: the kernel calls the newest first, and nobody told here which that is.
//!
//! So every order is tried. Mostly they come out the same: chains that only drop what others let pass
//! anyway, or of which one has nothing to say. If not, the end is unknown, and says of which chains.

use super::super::{ChainType, Policy};
use super::walk::{Entry, Walk, order};
use super::weigh::same;
use super::{Branch, End};

/// Orders beyond this are not tried one by one, but only the one that is the other way round.
const MOST_ORDERS: usize = 24;

impl Walk<'_> {
    /// The ways, if they are the same in whatever order chains of one priority are called.
    pub fn in_other_orders(&mut self, ways: Vec<Branch>) -> Vec<Branch> {
        let ties = self.ties();
        if ties.is_empty() {
            return ways;
        }
        for next in orders(&ties) {
            let before = self.chains.clone();
            for (from, to) in next {
                self.chains[to] = before[from].clone();
            }
            let others = self.run();
            self.chains = before;
            if !same(&ways, &others) {
                return vec![self.undecided(&ways, &ties)];
            }
        }
        ways
    }

    /// The positions of chains that are called in an order nobody knows, by priority.
    fn ties(&self) -> Vec<Vec<usize>> {
        let mut ties: Vec<Vec<usize>> = Vec::new();
        let says = |entry: &Entry<'_>| !entry.rules.is_empty() || entry.base.policy == Policy::Drop;
        for (index, entry) in self.chains.iter().enumerate().filter(|(_, e)| says(e)) {
            let with = ties.last_mut().filter(|tie| {
                let first = &self.chains[tie[0]].base;
                order(*first) == order(entry.base)
                    && (first.kind == ChainType::Nat) == (entry.base.kind == ChainType::Nat)
            });
            match with {
                Some(tie) => tie.push(index),
                None => ties.push(vec![index]),
            }
        }
        ties.retain(|tie| tie.len() > 1);
        ties
    }

    fn undecided(&self, ways: &[Branch], ties: &[Vec<usize>]) -> Branch {
        let names: Vec<String> = ties
            .iter()
            .flatten()
            .map(|index| &self.chains[*index])
            .map(|entry| format!("{} {} {}", entry.table.family, entry.table.name, entry.name))
            .collect();
        let mut steps = Vec::new();
        for way in ways {
            steps.extend(way.steps.iter().cloned());
        }
        Branch {
            end: End::Unknown(format!("the order of chains: {}", names.join(", "))),
            weight: (1, 1),
            steps,
            ..self.start()
        }
    }
}

/// Which position comes from which, for every order but the one that is there.
fn orders(ties: &[Vec<usize>]) -> Vec<Vec<(usize, usize)>> {
    let all: usize = ties
        .iter()
        .map(|tie| (1..=tie.len()).product::<usize>())
        .fold(1, usize::saturating_mul);
    if all > MOST_ORDERS {
        let reversed = |tie: &Vec<usize>| -> Vec<(usize, usize)> {
            tie.iter().rev().copied().zip(tie.iter().copied()).collect()
        };
        return vec![ties.iter().flat_map(reversed).collect()];
    }
    let mut orders = vec![Vec::new()];
    for tie in ties {
        let mut longer = Vec::new();
        for order in &orders {
            for permuted in permutations(tie) {
                let mut order: Vec<(usize, usize)> = order.clone();
                order.extend(permuted.into_iter().zip(tie.iter().copied()));
                longer.push(order);
            }
        }
        orders = longer;
    }
    orders.retain(|order| order.iter().any(|(from, to)| from != to));
    orders
}

fn permutations(of: &[usize]) -> Vec<Vec<usize>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (index, first) in of.iter().enumerate() {
        let mut rest = of.to_vec();
        rest.remove(index);
        for mut permuted in permutations(&rest) {
            permuted.insert(0, *first);
            all.push(permuted);
        }
    }
    all
}
