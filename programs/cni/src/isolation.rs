//! Isolated until known, where the agent has not made its tables yet: after a reboot, pods may be started before the agent.
//! Then the plugin makes the tables with nobody known in them, before a pod has an interface, so that none is ever open.
//! The rules are the internet layer's ([`parfait_internet::isolation`]); the agent finds them and goes on from there.

use parfait_internet::isolation::nobody_known;
use parfait_kernel::nft::{Error as NftError, NftSocket};
use parfait_linux::nft::{Tables, diff};

use crate::error::{Code, Error};

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
