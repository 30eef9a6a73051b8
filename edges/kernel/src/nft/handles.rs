//! The numbers of rules, as `nft -a list ruleset` prints them: what a person needs to delete one.
//!
//! They are not part of a table's value, because the kernel gives them.

use std::collections::BTreeMap;

use parfait_linux::nft::Family;

use super::attr::find;
use super::number::{family as nfproto, msg, rule};
use super::observe::family_of;
use super::socket::DUMP;
use super::{Error, NftSocket};

/// The numbers of rules, in their order, by family, table and chain.
pub type Handles = BTreeMap<(Family, String, String), Vec<u64>>;

impl NftSocket {
    /// The rules' numbers by family, table and chain, in the rules' order.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn handles(&mut self) -> Result<Handles, Error> {
        let rules = self.request(
            msg::GETRULE,
            DUMP,
            nfproto::UNSPEC,
            "listing rules",
            |_| {},
            |message| {
                let family = family_of(message.family)?;
                let table = find(message.attributes, rule::TABLE)?.str();
                let chain = find(message.attributes, rule::CHAIN)?.str();
                let handle = find(message.attributes, rule::HANDLE)?.value;
                let handle = u64::from_be_bytes(handle.try_into().ok()?);
                Some(((family, table, chain), handle))
            },
        )?;
        let mut handles = Handles::new();
        for (place, handle) in rules {
            handles.entry(place).or_default().push(handle);
        }
        Ok(handles)
    }
}
