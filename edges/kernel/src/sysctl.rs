//! Reading and writing settings below /proc/sys/net, in the network namespace of the *calling
//! thread* (the kernel looks at who opens the file).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use parfait_linux::{Sysctl, SysctlKey};

use crate::Error;
use crate::error::errno_of;

/// Reads a setting, without the line's end.
///
/// # Errors
/// If there is no such setting, or it cannot be read.
pub fn read(key: &SysctlKey) -> Result<String, Error> {
    let path = key.path();
    match std::fs::read_to_string(format!("/proc/sys/{path}")) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(error) => Err(Error::Sysctl {
            operation: "reading".to_owned(),
            path,
            errno: errno_of(&error),
        }),
    }
}

/// Writes a setting, unless it has the value already, or one that will do: where /proc/sys is read-only, what is right
/// need not be written.
///
/// # Errors
/// If there is no such setting, or it cannot be written.
pub fn write(sysctl: &Sysctl) -> Result<(), Error> {
    let path = sysctl.key.path();
    let file = format!("/proc/sys/{path}");
    // Opening is what costs: once for both.
    let (opened, writable) = match File::options().read(true).write(true).open(&file) {
        Ok(opened) => (Ok(opened), Ok(())),
        Err(error) => (File::open(&file), Err(error)),
    };
    let done = opened.and_then(|mut opened| {
        let mut text = String::new();
        opened.read_to_string(&mut text)?;
        let found = Sysctl::new(sysctl.key.clone(), text.trim_end());
        match found.satisfies(sysctl) {
            true => Ok(()),
            // The kernel takes a value only at the file's beginning.
            false => writable.and_then(|()| opened.write_all_at(sysctl.value.as_bytes(), 0)),
        }
    });
    done.map_err(|error| Error::Sysctl {
        operation: format!("writing {:?} to", sysctl.value),
        path,
        errno: errno_of(&error),
    })
}
