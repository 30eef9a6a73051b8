//! [`lacking`]: the kernel's option and module that a refused step needs, since the kernel itself says only that
//! it does not support it.
//!
//! Nothing is probed beforehand: the first round needs everything that the plan needs, a transaction of
//! nf_tables is done whole or not at all, and a feature that no plan needs is not asked for.

/// What a step has in its text, and the feature behind it: the first that fits counts.
const FEATURES: [(&str, &str); 11] = [
    ("type vxlan", "VXLAN: CONFIG_VXLAN, module vxlan"),
    (
        "add chain",
        "NAT: CONFIG_NFT_NAT and CONFIG_NF_CONNTRACK, modules nft_chain_nat and nf_conntrack",
    ),
    (
        "add table",
        "nf_tables of the family: CONFIG_NF_TABLES_IPV4 and CONFIG_NF_TABLES_IPV6, module nf_tables",
    ),
    (
        "fully-random",
        "NAT: CONFIG_NFT_NAT and CONFIG_NFT_MASQ, modules nft_nat and nft_masq",
    ),
    ("dnat", "NAT: CONFIG_NFT_NAT, module nft_nat"),
    ("snat", "NAT: CONFIG_NFT_NAT, module nft_nat"),
    (
        "fib ",
        "routing look-ups: CONFIG_NFT_FIB_IPV4 and CONFIG_NFT_FIB_IPV6, module nft_fib",
    ),
    (
        "reject",
        "refusing packets: CONFIG_NFT_REJECT, module nft_reject",
    ),
    (
        "numgen",
        "random choice: CONFIG_NFT_NUMGEN, module nft_numgen",
    ),
    (
        "limit rate",
        "samples of denied packets: CONFIG_NFT_LIMIT, CONFIG_NFT_LOG and CONFIG_NETFILTER_NETLINK_LOG, modules nft_limit, nft_log and nfnetlink_log",
    ),
    (
        " ct ",
        "connection tracking: CONFIG_NFT_CT and CONFIG_NF_CONNTRACK, modules nft_ct and nf_conntrack",
    ),
];

/// EPROTONOSUPPORT, EOPNOTSUPP and EAFNOSUPPORT of errno(3).
const ABSENT: [i32; 3] = [93, 95, 97];

/// ENOENT, which is what nf_tables says of an expression or chain type that it cannot load.
const NO_SUCH: i32 = 2;

/// What to add to the text of an error about a step; nothing where the kernel does not lack a feature.
pub(crate) fn lacking(text: &str, errno: Option<i32>) -> String {
    let made = text.contains("add chain") || text.contains("add rule");
    let absent = |errno| ABSENT.contains(&errno) || (made && errno == NO_SUCH);
    let found = FEATURES.iter().find(|(word, _)| text.contains(word));
    match found.filter(|_| errno.is_some_and(absent)) {
        Some((_, feature)) => format!(
            ". This kernel seems to lack {feature}: load the module, or use a kernel with the option"
        ),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_named_with_option_and_module() {
        let table = [
            (
                "ip link add pf-vxlan mtu 1450 up type vxlan id 4242",
                95,
                "CONFIG_VXLAN, module vxlan",
            ),
            (
                "nf_tables: add chain ip parfait masquerade",
                2,
                "nft_chain_nat",
            ),
            (
                "nf_tables: add rule ip parfait masquerade ip saddr @own_pods masquerade fully-random",
                2,
                "CONFIG_NFT_MASQ",
            ),
            (
                "nf_tables: add rule ip parfait egress ct direction original",
                95,
                "CONFIG_NF_CONNTRACK",
            ),
        ];
        for (step, errno, wanted) in table {
            let said = lacking(step, Some(errno));
            assert!(said.contains(wanted), "{step}: {said}");
            assert_eq!(lacking(step, Some(105)), "", "{step}: ENOBUFS");
        }
        assert_eq!(lacking("ip route add 10.0.0.0/8", Some(95)), "");
        assert_eq!(
            lacking("nf_tables: delete chain ip parfait masquerade", Some(2)),
            ""
        );
    }
}
