//! How big each ReplicaSet of a Deployment should be now.
//!
//! As Kubernetes' `rolling.go` and `recreate.go`, with one difference: sizes are judged by the pods
//! that exist, not by what the ReplicaSets last reported, so that a stale report cannot break the bounds.

use k8s_openapi::api::apps::v1::Deployment;

use super::{Version, scale};
use crate::selector::{Round, resolve};
use crate::write::Write;

/// The writes that bring the ReplicaSets one safe step nearer to the goal.
pub fn resize(deployment: &Deployment, new: Option<&Version>, old: &[Version]) -> Vec<Write> {
    if is_recreate(deployment) {
        return recreate(deployment, new, old);
    }
    let mut writes = grow_new(deployment, new, old);
    if writes.is_empty() {
        writes = shrink_old(deployment, new, old);
    }
    writes
}

/// A paused Deployment rolls nothing out, but follows `spec.replicas` with the one ReplicaSet in use.
pub fn scale_only(deployment: &Deployment, new: Option<&Version>, old: &[Version]) -> Vec<Write> {
    let mut in_use: Vec<&Version> = new
        .into_iter()
        .chain(old)
        .filter(|v| v.wanted > 0)
        .collect();
    if in_use.is_empty() {
        in_use = new.into_iter().chain(old.last()).take(1).collect();
    }
    match in_use.as_slice() {
        [only] if only.wanted != replicas(deployment) => {
            scale(deployment, only, replicas(deployment))
        }
        _ => Vec::new(),
    }
}

/// Whether the new ReplicaSet may appear: with `Recreate`, not before the last old pod has ended.
pub fn may_create(deployment: &Deployment, old: &[Version]) -> bool {
    !is_recreate(deployment) || old.iter().all(|v| v.wanted == 0 && v.running == 0)
}

/// The size the new ReplicaSet starts with.
pub fn first_size(deployment: &Deployment, old: &[Version]) -> i32 {
    if is_recreate(deployment) {
        replicas(deployment)
    } else {
        room(deployment, 0, old)
    }
}

pub fn replicas(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|s| s.replicas)
        .unwrap_or(1)
        .max(0)
}

/// The most pods that may be active at a time.
pub fn ceiling(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) {
        replicas(deployment)
    } else {
        replicas(deployment) + bounds(deployment).0
    }
}

/// The fewest pods that should be available.
pub fn floor(deployment: &Deployment) -> i32 {
    if is_recreate(deployment) {
        0
    } else {
        (replicas(deployment) - bounds(deployment).1).max(0)
    }
}

/// `(maxSurge, maxUnavailable)` as numbers; never both zero, for then nothing could move.
fn bounds(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let total = replicas(deployment);
    let surge = resolve(
        rolling.and_then(|r| r.max_surge.as_ref()),
        "25%",
        total,
        Round::Up,
    );
    let unavailable = resolve(
        rolling.and_then(|r| r.max_unavailable.as_ref()),
        "25%",
        total,
        Round::Down,
    );
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable.min(total))
    }
}

fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

fn recreate(deployment: &Deployment, new: Option<&Version>, old: &[Version]) -> Vec<Write> {
    let shrinking: Vec<Write> = old
        .iter()
        .filter(|v| v.wanted > 0)
        .flat_map(|v| scale(deployment, v, 0))
        .collect();
    if !shrinking.is_empty() || !may_create(deployment, old) {
        return shrinking;
    }
    match new {
        Some(new) if new.wanted != replicas(deployment) => {
            scale(deployment, new, replicas(deployment))
        }
        _ => Vec::new(),
    }
}

/// How far the new ReplicaSet may go up under the ceiling. A set still removing pods counts
/// with the pods it has.
fn room(deployment: &Deployment, new_wanted: i32, old: &[Version]) -> i32 {
    let others: i32 = old.iter().map(|v| v.wanted.max(v.active)).sum();
    let free = ceiling(deployment) - others - new_wanted;
    (new_wanted + free.max(0)).min(replicas(deployment))
}

fn grow_new(deployment: &Deployment, new: Option<&Version>, old: &[Version]) -> Vec<Write> {
    let Some(new) = new else { return Vec::new() };
    let goal = replicas(deployment);
    if new.wanted > goal {
        return scale(deployment, new, goal);
    }
    let size = room(deployment, new.wanted, old);
    if size > new.wanted {
        scale(deployment, new, size)
    } else {
        Vec::new()
    }
}

/// Old pods that are not available go first: they serve nobody. Then available ones, as many as
/// the floor leaves.
fn shrink_old(deployment: &Deployment, new: Option<&Version>, old: &[Version]) -> Vec<Write> {
    let old_wanted: i32 = old.iter().map(|v| v.wanted).sum();
    if old_wanted == 0 {
        return Vec::new();
    }
    let (new_wanted, new_available) = new.map_or((0, 0), |v| (v.wanted, v.available));
    let available = new_available + old.iter().map(|v| v.available).sum::<i32>();
    // Pods the new ReplicaSet wants but has not got up may take the place of nothing yet.
    let new_unavailable = (new_wanted - new_available).max(0);
    let mut budget = old_wanted + new_wanted - floor(deployment) - new_unavailable;
    let mut sizes: Vec<i32> = old.iter().map(|v| v.wanted).collect();
    for (version, size) in old.iter().zip(&mut sizes) {
        let dead = (version.wanted - version.available).clamp(0, budget.max(0));
        *size -= dead;
        budget -= dead;
    }
    let mut spare = (available - floor(deployment)).min(budget);
    for size in &mut sizes {
        let down = (*size).clamp(0, spare.max(0));
        *size -= down;
        spare -= down;
    }
    old.iter()
        .zip(sizes)
        .filter(|(version, size)| version.wanted != *size)
        .flat_map(|(version, size)| scale(deployment, version, size))
        .collect()
}
