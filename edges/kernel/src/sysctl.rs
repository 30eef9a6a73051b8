//! Reading and writing settings below /proc/sys/net, in the network namespace of the *calling
//! thread* (the kernel looks at who opens the file).

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
    let found = read(&sysctl.key).map(|value| Sysctl::new(sysctl.key.clone(), &value));
    if found.is_ok_and(|found| found.satisfies(sysctl)) {
        return Ok(());
    }
    let path = sysctl.key.path();
    std::fs::write(format!("/proc/sys/{path}"), &sysctl.value).map_err(|error| Error::Sysctl {
        operation: format!("writing {:?} to", sysctl.value),
        path,
        errno: errno_of(&error),
    })
}
