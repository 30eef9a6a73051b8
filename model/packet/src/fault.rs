//! [`Fault`]: the closed list of what can be wrong with a node, as [`crate::Finding`]s name it.
//!
//! Each has a stable code, the layer it belongs to, what usually causes it and what to do. Codes are
//! never reused; they share the numbers of [`crate::Reason`], from the 51st of each layer's hundred on.

use std::fmt;

use crate::reason::coded;

coded! {
    /// What is wrong with a node.
    Fault;
    LinkMissing "151" Link "an interface is missing",
        "Somebody removed it; a pod's (pf and twelve digits) is also missing while the CNI plugin has not run.",
        "The agent makes its own anew. For a pod's, delete the pod: it is attached anew.";
    LinkDown "152" Link "an interface is down",
        "Somebody set it down, or, where it has no carrier, the other end is down.",
        "ip link set dev NAME up, at the end that is down.";
    WrongMtu "153" Link "an interface's MTU is not what its path carries",
        "Somebody changed it, or the underlay's MTU changed since.",
        "The agent puts its own right. A pod keeps the MTU it started with: the node answers larger packets with the size that fits (ICMP), which TCP follows. Delete the pod, and it is attached anew with the right one.";
    LinkDifferent "154" Link "an interface is not as planned",
        "Somebody changed it, or another program made one of that name.",
        "The agent puts its own right. For a pod's, delete the pod: it is attached anew.";
    LinkExtra "155" Link "an interface belongs to no pod",
        "A pod's DEL was lost: its sandbox is gone, its interface is not.",
        "It goes at the container runtime's next GC; else ip link del NAME.";
    UnderlayLost "156" Link "the interface of the node's address is not as the Node says",
        "The interface is down, or was renamed, or its address or MTU changed.",
        "Put it right, or wait: the agent reports a new address or MTU by itself.";
    NeighbourMissing "157" Link "a pinned neighbour entry is missing",
        "Somebody flushed the neighbour table, or set the interface down.",
        "The agent puts it back; is it running?";
    NeighbourDifferent "158" Link "a pinned neighbour entry is not as planned",
        "Somebody changed it.",
        "The agent puts it right; is it running?";
    NeighbourExtra "159" Link "a neighbour entry is pinned for nobody",
        "Somebody added it, or the agent was not running when a node or pod went.",
        "The agent removes it; is it running?";
    FdbMissing "160" Link "a forwarding entry of the tunnel is missing",
        "Somebody removed it (bridge fdb), or made it lead elsewhere.",
        "The agent puts it back; is it running?";
    FdbExtra "161" Link "a forwarding entry of the tunnel is for no node",
        "Somebody added it (bridge fdb), or the agent was not running when a node went.",
        "The agent removes it; is it running?";
    TunnelChecksum "162" Link "tunnelled packets arrive with wrong checksums",
        "A network card, or the machine's virtual one, miscalculates the checksums of packets inside UDP.",
        "Turn the offload off at the senders: ethtool -K DEVICE tx-udp_tnl-csum-segmentation off tx-udp_tnl-segmentation off; where that does not help, ethtool -K pf-vxlan tx-checksum-ip-generic off.";
    Unlimited "163" Link "a pod's token bucket is not as it was asked for",
        "Somebody changed the queue of the pod's interface (tc qdisc), or the runtime handed on another limit.",
        "Delete the pod: it is attached anew with its limits.";
    RouteMissing "251" Internet "a route is missing",
        "Somebody removed it, or its interface was down for a moment: the kernel then drops an interface's routes.",
        "The agent puts its own back; a pod's (proto 113) too, if the pod's interface is there. Is it running?";
    RouteDifferent "252" Internet "a route is not as planned",
        "Somebody changed it, or another routing program has the same destination.",
        "The agent puts its own right. Another program's must go: see its proto, and stop who adds it.";
    RouteExtra "253" Internet "a route leads to nobody",
        "Somebody added it with Parfait's protocol number, or the agent was not running when a node or pod went.",
        "The agent removes its own (proto 112); is it running?";
    RouteOverridden "254" Internet "another program's route overrides a planned one",
        "A VPN, a container engine or an administrator uses addresses of the cluster's pod network.",
        "Remove that route, or give the cluster another range (clusterCIDRs).";
    AddressMissing "255" Internet "an address is missing",
        "Somebody removed it, or set its interface down.",
        "The agent puts it back; is it running?";
    AddressDifferent "256" Internet "an address is not as planned",
        "Somebody changed its scope or flags, or made it in the agent's place.",
        "The agent puts its own right; is it running? Another program's it leaves alone: ip address del ADDRESS dev NAME.";
    AddressWithoutOwner "257" Internet "an address of the cluster's ranges is where nobody planned it",
        "Somebody added it to an interface: what is sent to that pod or Service ends here instead.",
        "ip address del ADDRESS dev NAME; or give the cluster another range (clusterCIDRs).";
    DuplicateAddress "258" Internet "two have the same address",
        "Two nodes were given overlapping pod CIDRs, a node was cloned with its state, or somebody added an address by hand.",
        "Delete one of the pods; for nodes, give each its own InternalIP and spec.podCIDRs.";
    SysctlDifferent "259" Internet "a setting is not as planned",
        "Somebody, or a program at boot (/etc/sysctl.d), changed it.",
        "The agent puts it right. If it comes back, remove it from /etc/sysctl.d.";
    MasqueradeDifferent "260" Internet "the rules for pods' addresses are not as planned",
        "Somebody changed table parfait, or reloaded a ruleset with `flush ruleset`.",
        "The agent puts it right; is it running?";
    ServicesDifferent "351" Transport "the rules for Services are not as planned",
        "Somebody changed table parfait, or reloaded a ruleset with `flush ruleset`.",
        "The agent puts it right; is it running?";
    ForeignDrop "352" Transport "another program's rule stops pods' packets",
        "A firewall (firewalld, ufw, a container engine's) lets nothing through that it does not know.",
        "Let the pod network pass in that program's own configuration, or remove the rule: nft delete rule FAMILY TABLE CHAIN handle N.";
    ForeignUnknown "353" Transport "another program's rule may stop pods' packets",
        "The rule has an expression that is not modelled, so nobody can say here.",
        "Look at the rule (nft -a list table FAMILY TABLE), or try a connection.";
    KubeProxyPresent "354" Transport "kube-proxy's rules are here as well",
        "kube-proxy runs on this node, or ran and left its rules behind.",
        "Stop it (kubectl -n kube-system delete daemonset kube-proxy), and start the agent with --take-over kube-proxy.";
    PolicyDifferent "355" Transport "the rules for NetworkPolicies are not as planned",
        "Somebody changed table parfait, or reloaded a ruleset with `flush ruleset`.",
        "The agent puts it right; is it running?";
    NameDifferent "451" Application "cluster DNS does not answer as planned",
        "The agent has not followed the API server, or another program listens at the address.",
        "Look at the agent's log; restart it.";
}

