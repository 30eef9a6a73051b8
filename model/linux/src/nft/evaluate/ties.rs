//! Base chains of one priority: the kernel calls the newest first, and nobody told here which that is.
//!
//! So every order is tried. Mostly they come out the same: chains that only drop what others let pass
//! anyway, or of which one has nothing to say. If not, the end is unknown, and says of which chains.
//!
//! A hook's nat chains are called by one function of the kernel's (`nf_nat_inet_fn`), one after the other by their own
//! priorities. Among the other chains of its priority, -100 or 100, that function stands where its age puts it.

use super::super::{ChainType, Policy};
use super::walk::{Entry, Walk, at};
use super::weigh::same;
use super::{Branch, End};

/// Orders beyond this are not tried one by one, but only the one that is the other way round.
const MOST_ORDERS: usize = 24;

/// The positions of chains of one age and priority, as far as anybody knows.
type Tie = Vec<usize>;
/// What is called without anything between: one chain, or a hook's nat chains.
type Block = Vec<Tie>;

impl Walk<'_> {
    /// The ways, if they are the same in whatever order chains of one priority are called.
    pub fn in_other_orders(&mut self, ways: Vec<Branch>) -> Vec<Branch> {
        let groups = self.groups();
        for order in orders(&groups) {
            let before = self.chains.clone();
            for (from, to) in order {
                self.chains[to] = before[from].clone();
            }
            let others = self.run();
            self.chains = before;
            if !same(&ways, &others) {
                return vec![self.undecided(&ways, &groups)];
            }
        }
        ways
    }

    /// What is called in an order that nobody knows, by priority.
    fn groups(&self) -> Vec<Vec<Block>> {
        let says = |entry: &Entry<'_>| !entry.rules.is_empty() || entry.base.policy == Policy::Drop;
        let saying: Vec<usize> = (0..self.chains.len())
            .filter(|index| says(&self.chains[*index]))
            .collect();
        let base = |index: &usize| self.chains[*index].base;
        let together = |a: &usize, b: &usize| at(base(a)) == at(base(b));
        let mut groups: Vec<Vec<Block>> = Vec::new();
        for group in saying.chunk_by(together) {
            let (nat, others): (Vec<usize>, Vec<usize>) =
                (group.iter()).partition(|index| base(index).kind == ChainType::Nat);
            let ties = nat.chunk_by(|a, b| base(a).priority == base(b).priority);
            let nat: Block = ties.map(<[usize]>::to_vec).collect();
            let others = others.into_iter().map(|index| vec![vec![index]]);
            groups.push(
                (Some(nat).into_iter())
                    .filter(|nat| !nat.is_empty())
                    .chain(others)
                    .collect(),
            );
        }
        groups.retain(|group| ways_to_call(group) > 1);
        groups
    }

    fn undecided(&self, ways: &[Branch], groups: &[Vec<Block>]) -> Branch {
        let names: Vec<String> = groups
            .iter()
            .flatten()
            .flatten()
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
fn orders(groups: &[Vec<Block>]) -> Vec<Vec<(usize, usize)>> {
    let all = (groups.iter())
        .map(|group| ways_to_call(group))
        .fold(1, usize::saturating_mul);
    let moves = |group: &[Block], called: Vec<usize>| -> Vec<(usize, usize)> {
        called.into_iter().zip(as_they_are(group)).collect()
    };
    if all > MOST_ORDERS {
        let reversed = |group: &Vec<Block>| moves(group, the_other_way_round(group));
        return vec![groups.iter().flat_map(reversed).collect()];
    }
    let mut orders = vec![Vec::new()];
    for group in groups {
        let mut longer = Vec::new();
        for order in &orders {
            for called in every_order(group) {
                let mut order: Vec<(usize, usize)> = order.clone();
                order.extend(moves(group, called));
                longer.push(order);
            }
        }
        orders = longer;
    }
    orders.retain(|order| order.iter().any(|(from, to)| from != to));
    orders
}

fn ways_to_call(group: &[Block]) -> usize {
    let factorial = |of: usize| (1..=of).fold(1, usize::saturating_mul);
    let ties = group.iter().flatten().map(|tie| factorial(tie.len()));
    ties.fold(factorial(group.len()), usize::saturating_mul)
}

fn as_they_are(group: &[Block]) -> Vec<usize> {
    group.iter().flatten().flatten().copied().collect()
}

fn the_other_way_round(group: &[Block]) -> Vec<usize> {
    let blocks = group.iter().rev().flatten();
    blocks.flat_map(|tie| tie.iter().rev().copied()).collect()
}

fn every_order(group: &[Block]) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    for blocks in permutations(group) {
        let mut orders = vec![Vec::new()];
        for tie in blocks.iter().flatten() {
            let longer = |order: &Vec<usize>| -> Vec<Vec<usize>> {
                let permuted = permutations(tie).into_iter();
                permuted
                    .map(|next| [order.as_slice(), &next].concat())
                    .collect()
            };
            orders = orders.iter().flat_map(longer).collect();
        }
        all.append(&mut orders);
    }
    all
}

fn permutations<T: Clone>(of: &[T]) -> Vec<Vec<T>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (index, first) in of.iter().enumerate() {
        let mut rest = of.to_vec();
        rest.remove(index);
        for mut permuted in permutations(&rest) {
            permuted.insert(0, first.clone());
            all.push(permuted);
        }
    }
    all
}
