//! Whether the tunnel's packets are spoiled by a network card: [`offload`].
//!
//! A card that computes checksums inside UDP tunnels, and does it wrong, is among the nastiest troubles:
//! ping works, as its packets are small, and TCP hangs. The receiver's kernel counts and drops what has a
//! wrong outer checksum. The counter is that of all UDP packets, so a few prove nothing.

use parfait_cluster::Note;
use parfait_linux::Offload;
use parfait_packet::{Difference, Fault, Finding, Kind, Origin};

use crate::Plan;

/// So many broken packets come from no cable.
const MANY: u64 = 10;

/// Drivers whose cards have been seen to miscalculate, with the kernels that know better.
const SUSPECTS: [(&str, &str); 2] = [
    ("vmxnet3", "some versions of the hypervisor"),
    ("be2net", "some versions of its firmware"),
];

/// What these facts about the underlay's interface say about the tunnel, if the plan has one.
#[must_use]
pub fn offload(plan: &Plan, facts: &Offload) -> (Option<Finding>, Option<Note>) {
    if plan.tunnel.is_none() {
        return (None, None);
    }
    let origin = Origin::new(Kind::Node, "", &plan.node);
    let on = match facts.tunnel_checksums {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    };
    let driver = match facts.driver.as_str() {
        "" => "unknown",
        driver => driver,
    };
    let card = format!(
        "driver {driver}, tx-udp_tnl-csum-segmentation {on}, kernel {}",
        facts.kernel
    );
    let finding = (facts.checksum_errors >= MANY).then(|| Finding {
        fault: Fault::TunnelChecksum,
        difference: Difference::Extra,
        item: format!(
            "{}: {} UDP packets with wrong checksums",
            facts.link, facts.checksum_errors
        ),
        found: card.clone(),
        origin: Some(origin.clone()),
    });
    let suspect = SUSPECTS.iter().find(|(name, _)| *name == facts.driver);
    let note = suspect.filter(|_| facts.tunnel_checksums == Some(true));
    let note = note.map(|(_, when)| {
        let message = format!(
            "{} ({card}) has been seen to spoil tunnelled packets with {when}: if TCP hangs where ping \
             works, ethtool -K {} tx-udp_tnl-csum-segmentation off",
            facts.link, facts.link
        );
        Note::new(origin, message)
    });
    (finding, note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tunnel;
    use parfait_linux::{IfName, Mac, Mtu, Vni};

    fn plan() -> Plan {
        Plan {
            node: "node-1".to_owned(),
            tunnel: Some(Tunnel {
                device: IfName::new("pf-vxlan").expect("valid"),
                vni: Vni::new(1).expect("valid"),
                local: [192, 168, 77, 11].into(),
                mac: Mac::new([2, 0, 0, 0, 0, 1]),
                mtu: Mtu::ETHERNET,
                origin: Origin::new(Kind::Node, "", "node-1"),
            }),
            ..Plan::default()
        }
    }

    fn facts(driver: &str, on: Option<bool>, errors: u64) -> Offload {
        Offload {
            link: IfName::new("eth0").expect("valid"),
            driver: driver.to_owned(),
            tunnel_checksums: on,
            checksum_errors: errors,
            kernel: "6.1.0".to_owned(),
        }
    }

    #[test]
    fn many_broken_packets_are_told_and_a_few_are_not() {
        assert_eq!(
            offload(&plan(), &facts("ixgbe", Some(true), 9)),
            (None, None)
        );
        let (finding, _) = offload(&plan(), &facts("ixgbe", Some(true), 10));
        assert_eq!(
            finding.expect("told").to_string(),
            "link layer: extra: eth0: 10 UDP packets with wrong checksums (driver ixgbe, \
             tx-udp_tnl-csum-segmentation on, kernel 6.1.0) [Node node-1] (PF162)"
        );
        let none = Plan::default();
        assert_eq!(
            offload(&none, &facts("vmxnet3", Some(true), 99)),
            (None, None)
        );
    }

    #[test]
    fn a_suspicious_card_is_noted_while_it_does_the_work() {
        let noted = |on| offload(&plan(), &facts("vmxnet3", on, 0)).1;
        assert!(
            noted(Some(true))
                .expect("noted")
                .to_string()
                .contains("ethtool -K eth0")
        );
        assert_eq!(noted(Some(false)), None);
        assert_eq!(noted(None), None);
    }
}
