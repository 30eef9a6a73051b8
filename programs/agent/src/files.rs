//! The files that the agent leaves for others: the node's facts for the CNI plugin, the plugin
//! itself, and the configuration that tells the container runtime to use it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use parfait_cni::{BUILD, CAPABILITIES, NodeConfig};
use serde_json::{Map, Value, json};

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

/// Marks a configuration as the agent's own, whatever its file is called. Runtimes overlook it.
const MARK: &str = "parfait.dev/written-by";

/// Writes what the plugin must know, and then, when pods can be attached, the configuration.
pub(crate) fn write(options: &Options, node: &NodeConfig) -> Result<(), FilesError> {
    node.write(&options.state_dir)
        .map_err(|error| FilesError::NodeConfig(error.to_string()))?;
    install_plugin(&options.cni_bin_dir)?;
    let path = options.cni_conf_dir.join("10-parfait.conflist");
    let conflist = conflist(&options.state_dir);
    replace(&path, format!("{conflist:#}\n").as_bytes())?;
    remove_others(&options.cni_conf_dir, &path);
    Ok(())
}

/// The configuration of the pods' network.
fn conflist(state_dir: &Path) -> Value {
    let capabilities: Map<_, _> = CAPABILITIES
        .map(|name| (name.to_owned(), json!(true)))
        .into_iter()
        .collect();
    json!({
        // What container runtimes in use all know, and what those of today prefer: with 1.1.0 they ask whether pods can be
        // attached (STATUS), and have what a lost DEL left collected (GC).
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": "parfait",
        MARK: "agent",
        "plugins": [{"type": "parfait", "stateDir": state_dir, "capabilities": capabilities}],
    })
}

/// Removes what another version of this program called otherwise, and what a killed one was writing. Runtimes take the first
/// configuration by name, so that it could be the wrong one. Other people's files stay.
fn remove_others(dir: &Path, own: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let marked = |path: &Path| {
            let text = fs::read(path).unwrap_or_default();
            let config: Value = serde_json::from_slice(&text).unwrap_or_default();
            config.get(MARK).is_some()
        };
        let extension = path.extension().and_then(|extension| extension.to_str());
        let ours = match extension {
            Some("conf" | "conflist" | "json") => path != own && marked(&path),
            Some("new") => path.with_extension("conflist") == own,
            _ => false,
        };
        if ours && let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an old CNI configuration cannot be removed");
        }
    }
}

/// Writes a file so that a reader sees the old one or the new one, whole.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), FilesError> {
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

