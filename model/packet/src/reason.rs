//! [`Reason`]: the closed list of why a packet is not delivered, or why nobody can tell.
//!
//! Each has a stable code, the layer it belongs to, what usually causes it and what to do. Codes
//! are never reused; new ones go to the end of their layer's first fifty (1xx link, 2xx internet,
//! 3xx transport, 4xx application, 9xx unknown; from x51 on they are [`crate::Fault`]s).

use std::fmt;

use serde::Serialize;
use serde::ser::SerializeStruct;

/// What usually causes a [`Reason`], and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// The usual cause.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// A closed list with stable codes: [`Reason`], and [`crate::Fault`].
macro_rules! coded {
    ($(#[$doc:meta])* $of:ident; $($name:ident $code:literal $layer:ident $what:literal, $cause:literal, $remedy:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $of {
            $(#[doc = concat!($what, ". ", $cause)] $name,)*
        }

        impl $of {
            /// Every one there is, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code, `PF302`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => concat!("PF", $code),)* }
            }

            /// The layer that it belongs to.
            #[must_use]
            pub const fn layer(self) -> crate::Layer {
                match self { $(Self::$name => crate::Layer::$layer,)* }
            }

            /// What happened, in a few words.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }

            /// The usual cause and what to do.
            #[must_use]
            pub const fn remedy(self) -> crate::Remedy {
                match self { $(Self::$name => crate::Remedy { cause: $cause, remedy: $remedy },)* }
            }
        }
    };
}

pub(crate) use coded;

