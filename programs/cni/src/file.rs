//! Replacing a file so that every reader, and a machine that loses power, sees the old content or
//! the new one, whole: write beside it, fsync, rename (rename(2)).
//!
//! The folder is not fsynced: after a power loss the old content may be back. That is harmless here,
//! because no pod outlives one.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::Error;

/// Where a writer may be killed; tests do so at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The new file is made, and empty.
    Created,
    /// Half of it is written.
    HalfWritten,
    /// It is written and fsynced.
    Written,
    /// It has taken the old one's place.
    Renamed,
}

/// Called at each [`Moment`].
pub type Hook<'a> = &'a dyn Fn(Moment);

/// Replaces a file, making its folder if need be. Only one writer at a time.
pub(crate) fn replace(path: &Path, content: &[u8], hook: Hook<'_>) -> Result<(), Error> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Error::file("making", folder, &error))?;
    }
    let beside = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&beside)?;
        hook(Moment::Created);
        let (first, second) = content.split_at(content.len() / 2);
        file.write_all(first)?;
        hook(Moment::HalfWritten);
        file.write_all(second)?;
        file.sync_data()?;
        hook(Moment::Written);
        std::fs::rename(&beside, path)?;
        hook(Moment::Renamed);
        Ok(())
    };
    write().map_err(|error| Error::file("writing", path, &error))
}