/// Puts the plugin where the runtime looks for it, unless it is there already.
fn install_plugin(dir: &Path) -> Result<(), FilesError> {
    let own = &plugin_beside(&std::env::current_exe().unwrap_or_default(), &build_of);
    let plugin = dir.join("parfait");
    if same_file(own, &plugin) {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(FilesError::at("make", dir))?;
    let new = plugin.with_extension("new");
    fs::copy(own, &new).map_err(FilesError::at("copy to", &new))?;
    fs::rename(&new, &plugin).map_err(FilesError::at("rename to", &plugin))
}

/// The plugin alone, which starts faster, if it lies beside this program and is of the same build: they share files, and
/// what another build does not know of it would not do. Else this very program, which is a plugin as well.
fn plugin_beside(own: &Path, build_of: &dyn Fn(&Path) -> String) -> PathBuf {
    let alone = own.with_file_name("parfait-cni");
    if alone.is_file() {
        let build = build_of(&alone);
        if build == format!("parfait-cni {BUILD}") {
            return alone;
        }
        tracing::warn!(
            path = %alone.display(), %build, own = BUILD,
            "parfait-cni is of another build than this program, which is installed as the CNI plugin in its place and \
             starts more slowly: install both from one build"
        );
    }
    // Not by its path: it may have been replaced there since this process started.
    "/proc/self/exe".into()
}

/// What a `parfait-cni` says of itself: the first line, or why there is none.
fn build_of(plugin: &Path) -> String {
    let mut command = Command::new(plugin);
    let asked = command.arg("--version").env_clear().stdin(Stdio::null());
    match asked.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            text.lines().next().unwrap_or_default().to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// The same file (through links), or a copy: as many bytes, the same bytes, and as executable. It is asked at every regular
/// look, as others may replace the plugin, and reads both files only if they are of one length.
fn same_file(own: &Path, plugin: &Path) -> bool {
    if let (Ok(own), Ok(plugin)) = (own.canonicalize(), plugin.canonicalize())
        && own == plugin
    {
        return true;
    }
    let (Ok(a), Ok(b)) = (own.metadata(), plugin.metadata()) else {
        return false;
    };
    a.len() == b.len()
        && a.permissions() == b.permissions()
        && same_bytes(own, plugin).unwrap_or(false)
}

/// Whether two files of one length hold the same.
fn same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let open = |path| Ok::<_, io::Error>(BufReader::with_capacity(1 << 16, File::open(path)?));
    let (mut one, mut other) = (open(one)?, open(other)?);
    loop {
        let (a, b) = (one.fill_buf()?, other.fill_buf()?);
        let length = a.len().min(b.len());
        if a[..length] != b[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(a.len() == b.len());
        }
        one.consume(length);
        other.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_plugin_alone_is_preferred_if_of_this_build_and_one_program_suffices() {
        let root = tempfile::tempdir().unwrap();
        let (own, alone) = (root.path().join("parfait"), root.path().join("parfait-cni"));
        let current = format!("parfait-cni {BUILD}");
        let itself = Path::new("/proc/self/exe");
        let chosen = |build: &str| plugin_beside(&own, &|_| build.to_owned());
        assert_eq!(chosen(&current), itself);
        fs::create_dir(&alone).unwrap();
        assert_eq!(chosen(&current), itself);
        fs::remove_dir(&alone).unwrap();
        fs::write(&alone, "plugin").unwrap();
        assert_eq!(chosen(&current), alone);
        for other in [
            "parfait-cni 0.0.9 (0123456789abcdef)",
            "",
            "Exec format error",
        ] {
            assert_eq!(chosen(other), itself, "{other}");
        }
    }

    #[test]
    fn what_is_installed_is_the_same_only_if_its_bytes_are() {
        let root = tempfile::tempdir().unwrap();
        let (own, plugin) = (root.path().join("own"), root.path().join("plugin"));
        let content = vec![7; 200_000];
        fs::write(&own, &content).unwrap();
        assert!(!same_file(&own, &plugin), "none is there");
        let mut damaged = content.clone();
        damaged[199_999] = 8;
        // Of the same size, and newer.
        fs::write(&plugin, &damaged).unwrap();
        assert!(!same_file(&own, &plugin));
        fs::write(&plugin, &content).unwrap();
        assert!(same_file(&own, &plugin));
        fs::set_permissions(&own, PermissionsExt::from_mode(0o755)).unwrap();
        assert!(!same_file(&own, &plugin), "it cannot be started");
        fs::remove_file(&plugin).unwrap();
        std::os::unix::fs::symlink(&own, &plugin).unwrap();
        assert!(same_file(&own, &plugin));
    }

    #[test]
    fn another_build_says_so_and_what_cannot_run_says_why() {
        let root = tempfile::tempdir().unwrap();
        let alone = root.path().join("parfait-cni");
        std::os::unix::fs::symlink("/bin/false", &alone).unwrap();
        assert_ne!(build_of(&alone), format!("parfait-cni {BUILD}"));
        fs::remove_file(&alone).unwrap();
        fs::write(&alone, "plugin").unwrap();
        assert!(build_of(&alone).contains("Permission denied"));
    }

    #[test]
    fn the_configuration_is_ours_alone_and_other_peoples_files_stay() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let options = Options {
            state_dir: at("state"),
            cni_conf_dir: at("net.d"),
            cni_bin_dir: at("bin"),
            ..Options::new("node-1")
        };
        fs::create_dir(at("net.d")).unwrap();
        let conf = |name: &str| at("net.d").join(name);
        let old = json!({"name": "parfait", MARK: "agent", "plugins": []}).to_string();
        fs::write(conf("05-older.conflist"), &old).unwrap();
        fs::write(conf("10-parfait.new"), "{").unwrap();
        let admins = r#"{"name": "mine", "plugins": [{"type": "parfait"}, {"type": "portmap"}]}"#;
        fs::write(conf("20-mine.conflist"), admins).unwrap();
        fs::write(conf("broken.conf"), "{").unwrap();
        fs::write(conf("note.txt"), &old).unwrap();
        let node = NodeConfig {
            mtu: 1450,
            ..NodeConfig::default()
        };
        write(&options, &node).unwrap();
        let names = fs::read_dir(at("net.d"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "10-parfait.conflist",
                "20-mine.conflist",
                "broken.conf",
                "note.txt"
            ]
        );
        assert!(at("bin").join("parfait").exists());
        let text = fs::read_to_string(conf("10-parfait.conflist")).unwrap();
        let written: Value = serde_json::from_str(&text).unwrap();
        let plugin = &written["plugins"][0];
        assert_eq!(plugin["capabilities"]["portMappings"], true);
        assert_eq!(plugin["stateDir"], json!(at("state")));
    }
}
