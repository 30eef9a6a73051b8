//! The plan as links, neighbours and forwarding entries.

use parfait_linux::{FdbEntry, Link, LinkKind, Mtu, Neighbour, State, Vxlan};

use crate::{Attachment, Peer, Plan, Tunnel};

/// What the node's kernel must hold.
///
/// ```text
/// ip link add pf-vxlan address … mtu 1450 type vxlan id 4242 local 192.168.77.11 dstport 4789 nolearning
/// ip neigh replace 10.244.2.1 dev pf-vxlan lladdr … nud permanent
/// bridge fdb replace … dev pf-vxlan dst 192.168.77.12 self permanent
/// ip link show pf3f29…                                          (made by the CNI plugin)
/// ip neigh replace 10.244.1.2 dev pf3f29… lladdr … nud permanent (made by the CNI plugin)
/// ```
#[must_use]
pub fn apply(plan: &Plan) -> State {
    let mut state = State::default();
    if let Some(tunnel) = &plan.tunnel {
        device(tunnel, &mut state);
        for peer in &plan.peers {
            behind(tunnel, peer, &mut state);
        }
    }
    for attachment in &plan.attachments {
        attach(attachment, plan.pod_mtu, &mut state);
    }
    state
}

fn device(tunnel: &Tunnel, state: &mut State) {
    let kind = LinkKind::Vxlan(Vxlan {
        vni: tunnel.vni,
        port: Vxlan::PORT,
        local: tunnel.local,
        learning: false,
    });
    let mut link = Link::new(tunnel.device.clone(), kind);
    link.mac = Some(tunnel.mac);
    link.mtu = tunnel.mtu;
    state.insert(link, tunnel.origin.clone());
}

fn behind(tunnel: &Tunnel, peer: &Peer, state: &mut State) {
    for next_hop in &peer.next_hops {
        let neighbour = Neighbour::permanent(tunnel.device.clone(), *next_hop, peer.mac);
        state.insert(neighbour, peer.origin.clone());
    }
    let entry = FdbEntry {
        link: tunnel.device.clone(),
        mac: peer.mac,
        destination: peer.remote,
    };
    state.insert(entry, peer.origin.clone());
}

fn attach(attachment: &Attachment, mtu: Option<Mtu>, state: &mut State) {
    let mut link = Link::new(attachment.interface.clone(), LinkKind::Veth { peer: None });
    link.mac = Some(attachment.mac);
    link.mtu = mtu.unwrap_or(link.mtu);
    state.insert(link, attachment.origin.clone());
    for address in &attachment.addresses {
        let neighbour =
            Neighbour::permanent(attachment.interface.clone(), *address, attachment.pod_mac);
        state.insert(neighbour, attachment.origin.clone());
    }
}
