//! Small questions to nf_tables, one message each: is this element in that set, is there such a
//! table or chain, which chains of others does a packet meet.
//!
//! For callers that cannot afford to read a whole ruleset: the CNI plugin, which must start fast, and
//! a node's status. What is asked for and not there is an answer, not an error.

use parfait_linux::nft::diff::SetType;
use parfait_linux::nft::{BaseChain, Family, Value};
use rustix::io::Errno;

use super::attr::{Writer, find};
use super::execute::family_number;
use super::number::{LIST_ELEM, chain, elem, family as nfproto, msg, table};
use super::observe::{family_of, read_chain};
use super::set::Layout;
use super::socket::{DUMP, Message};
use super::{Error, NftSocket, element};

/// A chain that the kernel calls, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalledChain {
    /// The table's family.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub chain: String,
    /// Where and how it is called.
    pub base: BaseChain,
}

impl NftSocket {
    /// Whether a set holds this key, or, with `flags interval`, one that covers it. The key is of
    /// single values. False as well if there is no such table or set.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or the key is not one of such a set.
    pub fn contains(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        kind: &SetType,
        key: &[Value],
    ) -> Result<bool, Error> {
        let unsupported = |what: &str| Error::Unsupported {
            object: format!("{family} {table} {set}"),
            what: what.to_owned(),
        };
        let layout = Layout::new(kind, family)
            .ok_or_else(|| unsupported("a set of addresses belongs in a table of ip or ip6"))?;
        let bytes = element::exact_key(&layout, key).map_err(|what| unsupported(&what))?;
        self.is_there(msg::GETSETELEM, family, "looking up an element", |writer| {
            writer.put_str(elem::LIST_TABLE, table);
            writer.put_str(elem::LIST_SET, set);
            writer.nest(elem::LIST_ELEMENTS, |writer| {
                writer.nest(LIST_ELEM, |writer| {
                    element::put_key(writer, elem::KEY, &bytes);
                });
            });
        })
    }

    /// Whether there is such a table.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn has_table(&mut self, family: Family, name: &str) -> Result<bool, Error> {
        self.is_there(msg::GETTABLE, family, "looking for a table", |writer| {
            writer.put_str(table::NAME, name);
        })
    }

    /// Whether there is such a chain.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn has_chain(&mut self, family: Family, table: &str, name: &str) -> Result<bool, Error> {
        self.is_there(msg::GETCHAIN, family, "looking for a chain", |writer| {
            writer.put_str(chain::TABLE, table);
            writer.put_str(chain::NAME, name);
        })
    }

    /// The base chains of all tables but those of this name, in the families ip, ip6 and inet.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn foreign_base_chains(&mut self, own: &str) -> Result<Vec<CalledChain>, Error> {
        self.request(
            msg::GETCHAIN,
            DUMP,
            nfproto::UNSPEC,
            "listing chains",
            |_| {},
            |message| {
                let table = find(message.attributes, chain::TABLE)?.str();
                let family = family_of(message.family)?;
                let (chain, found) = read_chain(message.attributes)?;
                let base = found.hook.filter(|_| table != own)?;
                Some(CalledChain {
                    family,
                    table,
                    chain,
                    base,
                })
            },
        )
    }

    fn is_there(
        &mut self,
        kind: u16,
        family: Family,
        operation: &'static str,
        body: impl Fn(&mut Writer),
    ) -> Result<bool, Error> {
        let any = |_: &Message<'_>| Some(());
        match self.request(kind, 0, family_number(family), operation, body, any) {
            Ok(found) => Ok(!found.is_empty()),
            Err(Error::Socket {
                errno: Errno::NOENT,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
