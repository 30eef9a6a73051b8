//! Files that a killed writer, and a machine that loses power, leave whole: write beside, fsync(2),
//! rename(2), fsync the folder.

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
    /// It is written.
    Written,
    /// It has its name, in place of the old one if there was one.
    Renamed,
    /// It and its folder are on the disk.
    Synced,
    /// A file is removed.
    Removed,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::HalfWritten,
        Self::Written,
        Self::Renamed,
        Self::Synced,
        Self::Removed,
    ];
}

/// Called at each [`Moment`].
pub type Hook<'a> = &'a dyn Fn(Moment);

/// Replaces a file, making its folder if need be. Only one writer at a time. Afterwards it is on the
/// disk.
pub(crate) fn replace(path: &Path, content: &[u8], hook: Hook<'_>) -> Result<(), Error> {
    make_folder_of(path)?;
    let beside = path.with_extension("new");
    let file = write(&beside, content, hook)?;
    sync(&file, &beside)?;
    rename(&beside, path, hook)?;
    sync_folder_of(path)?;
    hook(Moment::Synced);
    Ok(())
}

/// Writes a whole file, which may be there already. It is not on the disk yet.
pub(crate) fn write(path: &Path, content: &[u8], hook: Hook<'_>) -> Result<File, Error> {
    let write = || -> std::io::Result<File> {
        let mut file = File::create(path)?;
        hook(Moment::Created);
        let (first, second) = content.split_at(content.len() / 2);
        file.write_all(first)?;
        hook(Moment::HalfWritten);
        file.write_all(second)?;
        hook(Moment::Written);
        Ok(file)
    };
    write().map_err(|error| Error::file("writing", path, &error))
}

/// Gives a file its name.
pub(crate) fn rename(from: &Path, to: &Path, hook: Hook<'_>) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(|error| Error::file("renaming to", to, &error))?;
    hook(Moment::Renamed);
    Ok(())
}

/// Returns when the file's content is on the disk.
pub(crate) fn sync(file: &File, path: &Path) -> Result<(), Error> {
    let synced = file.sync_data();
    synced.map_err(|error| Error::file("writing to the disk:", path, &error))
}

/// Returns when the names in the folder of `path` are on the disk.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), Error> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::file("writing to the disk:", folder, &error))
}

pub(crate) fn make_folder_of(path: &Path) -> Result<(), Error> {
    match path.parent() {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(|error| Error::file("making", folder, &error))
        }
        None => Ok(()),
    }
}
