//! The files that the agent leaves for others: the node's facts for the CNI plugin, the plugin
//! itself, and the configuration that tells the container runtime to use it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parfait_cni::NodeConfig;

use crate::Options;

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The plugin's own file.
    #[error("{0}")]
    NodeConfig(String),
    /// Another.
    #[error("{operation} {path}: {source}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl FilesError {
    fn at<'p>(operation: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> Self + use<'p> {
        move |source| Self::File {
            operation,
            path: path.to_owned(),
            source,
        }
    }
}

/// Writes what the plugin must know, and then, when pods can be attached, the configuration.
pub(crate) fn write(options: &Options, node: &NodeConfig) -> Result<(), FilesError> {
    node.write(&options.state_dir)
        .map_err(|error| FilesError::NodeConfig(error.to_string()))?;
    install_plugin(&options.cni_bin_dir)?;
    let conflist = serde_json::json!({
        // The newest version that container runtimes in use all know; the plugin answers in any.
        "cniVersion": "1.0.0",
        "name": "parfait",
        "plugins": [{"type": "parfait", "stateDir": options.state_dir}],
    });
    let path = options.cni_conf_dir.join("10-parfait.conflist");
    replace(&path, format!("{conflist:#}\n").as_bytes())
}

/// Writes a file so that a reader sees the old one or the new one, whole.
fn replace(path: &Path, content: &[u8]) -> Result<(), FilesError> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(FilesError::at("make", dir))?;
    }
    let new = path.with_extension("new");
    fs::write(&new, content).map_err(FilesError::at("write", &new))?;
    fs::rename(&new, path).map_err(FilesError::at("rename to", path))
}

/// Puts this very program where the runtime looks for plugins, unless it is there already.
fn install_plugin(dir: &Path) -> Result<(), FilesError> {
    let own =
        std::env::current_exe().map_err(FilesError::at("find", Path::new("/proc/self/exe")))?;
    let plugin = dir.join("parfait");
    if same_file(&own, &plugin) {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(FilesError::at("make", dir))?;
    let new = plugin.with_extension("new");
    fs::copy(&own, &new).map_err(FilesError::at("copy to", &new))?;
    fs::rename(&new, &plugin).map_err(FilesError::at("rename to", &plugin))
}

/// The same file (through links), or a copy of the same size and time or later.
fn same_file(own: &Path, plugin: &Path) -> bool {
    if let (Ok(own), Ok(plugin)) = (own.canonicalize(), plugin.canonicalize())
        && own == plugin
    {
        return true;
    }
    let (Ok(own), Ok(plugin)) = (own.metadata(), plugin.metadata()) else {
        return false;
    };
    let newer = matches!((plugin.modified(), own.modified()), (Ok(p), Ok(o)) if p >= o);
    own.len() == plugin.len() && newer
}
