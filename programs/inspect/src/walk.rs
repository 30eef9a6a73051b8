//! The walk of one packet through the nodes' planned state, stage by stage.
//!
//! ```text
//!   pod ──▶ enter: prerouting ─▶ routing ─┬─▶ forward ─▶ postrouting ─▶ wire ──▶ next node, or a pod
//!   node ─▶ originate: routing ─▶ output ─┤
//!                                         └─▶ input ─▶ the node itself
//! ```
//!
//! Where a rule chooses at random, the walk splits. A reply walks the same way with the bindings of
//! the packet it answers: at the node that translated, the translation is undone (as conntrack
//! does), and nat chains are not asked.

use std::cell::OnceCell;
use std::net::IpAddr;

use parfait_cluster::Note;
use parfait_linux::conntrack::Entry;
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{Context, Hook, evaluate};
use parfait_linux::{IfName, RouteDecision, Unicast};
use parfait_packet::{Layer, Packet, Reason, Stage};

use crate::hook;
use crate::leg::{Arrival, Binding, Fate, Leg, Step, times};
use crate::memory;
use crate::services;
use crate::tracked;
use crate::world::{Known, World};

/// Walks packets; for replies, `answers` holds the bindings of what they answer.
pub(crate) struct Walker<'w> {
    pub(crate) world: &'w World<'w>,
    pub(crate) answers: Option<&'w [Binding]>,
}

/// A packet inside one node.
pub(crate) struct Inside<'k> {
    pub(crate) name: &'k str,
    pub(crate) known: &'k Known,
    /// The interface it came in on; `None` if the node itself sends it.
    pub(crate) iif: Option<&'k str>,
    /// The packet as the node first saw it.
    pub(crate) seen: Packet,
    /// The connection that it is of, if the node tracks that already.
    pub(crate) tracked: Option<Entry>,
    /// How many endpoints of the Service that it was sent to get no new connections, in words.
    pub(crate) others: OnceCell<String>,
}

impl Inside<'_> {
    pub(crate) fn place(&self) -> String {
        format!("node {}", self.name)
    }
}