const AGENT: &str = "The agent ";

impl Fault {
    /// Whether it is the agent that puts it right.
    #[must_use]
    pub fn is_put_right(self) -> bool {
        self.remedy().remedy.starts_with(AGENT)
    }

    /// What to do where the agent leaves what others change (`foreignChanges: report`): it does not put it right.
    #[must_use]
    pub fn remedy_where_left(self) -> String {
        let usual = self.remedy().remedy;
        if !self.is_put_right() {
            return usual.to_owned();
        }
        let rest = usual.split_once(". ").map_or("", |(_, rest)| rest);
        let left = "The agent leaves it, as foreignChanges is report: restart the agent, or set foreignChanges: restore. ";
        format!("{left}{rest}").trim_end().to_owned()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} layer, {})",
            self.what(),
            self.layer(),
            self.code()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    #[test]
    fn nothing_is_said_to_be_put_right_where_it_is_left() {
        for fault in Fault::ALL {
            let remedy = fault.remedy_where_left();
            assert!(!remedy.contains("agent puts"), "{remedy}");
            assert!(!remedy.contains("agent removes"), "{remedy}");
            assert!(!remedy.contains("agent makes"), "{remedy}");
        }
        let mtu = Fault::WrongMtu.remedy_where_left();
        assert!(mtu.contains("restart the agent"), "{mtu}");
        assert!(mtu.contains("Delete the pod"), "{mtu}");
        let overridden = Fault::RouteOverridden;
        assert_eq!(overridden.remedy_where_left(), overridden.remedy().remedy);
    }

    #[test]
    fn codes_are_sorted_and_not_those_of_reasons() {
        let codes: Vec<_> = Fault::ALL.iter().map(|fault| fault.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
        for reason in Reason::ALL {
            assert!(!codes.contains(&reason.code()), "{reason}");
        }
    }
}
