//! [`Error`]: what went wrong, with the code that the CNI specification gives it (section 5,
//! "Error"), so that the runtime can tell "try again" from "this will never work".

use serde::Serialize;

/// The codes of the specification that this plugin uses, and its own from 100 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The configuration's `cniVersion` is not one we speak, or does not have this command.
    IncompatibleVersion = 1,
    /// The network configuration has a field that this plugin cannot act on.
    UnsupportedField = 2,
    /// The container, or its network namespace, does not exist.
    UnknownContainer = 3,
    /// A `CNI_*` variable is missing or makes no sense.
    InvalidEnvironment = 4,
    /// Reading or writing a file failed, or the kernel refused.
    Io = 5,
    /// What came on the standard input is not JSON.
    Decode = 6,
    /// The network configuration makes no sense.
    InvalidConfig = 7,
    /// `CNI_NETNS` is a network namespace that no pod may have: the node's own.
    InvalidNetNs = 8,
    /// It may work later, without anybody changing anything.
    TryAgainLater = 11,
    /// This plugin cannot attach pods now (STATUS).
    NotAvailable = 50,
    /// It cannot, and pods that are attached may not reach everything (STATUS).
    LimitedConnectivity = 51,
    /// No address is left (ours: codes from 100 on are the plugin's).
    Exhausted = 100,
    /// What is there is not what was made (CHECK; ours).
    Drifted = 101,
}

/// An error as the runtime gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind.
    pub code: Code,
    /// What happened to which object.
    pub message: String,
    /// What to do.
    pub details: String,
}

impl Error {
    /// An error without advice.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    /// With what to do.
    #[must_use]
    pub fn advise(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// A file that could not be read or written.
    #[must_use]
    pub fn file(operation: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let details = match error.kind() {
            std::io::ErrorKind::StorageFull => "The disk is full: free some space on it.",
            std::io::ErrorKind::PermissionDenied => "The plugin must run as root.",
            _ => "",
        };
        let message = format!("{operation} {}: {error}", path.display());
        Self::new(Code::Io, message).advise(details)
    }

    /// The object that the specification asks for on the standard output.
    #[must_use]
    pub fn json(&self, version: &str) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Object<'a> {
            cni_version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let object = Object {
            cni_version: version,
            code: self.code as u32,
            msg: &self.message,
            details: &self.details,
        };
        serde_json::to_string(&object).unwrap_or_default()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if !self.details.is_empty() {
            write!(f, ". {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<parfait_kernel::nft::Error> for Error {
    fn from(error: parfait_kernel::nft::Error) -> Self {
        Self::new(Code::Io, error.to_string())
    }
}

impl From<parfait_kernel::Error> for Error {
    fn from(error: parfait_kernel::Error) -> Self {
        Self::new(Code::Io, error.to_string())
    }
}
