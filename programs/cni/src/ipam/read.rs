//! Reading the allocations, without any lock: for the agent and for `parfait node status`.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::ipam::store::Store;
use crate::record::Record;

/// The folder whose entries change with every allocation: for inotify(7). A record appears whole
/// (`IN_MOVED_TO`) and goes whole (`IN_DELETE`). It may not be there yet.
#[must_use]
pub fn folder(state_dir: &Path) -> PathBuf {
    Store::new(state_dir).attachments()
}

/// Every allocation of this node, ordered by address as text. What cannot be read (one damaged file)
/// is told beside the rest, and hides nothing else. Addresses that were found in use without a record
/// are not in it. No folder: nothing is allocated.
///
/// Takes no lock: what is allocated meanwhile is in it or not, but always whole.
///
/// # Errors
/// If the folder cannot be read, or is of a newer version.
pub fn read_all(state_dir: &Path) -> Result<(Vec<Record>, Vec<Error>), Error> {
    let store = Store::new(state_dir);
    let (mut records, mut errors) = (Vec::new(), Vec::new());
    if !store.is_ours()? {
        return Ok((records, errors));
    }
    for name in store.names()? {
        match store.read(&name) {
            Ok(Some(record)) if !name.found() => records.push(record),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    Ok((records, errors))
}