impl Walker<'_> {
    /// A packet comes into a node.
    pub(crate) fn enter(&self, node: &str, iif: &str, mut leg: Leg) -> Vec<Arrival> {
        let Some((_, known)) = self.world.node(node) else {
            return vec![leg.ends(Fate::Unknown(Reason::NotInSnapshot))];
        };
        leg.hop_limit = leg.hop_limit.saturating_sub(1);
        if leg.hop_limit == 0 {
            return vec![leg.lost(Reason::RoutingLoop)];
        }
        let tracked = memory::tracked(self, node, &leg.packet);
        (leg.marks, leg.untracked) = (self.unmarked(tracked.as_ref()), false);
        let inside = Inside {
            name: node,
            known,
            iif: Some(iif),
            seen: leg.packet,
            tracked,
            others: OnceCell::new(),
        };
        services::meet(self, &inside);
        tracked::list(self, &inside);
        self.hook(&inside, Hook::Prerouting, None, leg)
            .into_iter()
            .flat_map(|outcome| match outcome {
                Ok(leg) => self.route(&inside, leg),
                Err(arrival) => vec![*arrival],
            })
            .collect()
    }

    /// The marks of a packet that a node has just got: what is not the first of its connection may have the
    /// connection's.
    fn unmarked(&self, tracked: Option<&Entry>) -> (u32, Option<u32>) {
        let first = self.answers.is_none() && tracked.is_none();
        (0, first.then_some(0))
    }

    /// A node sends a packet itself.
    pub(crate) fn originate(&self, node: &str, mut leg: Leg) -> Vec<Arrival> {
        let Some((_, known)) = self.world.node(node) else {
            return vec![leg.ends(Fate::Unknown(Reason::NotInSnapshot))];
        };
        let tracked = memory::tracked(self, node, &leg.packet);
        (leg.marks, leg.untracked) = (self.unmarked(tracked.as_ref()), false);
        let inside = Inside {
            name: node,
            known,
            iif: None,
            seen: leg.packet,
            tracked,
            others: OnceCell::new(),
        };
        services::meet(self, &inside);
        tracked::list(self, &inside);
        // The first routing decision comes before output: without a route nothing is sent.
        let oif = match known.state.route(leg.packet.destination) {
            RouteDecision::Unicast(way) => way.link,
            RouteDecision::Local { .. } => IfName::loopback(),
            decision => return vec![self.no_way(&inside, &decision, leg)],
        };
        self.hook(&inside, Hook::Output, Some(oif.as_str()), leg)
            .into_iter()
            .flat_map(|outcome| match outcome {
                Ok(leg) => self.route(&inside, leg),
                Err(arrival) => vec![*arrival],
            })
            .collect()
    }

    fn route(&self, inside: &Inside<'_>, mut leg: Leg) -> Vec<Arrival> {
        let decision = inside.known.state.route(leg.packet.destination);
        match &decision {
            RouteDecision::Local { .. } => {
                routed(
                    inside,
                    &decision,
                    "the node's own address".to_owned(),
                    &mut leg,
                );
                self.input(inside, leg)
            }
            RouteDecision::Unicast(way) => {
                let to = match way.route.via {
                    Some(via) => format!("to {via} through {}", way.link),
                    None => format!("straight to it through {}", way.link),
                };
                routed(inside, &decision, to, &mut leg);
                self.forward(inside, way, leg)
            }
            RouteDecision::Refused { .. } | RouteDecision::NoRoute => {
                vec![self.no_way(inside, &decision, leg)]
            }
        }
    }

    fn no_way(&self, inside: &Inside<'_>, decision: &RouteDecision, mut leg: Leg) -> Arrival {
        let destination = leg.packet.destination;
        let plan = &inside.known.plan;
        let place = parfait_internet::explain(&plan.internet, self.world.snapshot, destination);
        let (reason, mut what) = hook::unreachable(&place, &leg.packet, inside);
        if let Some(note) = self.no_path(inside, destination) {
            what = format!("{what}: {}", note.message);
        }
        routed(inside, decision, what, &mut leg);
        if plan.link.underlay.is_none() {
            return leg.ends(Fate::Unknown(Reason::UnknownUnderlay));
        }
        leg.lost(reason)
    }

    /// Why the link layer found no path to the node whose pod has an address.
    fn no_path<'k>(&self, inside: &Inside<'k>, destination: IpAddr) -> Option<&'k Note> {
        let nodes = self.world.snapshot.nodes.values();
        let mut cidrs = nodes.flat_map(|node| node.pod_cidrs.iter().map(move |cidr| (node, cidr)));
        let (peer, cidr) = cidrs.find(|(_, cidr)| cidr.contains(&destination))?;
        let notes = inside.known.plan.link.notes.iter();
        let about = notes.filter(|note| note.origin == peer.origin().field(&note.origin.field));
        // One that names the range itself is about this family alone.
        about.max_by_key(|note| note.message.contains(&cidr.to_string()))
    }

    fn input(&self, inside: &Inside<'_>, leg: Leg) -> Vec<Arrival> {
        // A node's packet to itself passes postrouting and prerouting on the loopback; nat chains have
        // had their say at output, and none of ours matches there.
        self.hook(inside, Hook::Input, None, leg)
            .into_iter()
            .map(|outcome| match outcome {
                Ok(mut leg) => {
                    self.bind(inside, &mut leg);
                    crate::deliver::to_node(self.world, inside, leg)
                }
                Err(arrival) => *arrival,
            })
            .collect()
    }

    fn forward(&self, inside: &Inside<'_>, way: &Unicast, leg: Leg) -> Vec<Arrival> {
        let oif = way.link.as_str();
        let forwarded = if inside.iif.is_some() {
            self.hook(inside, Hook::Forward, Some(oif), leg)
        } else {
            vec![Ok(leg)]
        };
        let mut arrivals = Vec::new();
        for outcome in forwarded {
            let passed = match outcome {
                Ok(leg) => self.hook(inside, Hook::Postrouting, Some(oif), leg),
                Err(arrival) => vec![Err(arrival)],
            };
            for outcome in passed {
                match outcome {
                    Ok(mut leg) => {
                        self.bind(inside, &mut leg);
                        arrivals.extend(self.wire(inside, way, leg));
                    }
                    Err(arrival) => arrivals.push(*arrival),
                }
            }
        }
        arrivals
    }

    /// Remembers what this node has translated.
    fn bind(&self, inside: &Inside<'_>, leg: &mut Leg) {
        if self.answers.is_none() && leg.packet != inside.seen {
            leg.bindings.push(Binding {
                node: inside.name.to_owned(),
                before: inside.seen,
                after: leg.packet,
            });
        }
    }

    /// One hook: every way through it, or an end within it.
    fn hook(
        &self,
        inside: &Inside<'_>,
        at: Hook,
        oif: Option<&str>,
        mut leg: Leg,
    ) -> Vec<Result<Leg, Box<Arrival>>> {
        if self.answers.is_some() && matches!(at, Hook::Prerouting | Hook::Output) {
            self.undo(inside, at, &mut leg);
        }
        let address_type = |address| inside.known.address_type(address);
        let mut context = Context::new(leg.packet, &address_type);
        context.iifname = inside.iif;
        context.oifname = oif;
        context.reply = self.answers.is_some();
        (context.mark, context.ct_mark) = leg.marks;
        // What answers a packet is of its connection, whose first packet is not kept here.
        context.original = (!context.reply).then_some(inside.seen);
        context.nat_is_set_up = inside.tracked.is_some();
        if context.reply || inside.tracked.as_ref().is_some_and(Entry::is_answered) {
            context.ct_state = ct_state::ESTABLISHED;
        }
        if leg.untracked {
            context.ct_state = ct_state::UNTRACKED;
        }
        // A reply's destination is translated back before routing, its source only after the forward hook
        // (`nf_nat_packet`), which therefore sees the receiver's own.
        let unseen = (context.reply && at == Hook::Forward).then_some(leg.packet);
        if unseen.is_some() {
            context.packet.source = inside.seen.source;
            context.packet.source_port = inside.seen.source_port;
        }
        if leg.packet.destination != inside.seen.destination {
            context.ct_status = parfait_linux::nft::evaluate::ct_status::DNAT;
        }
        let branches = evaluate(inside.known.tables(), at, &context);
        branches
            .into_iter()
            .map(|mut branch| {
                branch.packet = unseen.unwrap_or(branch.packet);
                let mut leg = leg.clone();
                leg.weight = times(leg.weight, branch.weight);
                let passed = hook::pass(self, inside, at, oif, branch, leg);
                passed.map(|leg| memory::follow(self, inside, at, leg))
            })
            .collect()
    }

    /// Undoes, for a reply, what this node did to the packet it answers.
    fn undo(&self, inside: &Inside<'_>, at: Hook, leg: &mut Leg) {
        let bindings = self.answers.unwrap_or_default();
        let translated = leg.packet;
        let Some(binding) = bindings
            .iter()
            .find(|b| b.node == inside.name && b.after.reply() == translated)
        else {
            return;
        };
        leg.packet = binding.before.reply();
        leg.step(Step {
            place: &inside.place(),
            stage: hook::stage(at),
            layer: Layer::Transport,
            what: format!(
                "conntrack undoes the translation: {translated} becomes {}",
                leg.packet
            ),
            evidence: String::new(),
            origins: Vec::new(),
        });
    }
}

fn routed(inside: &Inside<'_>, decision: &RouteDecision, what: String, leg: &mut Leg) {
    leg.step(Step {
        place: &inside.place(),
        stage: Stage::Routing,
        layer: Layer::Internet,
        what,
        evidence: decision.to_string(),
        origins: decision.origin().cloned().into_iter().collect(),
    });
}
