//! Writes into policies' status whether all of them is used: for the kinds that have one.
//!
//! What an API object says wrong is the same for every agent, so one writes: that of the first node in an order by hash, of
//! those that are Ready. Where that changes, the next one looks at all policies, and finds them as it would have written
//! them. What is written is decided on the object as it is then ([`parfait_kube::accept`]), so that nothing here can
//! be out of date.
//!
//! NetworkPolicies have no status; what is wrong with them is told by Events alone.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use parfait_cluster::{Key, Snapshot};
use parfait_transport::pools;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::once::Once;

/// After this long, what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// Hands over which policies are to be looked at.
pub(crate) struct Accepting {
    node: String,
    policies: mpsc::UnboundedSender<Key>,
    /// Whether this node was the one that writes.
    first: bool,
}

impl Accepting {
    /// Starts the writer, which ends with this value. Must be called inside a tokio runtime.
    pub(crate) fn start(client: &Client, node: &str) -> Self {
        let (policies, told) = mpsc::unbounded_channel();
        tokio::spawn(write(client.clone(), told));
        Self {
            node: node.to_owned(),
            policies,
            first: false,
        }
    }

    /// Takes over what the snapshot says, of which `changed` is new.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) {
        let none = snapshot.cluster_policies.is_empty() && snapshot.node_policies.is_empty();
        let first = !none && pools::writers(snapshot).first() == Some(&&*self.node);
        let anew = first && !self.first;
        self.first = first;
        if !first {
            return;
        }
        let all = anew.then(|| all(snapshot)).into_iter().flatten();
        let keys = all.chain(changed.iter().cloned());
        for key in keys.filter(parfait_kube::has_status) {
            // The writer ends after this.
            let _ = self.policies.send(key);
        }
    }
}

fn all(snapshot: &Snapshot) -> impl Iterator<Item = Key> + '_ {
    let pods = snapshot.cluster_policies.keys().cloned();
    let nodes = snapshot.node_policies.keys().cloned();
    let pods = pods.map(Key::ClusterNetworkPolicy);
    pods.chain(nodes.map(Key::NodeNetworkPolicy))
}

async fn write(client: Client, mut told: mpsc::UnboundedReceiver<Key>) {
    let mut due = BTreeSet::new();
    let mut failures = Once::default();
    loop {
        tokio::select! {
            key = told.recv() => match key {
                Some(key) => drop(due.insert(key)),
                None => return,
            },
            () = sleep(AGAIN), if !due.is_empty() => {}
        }
        while let Ok(key) = told.try_recv() {
            due.insert(key);
        }
        let failure = accept(&client, &mut due).await.err();
        let failure = failure.map(|error| error.to_string());
        for failure in failures.news(failure) {
            tracing::warn!("{failure}; trying again");
        }
    }
}

/// Looks at the policies that are due, until something fails.
async fn accept(client: &Client, due: &mut BTreeSet<Key>) -> Result<(), parfait_kube::Error> {
    while let Some(key) = due.first() {
        parfait_kube::accept(client, key).await?;
        due.pop_first();
    }
    Ok(())
}
