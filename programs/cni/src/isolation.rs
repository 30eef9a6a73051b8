//! Isolated until known, where the agent has not made its tables yet: after a reboot, pods may be started before the agent.
//! Then the plugin makes the tables with nobody known in them, before a pod has an interface, so that none is ever open.
//! The rules are the internet layer's ([`parfait_internet::isolation`]); the agent finds them and goes on from there.
//!
//! And where the agent was not there to take a pod that ended out of the known ones: a successor of the same name may get
//! the same address, and is another pod.

use std::net::IpAddr;

use parfait_internet::isolation::{KNOWN, KnownPods, isolation, nobody_known};
use parfait_kernel::nft::{Error as NftError, NftSocket};
use parfait_linux::IfName;
use parfait_linux::nft::diff::SetType;
use parfait_linux::nft::{Family as TableFamily, Table, Tables, Value, diff};
use parfait_packet::{Family, Origin};
use rustix::io::Errno;

use crate::error::{Code, Error};

/// The agent's tables.
const TABLE: &str = "parfait";

/// How often it is tried again when somebody else changes rules meanwhile.
const TRIES: usize = 20;

/// Makes the tables that are missing. What is there is the agent's.
pub(crate) fn close() -> Result<(), Error> {
    try_close().map_err(|error| {
        let message = format!("isolating pods until the agent knows them: {error}");
        Error::new(Code::Io, message).advise(
            "This kernel needs nf_tables. podIsolation: none in the ConfigMap kube-system/parfait lets pods start without.",
        )
    })
}

fn try_close() -> Result<(), NftError> {
    let mut socket = NftSocket::open()?;
    for _ in 0..TRIES {
        if missing(&mut socket)?.is_empty() {
            return Ok(());
        }
        // Looked at again after the number is known, so that nothing is made twice.
        let generation = socket.observe(|_, _| false)?.generation;
        let steps = diff(&Tables::new(), &missing(&mut socket)?);
        match socket.execute_at(&steps, generation) {
            Err(NftError::Changed) => {}
            done => return done,
        }
    }
    Err(NftError::Changed)
}

fn missing(socket: &mut NftSocket) -> Result<Tables, NftError> {
    let mut missing = Tables::new();
    for table in nobody_known() {
        if !socket.has_table(table.family, &table.name)? {
            missing.insert((table.family, table.name.clone()), table);
        }
    }
    Ok(missing)
}

/// Nobody is known at these places afterwards. Two questions where nobody was.
pub(crate) fn isolate(interface: &IfName, addresses: &[IpAddr]) -> Result<(), Error> {
    try_isolate(interface, addresses).map_err(|error| {
        let message = format!("isolating {interface} from whom the agent knew there: {error}");
        Error::new(Code::Io, message).advise("Try again; the agent does it when it is up.")
    })
}

fn try_isolate(interface: &IfName, addresses: &[IpAddr]) -> Result<(), NftError> {
    let mut socket = NftSocket::open()?;
    for _ in 0..TRIES {
        let (known, nobody) = known(&mut socket, interface, addresses)?;
        if known.is_empty() {
            return Ok(());
        }
        match socket.execute(&diff(&known, &nobody)) {
            // The agent came first.
            Err(error) if error.errno() == Some(Errno::NOENT) => {}
            done => return done,
        }
    }
    Err(NftError::Changed)
}

/// The sets with those of these places that are known, and without.
fn known(
    socket: &mut NftSocket,
    interface: &IfName,
    addresses: &[IpAddr],
) -> Result<(Tables, Tables), NftError> {
    let (mut known, mut nobody) = (Tables::new(), Tables::new());
    for address in addresses {
        let family = Family::of(*address);
        let in_tables = match family {
            Family::Ipv4 => TableFamily::Ip,
            Family::Ipv6 => TableFamily::Ip6,
        };
        let place = ((interface.clone(), *address), Origin::parfait("isolation"));
        let (set, _) = isolation(&KnownPods::from([place]), [], family);
        let key = [
            Value::Ifname(interface.to_string()),
            Value::Address(*address),
        ];
        if !socket.contains(in_tables, TABLE, KNOWN, &SetType::of(&set), &key)? {
            continue;
        }
        let mut emptied = set.clone();
        emptied.elements.clear();
        for (tables, set) in [(&mut known, set), (&mut nobody, emptied)] {
            let table = Table::new(in_tables, TABLE).set(KNOWN, set);
            tables.insert((in_tables, TABLE.to_owned()), table);
        }
    }
    Ok((known, nobody))
}
