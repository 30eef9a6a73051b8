//! A transport plan in the kernel, and endpoints of it that change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use parfait_cluster::{Endpoint, EndpointSlice, Key, Object, ObjectName, Snapshot};
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::diff::apply as carry_out;
use parfait_linux::nft::{NftStep, Table, Tables, diff};
use parfait_transport::{Lowered, Plan, plan, replan};

use crate::large::OURS;
use crate::told::{told, told_memory};

/// What an agent remembers.
pub struct Whole {
    plan: Plan,
    lowered: Lowered,
    tables: Tables,
    socket: NftSocket,
    generation: u32,
}

impl Whole {
    /// Plans all, and makes an empty kernel equal to it.
    pub fn plan(snapshot: &Snapshot) -> Self {
        let mut socket = NftSocket::open().expect("a netlink socket");
        let start = Instant::now();
        let plan = plan(snapshot, OURS);
        told("first-plan", start);
        told_memory("memory-first-plan", "VmRSS");
        let start = Instant::now();
        let lowered = Lowered::new(&plan);
        let tables = keyed(parfait_transport::apply(&plan));
        told("first-lower", start);
        told_memory("memory-first-lower", "VmRSS");
        let start = Instant::now();
        let steps = diff(&Tables::new(), &tables);
        told("first-diff", start);
        told_memory("memory-first-diff", "VmRSS");
        let start = Instant::now();
        socket.execute(&steps).expect("a kernel that takes it");
        told("first-kernel", start);
        told_memory("memory-first-kernel", "VmRSS");
        drop(steps);
        let observed = socket.observe(|_, _| false);
        Self {
            generation: observed.expect("a kernel that answers").generation,
            plan,
            lowered,
            tables,
            socket,
        }
    }

    /// How many elements the kernel holds.
    pub fn elements(&self) -> usize {
        let sets = self.tables.values().flat_map(|table| table.sets.values());
        sets.map(|set| set.elements.len()).sum()
    }

    /// The tables as planned.
    pub fn desired(&self) -> Vec<Table> {
        parfait_transport::apply(&self.plan)
    }

    /// Endpoints change: from the events to the kernel, at the cost of what they touch.
    pub fn change(&mut self, snapshot: &mut Snapshot, random: &mut Random, count: u32, name: &str) {
        let changed: Vec<Object> = (0..count).map(|_| random.next(snapshot)).collect();
        let keys: BTreeSet<Key> = changed.iter().map(Object::key).collect();
        let start = Instant::now();
        for object in changed {
            snapshot.insert(object);
        }
        let changes = replan(&mut self.plan, snapshot, &keys);
        told(&format!("{name}-plan"), start);
        let part = Instant::now();
        let patch = self.lowered.reapply(&self.plan, &changes);
        told(&format!("{name}-lower"), part);
        let part = Instant::now();
        let steps = diff(&patch.before, &patch.after);
        told(&format!("{name}-diff"), part);
        self.carry_out(&steps, name);
        told(name, start);
    }

    /// One endpoint changes, and everything is planned and compared anew.
    pub fn compare_all(&mut self, snapshot: &mut Snapshot, random: &mut Random) {
        let changed = random.next(snapshot);
        let keys = BTreeSet::from([changed.key()]);
        let start = Instant::now();
        snapshot.insert(changed);
        let fresh = plan(snapshot, OURS);
        let tables = keyed(parfait_transport::apply(&fresh));
        let steps = diff(&self.tables, &tables);
        self.carry_out(&steps, "whole");
        told("whole", start);
        let changes = replan(&mut self.plan, snapshot, &keys);
        let _ = self.lowered.reapply(&self.plan, &changes);
    }

    fn carry_out(&mut self, steps: &[NftStep], name: &str) {
        if steps.is_empty() {
            return;
        }
        let part = Instant::now();
        let done = self.socket.execute_at(steps, self.generation);
        done.expect("a kernel that takes it");
        self.generation = self.generation.wrapping_add(1).max(1);
        told(&format!("{name}-kernel"), part);
        let part = Instant::now();
        for step in steps {
            carry_out(&mut self.tables, step);
        }
        told(&format!("{name}-known"), part);
    }
}

fn keyed(tables: Vec<Table>) -> Tables {
    tables
        .into_iter()
        .map(|table| (table.key(), table))
        .collect()
}

/// Endpoints that become ready or stop being it, one in each slice that chance picks.
pub struct Random {
    slices: Vec<ObjectName>,
    at: usize,
}

impl Random {
    /// Among all slices of the snapshot.
    pub fn new(snapshot: &Snapshot) -> Self {
        Self {
            slices: snapshot.slices.keys().cloned().collect(),
            at: 0,
        }
    }

    /// Changes one in place, and says which.
    pub fn toggle(&mut self, snapshot: &mut Snapshot) -> Key {
        let changed = self.next(snapshot);
        let key = changed.key();
        snapshot.insert(changed);
        key
    }

    fn next(&mut self, snapshot: &Snapshot) -> Object {
        // A prime far from the number of slices comes to all of them, in no order.
        self.at = (self.at + 1_000_003) % self.slices.len();
        let mut slice = EndpointSlice::clone(&snapshot.slices[&self.slices[self.at]]);
        let endpoint = &mut slice.endpoints[0];
        let ready = !endpoint.ready;
        *endpoint = Arc::new(Endpoint {
            ready,
            serving: ready,
            ..Endpoint::clone(endpoint)
        });
        Object::EndpointSlice(slice)
    }
}
