//! [`Regrouped`]: classes whose groups are others now, where nothing else of them is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::class::{Class, Step, Tier};
use super::group::Group;

/// What becomes of tiers and steps where some groups became others: what classes had in common they still have.
#[derive(Debug)]
pub(super) struct Regrouped<'a> {
    /// As they are now, by name.
    groups: &'a BTreeMap<String, Arc<Group>>,
    /// By chain; `None` names none of the groups.
    tiers: BTreeMap<String, Option<Arc<Tier>>>,
    /// By name; the same.
    steps: BTreeMap<String, Option<Arc<Step>>>,
}

impl<'a> Regrouped<'a> {
    /// These groups are others.
    pub(super) const fn new(groups: &'a BTreeMap<String, Arc<Group>>) -> Self {
        Self {
            groups,
            tiers: BTreeMap::new(),
            steps: BTreeMap::new(),
        }
    }

    /// Lets a class name them.
    pub(super) fn class(&mut self, class: &mut Arc<Class>) {
        let now = class.tiers.iter().map(|tier| self.tier(tier));
        let now: Vec<Option<Arc<Tier>>> = now.collect();
        if now.iter().any(Option::is_some) {
            for (tier, now) in Arc::make_mut(class).tiers.iter_mut().zip(now) {
                *tier = now.unwrap_or_else(|| Arc::clone(tier));
            }
        }
    }

    fn tier(&mut self, tier: &Arc<Tier>) -> Option<Arc<Tier>> {
        if let Some(known) = self.tiers.get(&tier.chain) {
            return known.clone();
        }
        let steps: Vec<Option<Arc<Step>>> = tier.steps.iter().map(|step| self.step(step)).collect();
        let now = steps.iter().any(Option::is_some).then(|| {
            let steps = steps.into_iter().zip(&tier.steps);
            let steps = steps.map(|(now, step)| now.unwrap_or_else(|| Arc::clone(step)));
            Arc::new(Tier {
                steps: steps.collect(),
                ..(**tier).clone()
            })
        });
        self.tiers.insert(tier.chain.clone(), now.clone());
        now
    }

    fn step(&mut self, step: &Arc<Step>) -> Option<Arc<Step>> {
        if let Some(known) = self.steps.get(&step.name) {
            return known.clone();
        }
        let mut names = step.matches.groups.keys();
        let now = names.any(|name| self.groups.contains_key(name)).then(|| {
            let mut now = (**step).clone();
            for (name, (group, _)) in &mut now.matches.groups {
                if let Some(now) = self.groups.get(name) {
                    *group = Arc::clone(now);
                }
            }
            Arc::new(now)
        });
        self.steps.insert(step.name.clone(), now.clone());
        now
    }
}
