//! What rules have counted (`nft list ruleset` shows it behind `counter`): packets by chain.
//!
//! Counts are no part of a table's value, so that traffic is no difference from the plan.

use std::collections::BTreeMap;

use parfait_linux::nft::Family;

use super::attr::{attributes, find};
use super::number::{family as nfproto, msg, rule};
use super::observe::family_of;
use super::socket::DUMP;
use super::{Error, NftSocket};

/// `NFTA_LIST_ELEM`, and `NFTA_COUNTER_PACKETS` of linux/netfilter/nf_tables.h.
const LIST_ELEMENT: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

/// Packets, by family and chain: of chains with rules that count.
pub type Counts = BTreeMap<(Family, String), u64>;

impl NftSocket {
    /// What the rules of a table have counted, summed up by chain.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn counts(&mut self, table: &str) -> Result<Counts, Error> {
        let rules = self.request(
            msg::GETRULE,
            DUMP,
            nfproto::UNSPEC,
            "reading counters",
            |writer| writer.put_str(rule::TABLE, table),
            |message| {
                // Kernels before 4.14 do not heed the table that is asked for.
                find(message.attributes, rule::TABLE).filter(|name| name.str() == table)?;
                let family = family_of(message.family)?;
                let chain = find(message.attributes, rule::CHAIN)?.str();
                let expressions = find(message.attributes, rule::EXPRESSIONS)?;
                Some(((family, chain), counted(expressions.value)?))
            },
        )?;
        let mut counts = Counts::new();
        for (place, packets) in rules {
            let sum: &mut u64 = counts.entry(place).or_default();
            *sum = sum.saturating_add(packets);
        }
        Ok(counts)
    }
}

/// What a rule's counters have counted; `None` if it has none.
fn counted(expressions: &[u8]) -> Option<u64> {
    let elements = attributes(expressions).filter(|one| one.kind == LIST_ELEMENT);
    let counters = elements.filter_map(|one| {
        find(one.value, rule::EXPR_NAME).filter(|name| name.str() == "counter")?;
        let data = find(one.value, rule::EXPR_DATA)?;
        let packets = find(data.value, COUNTER_PACKETS)?.value;
        Some(u64::from_be_bytes(packets.try_into().ok()?))
    });
    counters.reduce(u64::saturating_add)
}
