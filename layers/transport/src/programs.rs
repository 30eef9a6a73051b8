//! [`Program`]: whose a table or chain is, by the names that programs give theirs; and how to let pods pass there.
//!
//! ```text
//!   table inet firewalld                       firewalld
//!   table ip filter { chain ufw-user-input }   ufw; a `policy drop` beside such chains is likely its own
//! ```
//!
//! Names are all that a ruleset tells of its author. Nobody is kept from using another's names: this explains, and
//! decides nothing. What a program does with several tables or back ends is its own documentation's matter.

use parfait_linux::nft::Table;

/// A program that writes rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// firewalld, with its nftables back end.
    Firewalld,
    /// Ubuntu's uncomplicated firewall.
    Ufw,
    /// Docker.
    Docker,
    /// Podman's netavark.
    Podman,
    /// libvirt's virtual networks.
    Libvirt,
    /// kube-proxy.
    KubeProxy,
}

impl Program {
    const ALL: [Self; 6] = [
        Self::Firewalld,
        Self::Ufw,
        Self::Docker,
        Self::Podman,
        Self::Libvirt,
        Self::KubeProxy,
    ];

    /// Its name, as its own documentation writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firewalld => "firewalld",
            Self::Ufw => "ufw",
            Self::Docker => "Docker",
            Self::Podman => "Podman",
            Self::Libvirt => "libvirt",
            Self::KubeProxy => "kube-proxy",
        }
    }

    /// What lets pods pass, in its own words. CIDR is each pod network of the cluster.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Firewalld => {
                "firewall-cmd --permanent --zone=trusted --add-source=CIDR, then firewall-cmd --reload"
            }
            Self::Ufw => {
                "ufw allow from CIDR, ufw route allow from CIDR and ufw route allow to CIDR"
            }
            Self::Docker => {
                "iptables -I DOCKER-USER -s CIDR -j ACCEPT and iptables -I DOCKER-USER -d CIDR -j ACCEPT; \
                 or \"ip-forward-no-drop\": true in its daemon.json"
            }
            Self::Podman => "podman network ls shows whose network it is; give it another range",
            Self::Libvirt => "virsh net-list shows whose network it is; give it another range",
            Self::KubeProxy => "stop kube-proxy, and start the agent with --take-over kube-proxy",
        }
    }

    /// Whose a chain is. Of a chain that every program shares, as `FORWARD`, those who have chains beside it.
    #[must_use]
    pub fn of(table: &Table, chain: &str) -> Vec<Self> {
        let whose = |chain: &str| {
            let mut all = Self::ALL.into_iter();
            all.find(|program| program.has_table(&table.name) || program.has_chain(chain))
        };
        if let Some(program) = whose(chain) {
            return vec![program];
        }
        let mut beside: Vec<Self> = table.chains.keys().filter_map(|name| whose(name)).collect();
        beside.sort();
        beside.dedup();
        // Its rules stop no pod; who has a policy there is another.
        if beside.len() > 1 {
            beside.retain(|program| *program != Self::KubeProxy);
        }
        beside
    }

    fn has_table(self, name: &str) -> bool {
        match self {
            Self::Firewalld => name == "firewalld",
            Self::Docker => name == "docker-bridges",
            Self::Podman => name == "netavark",
            Self::Libvirt => name == "libvirt_network",
            Self::KubeProxy => name == "kube-proxy",
            Self::Ufw => false,
        }
    }

    fn has_chain(self, name: &str) -> bool {
        match self {
            Self::Ufw => name.starts_with("ufw-") || name.starts_with("ufw6-"),
            Self::Docker => name == "DOCKER" || name.starts_with("DOCKER-"),
            Self::Podman => name.starts_with("NETAVARK"),
            Self::Libvirt => name.starts_with("LIBVIRT_"),
            Self::KubeProxy => crate::kube_proxy::is_its_chain(name),
            Self::Firewalld => false,
        }
    }
}