coded! {
    /// Why a packet does not arrive, or why nobody can tell.
    Reason;
    LinkDown "101" Link "the interface is down or missing",
        "The CNI plugin has not run for this pod, or somebody removed the interface.",
        "Look at `parfait lab exec node/N -- ip link`; delete the pod so that it is attached anew.";
    NoNeighbour "103" Link "no link-layer address is known for the next hop",
        "The neighbour entry that Parfait pins is missing.",
        "Restart the agent on that node: it puts back what is missing.";
    TooBig "104" Link "the packet is larger than a wire on its way takes",
        "A tunnel or a smaller MTU lies on the way, and the packet must not be cut (IPv4's DF, which TCP sets; IPv6 always, on the way).",
        "Send smaller packets: the largest is printed. TCP learns it from the ICMP message named above; where it hangs, somebody drops ICMP.";
    NoRoute "201" Internet "no route to the destination",
        "The node has neither a route for this address nor a default route.",
        "Check that the destination's node is Ready and has spec.podCIDRs; for an address outside the cluster, give the node a default route.";
    NoSuchAddress "202" Internet "nobody has this address",
        "The address lies in the cluster's pod network, but no pod has it: the pod is gone, or the address was mistyped.",
        "Use the pod's or Service's name instead of an address.";
    PodNotRunning "203" Internet "the pod has no network yet, or has it no longer",
        "The pod is Pending, being created, or has ended.",
        "See `kubectl describe pod` for the events of its node.";
    FamilyMismatch "204" Internet "the two sides share no IP family",
        "One side has only IPv4 addresses and the other only IPv6.",
        "Make the Service or the cluster dual-stack (spec.ipFamilyPolicy: PreferDualStack).";
    OutsideCluster "207" Internet "the address is outside the cluster and nothing routes there",
        "The underlay has no way out.",
        "Give the network an uplink, or check the address.";
    NotLocal "208" Internet "the node does not own the address",
        "A packet reached a node that neither owns nor forwards its destination.",
        "Compare the routes of the sending node with Node.status.addresses.";
    RoutingLoop "209" Internet "the packet goes in circles until its hop limit ends it",
        "Two nodes each believe the other is nearer to the destination.",
        "Compare the routes printed above; a route of another program overrides Parfait's.";
    PodNotKnown "210" Internet "the node's agent does not know the pod yet, so the pod is isolated",
        "The pod is just being attached, or the agent on its node does not run. Until the agent knows the pod's address, the pod exchanges packets with its own node only.",
        "Wait a moment; if it stays so, see `kubectl describe pod` and whether the agent runs on the pod's node. podIsolation: none in the configuration lets new pods send at once.";
    NoEgressAddress "211" Internet "the pod's node has none of the addresses with which the pod must leave the cluster",
        "An entry of egress.addresses in ConfigMap kube-system/parfait means the pod, and its node has none of the entry's addresses of this family.",
        "Give that node one of the addresses, name one that it has in the entry, or narrow the entry's podSelector.";
    NotAnnounced "212" Internet "no node makes the load balancer's address known, so nobody answers",
        "externalTrafficPolicy is Local and no node has a ready endpoint of the Service, or no node that is Ready could announce it.",
        "See why the Service has no ready endpoints (`kubectl get endpointslices`), run a pod of it where the address can be announced, or set the policy to Cluster.";
    NoEndpoints "301" Transport "the Service has no endpoints, so the connection is refused",
        "No ready pod matches the Service's selector, or none has the port that its targetPort names.",
        "The step above says which; compare spec.selector with the pods' labels (`kubectl get pods --show-labels`), and see why pods are not Ready.";
    NoSuchServicePort "302" Transport "the Service has no such port",
        "The port or protocol is not in the Service's spec.ports.",
        "Use one of the Service's ports, or add the port to the Service.";
    Dropped "304" Transport "a rule drops the packet",
        "A rule in the node's ruleset matches it.",
        "The step above names the rule and the object it comes from.";
    Rejected "305" Transport "a rule rejects the packet",
        "A rule in the node's ruleset matches it.",
        "The step above names the rule and the object it comes from.";
    ReplyFromElsewhere "306" Transport "the reply does not come from the address that was asked",
        "The reply takes a way on which the translation is not undone.",
        "Compare the ways there and back printed above; a route of another program leads around the node that translated.";
    NoService "307" Transport "no Service has this address",
        "The address lies in the cluster's range for Services, but it is none's: the Service was deleted, or the address was mistyped.",
        "Use the Service's name instead of an address.";
    NoLocalEndpoints "308" Transport "the Service has endpoints, but none on this node, and its traffic policy is Local",
        "internalTrafficPolicy or externalTrafficPolicy is Local, and no ready pod of the Service is on the node where the packet is.",
        "Send packets from outside to the nodes that pass the health check (spec.healthCheckNodePort), run a pod on each node, or set the policy to Cluster.";
    SourceNotAllowed "309" Transport "the Service does not take packets from this source",
        "The source lies in none of the Service's spec.loadBalancerSourceRanges.",
        "Add the source's range there, or use another of the Service's addresses.";
    EgressDenied "310" Transport "a policy does not let this out of the sending pod",
        "Policies isolate the pod for egress and none of their rules allows this packet, or a rule denies it.",
        "The step above names the policies, and the rule that came nearest; add a rule to one of them, or a label to the receiver.";
    IngressDenied "311" Transport "a policy does not let this in to the receiving pod",
        "Policies isolate the pod for ingress and none of their rules allows this packet, or a rule denies it.",
        "The step above names the policies, and the rule that came nearest; add a rule to one of them, or a label to the sender.";
    NodeDenied "312" Transport "a policy of the node does not let this in",
        "A rule of a NodeNetworkPolicy denies connections to the node's own processes from there.",
        "The step above names the rule; add a rule that accepts before it. What a node always accepts is on the transport layer's page.";
    PolicyEnded "313" Transport "policies have ended this connection",
        "A policy forbids it since it began; the agent then took it out of conntrack, and what its two ends still send is dropped.",
        "Without --source-port, explain says whether a new one is let through, and by which rule it would be. deniedConnections: keep in the configuration leaves such connections alone.";
    NoSuchName "401" Application "the name does not exist",
        "No Service or pod of that name exists in the namespaces the search list covers.",
        "Check spelling and namespace: a Service in another namespace is NAME.NAMESPACE.";
    NameWithoutAddress "402" Application "the name exists but has no address",
        "A headless Service without ready endpoints, or none in the client's IP family.",
        "See why the Service's pods are not Ready.";
    NotInSnapshot "901" Internet "what is known does not include this object",
        "The folder or cluster that was read has no such object, or access to it was denied.",
        "Add the object, or read a cluster that has it.";
    UnknownUnderlay "902" Link "the underlay of this node is unknown",
        "No Parfait agent has reported the node's interface and MTU.",
        "Run the agent on the node; the prediction then includes its wire.";
    ExternalDestination "903" Internet "what happens outside the cluster cannot be known from here",
        "The packet leaves the cluster through a node's default route.",
        "Try it: `parfait lab exec pod/P -- curl …`.";
    UnknownRule "904" Transport "a rule could not be evaluated",
        "The node's ruleset has a rule of another program with an expression that is not modelled.",
        "Look at the rule named above.";
}

impl fmt::Display for Reason {
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

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Reason", 5)?;
        out.serialize_field("code", self.code())?;
        out.serialize_field("layer", &self.layer())?;
        out.serialize_field("what", self.what())?;
        out.serialize_field("cause", self.remedy().cause)?;
        out.serialize_field("remedy", self.remedy().remedy)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_sorted() {
        let codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    }
}
