//! Starting one container: from its part of the manifest to a running program.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use parfait_lab_images::{Port, Protocol, Resolved};

use super::{Input, Live, Worker};
use crate::container::spec::PARFAIT;
use crate::container::{Bind, ExecSpec, Limits, LogSpec, RootSpec, RunSpec, mapped};
use crate::env::{self, Surroundings};
use crate::kubelet::Kubelet;
use crate::lifecycle::Ended;
use crate::paths::PodPaths;
use crate::security::{self, Mapped, Security};
use crate::{api, quantity, runtime, sandbox, sources, volumes};

/// Limits of a container that sets none itself.
const PIDS: u32 = 512;
const MEMORY: u64 = 1 << 30;
const OPEN_FILES: u64 = 65_536;
const SCRATCH: u64 = 256 << 20;
const LOG: u64 = 10 << 20;
/// How much of a failed container's log becomes its message.
const LAST_WORDS: usize = 2048;
/// Wait before a configuration that cannot be had is looked for again.
const RETRY: SignedDuration = SignedDuration::from_secs(3);

/// Why a container is not started now.
struct Postponed {
    reason: &'static str,
    message: String,
}

impl Worker {
    /// Starts a container, or writes into the book why not.
    pub(super) async fn start(&mut self, name: &str) {
        let Some(container) = self.container(name) else {
            return;
        };
        let now = Timestamp::now();
        let spec = match self.run_spec(&container).await {
            Ok(spec) => spec,
            Err(Postponed { reason, message }) => {
                self.warn(name, "Failed", &format!("Error: {message}"));
                if let Some(track) = self.book.track_mut(name) {
                    track.postponed(reason, message, now + RETRY);
                }
                return;
            }
        };
        let attempt = self.attempts.get(name).copied().unwrap_or(0);
        self.attempts.insert(name.to_owned(), attempt + 1);
        self.forget_log(name, attempt);
        let (outbox, whose) = (self.outbox.clone(), name.to_owned());
        let at_end = move |report| {
            let _ = outbox.send(Input::Exited {
                container: whose,
                attempt,
                report,
            });
        };
        let mut exec = ExecSpec {
            pid: 0,
            argv: Vec::new(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            identity: spec.identity.clone(),
            capabilities: spec.capabilities.clone(),
            limits: spec.limits.clone(),
        };
        let id = sandbox::new_id(self.pod.metadata.uid.as_deref().unwrap_or_default());
        match runtime::start(&self.kubelet.paths.parfait(), spec, at_end).await {
            Ok((hand, notes)) => {
                for note in notes {
                    self.warn_once(name, "ContainerRestricted", &note);
                }
                exec.pid = hand.pid;
                self.begun(
                    &container,
                    Live {
                        hand,
                        attempt,
                        exec,
                        tasks: Vec::new(),
                    },
                    id,
                );
            }
            Err(message) => self.start_failed(name, message, id),
        }
    }

    /// Of the runs of a container the last but one keeps its log, the ones before do not.
    fn forget_log(&self, container: &str, attempt: u32) {
        let Some(old) = attempt.checked_sub(2) else {
            return;
        };
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let meta = &self.pod.metadata;
        let (namespace, name) = (text(&meta.namespace), text(&meta.name));
        let paths = &self.kubelet.paths;
        let log = paths.log(&namespace, &name, &text(&meta.uid), container, old);
        let mut older = log.clone().into_os_string();
        older.push(".1");
        let _ = std::fs::remove_file(log);
        let _ = std::fs::remove_file(older);
    }

    fn begun(&mut self, container: &Container, live: Live, id: String) {
        let name = &container.name;
        if let Some(track) = self.book.track_mut(name) {
            track.begun(Timestamp::now(), id);
        }
        let message = format!("Started container {name}");
        self.kubelet
            .recorder
            .normal(&self.pod, Some(name), "Started", &message);
        self.live.insert(name.clone(), live);
        self.begin_post_start(container);
        self.begin_probes(container);
    }

    /// As a container runtime reports it: a run that ended before it began.
    fn start_failed(&mut self, name: &str, message: String, id: String) {
        self.warn(
            name,
            "Failed",
            &format!("Error: failed to start container {name:?}: {message}"),
        );
        let ended = Ended {
            code: 128,
            signal: None,
            reason: "StartError",
            message: Some(message),
            started_at: None,
            finished_at: Timestamp::now(),
            id,
        };
        self.note_end(name, ended);
    }

    async fn run_spec(&mut self, container: &Container) -> Result<RunSpec, Postponed> {
        let config = |message: String| Postponed {
            reason: "CreateContainerConfigError",
            message,
        };
        let env = self.environment(container).await?;
        let kubelet = self.kubelet.clone();
        let pod = self.pod.clone();
        let spec = pod.spec.clone().unwrap_or_default();
        let ids = Mapped {
            uid: &|id| mapped("uid_map", id),
            gid: &|id| mapped("gid_map", id),
        };
        let security = security::decide(&spec, container, ids).map_err(config)?;
        let argv = self.command(container, &env);
        let binds = self.binds(container, &env).await.map_err(config)?;
        for note in &security.notes {
            self.warn_once(&container.name, "SecurityContextIgnored", note);
        }
        let Security {
            identity,
            capabilities,
            read_only_root,
            ..
        } = security;
        let sandbox = self.sandbox.as_ref();
        let netns = sandbox
            .and_then(|s| s.record.as_ref())
            .map(|_| self.paths.netns());
        let attempt = self.attempts.get(&container.name).copied().unwrap_or(0);
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let (namespace, name, uid) = (text(&meta.namespace), text(&meta.name), text(&meta.uid));
        Ok(RunSpec {
            hostname: sandbox.map(|s| s.hostname.clone()).unwrap_or_default(),
            netns,
            argv,
            env,
            cwd: container.working_dir.clone(),
            root: RootSpec {
                base: kubelet.paths.root(),
                read_only: read_only_root,
                scratch_bytes: SCRATCH,
                hide: kubelet.hidden.clone(),
                binds,
                parfait: kubelet.paths.parfait(),
                applets: applets(),
            },
            identity,
            capabilities,
            limits: limits(&kubelet, container, &uid),
            log: LogSpec {
                path: kubelet
                    .paths
                    .log(&namespace, &name, &uid, &container.name, attempt),
                max_bytes: LOG,
            },
        })
    }

    async fn environment(&self, container: &Container) -> Result<Vec<(String, String)>, Postponed> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let unreachable = |e: kube::Error| Postponed {
            reason: "CreateContainerConfigError",
            message: format!("reading what the environment is made of: {e}"),
        };
        let client = &self.kubelet.client;
        let wanted: BTreeSet<_> = sources::of_container(container);
        let sources = api::sources(client, namespace, &wanted)
            .await
            .map_err(unreachable)?;
        let services = api::services(client, namespace)
            .await
            .map_err(unreachable)?;
        let around = Surroundings {
            pod: &self.pod,
            addresses: &self.addresses,
            machine: self.kubelet.machine,
            sources: &sources,
            services: &services,
        };
        let hostname = self.sandbox.as_ref().map_or("", |s| s.hostname.as_str());
        let mut env = env::build(container, &around, hostname).map_err(|e| Postponed {
            reason: "CreateContainerConfigError",
            message: e.to_string(),
        })?;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        for (key, value) in [
            ("PARFAIT_NAMESPACE", namespace.to_owned()),
            ("PARFAIT_POD", text(&self.pod.metadata.name)),
            ("PARFAIT_CONTAINER", container.name.clone()),
            ("PARFAIT_NODE", self.kubelet.options.node_name.clone()),
            ("PARFAIT_IMAGE", text(&container.image)),
        ] {
            env.push((key.to_owned(), value));
        }
        Ok(env)
    }

    /// The command line: a program of the host, or a built-in.
    fn command(&mut self, container: &Container, env: &[(String, String)]) -> Vec<String> {
        let find = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
        let expand = |list: &Option<Vec<String>>| -> Vec<String> {
            list.iter()
                .flatten()
                .map(|text| env::expand(text, find))
                .collect()
        };
        let image = container.image.as_deref().unwrap_or_default();
        let (command, args) = (expand(&container.command), expand(&container.args));
        match parfait_lab_images::resolve(image, &command, &args, &ports(container)) {
            Resolved::Program { argv } => argv,
            Resolved::BuiltIn { argv, note, .. } => {
                if let Some(note) = note {
                    self.warn_once(&container.name, "ImageStandIn", &note);
                }
                [PARFAIT.to_owned(), "image".to_owned()]
                    .into_iter()
                    .chain(argv)
                    .collect()
            }
        }
    }

    async fn binds(
        &self,
        container: &Container,
        env: &[(String, String)],
    ) -> Result<Vec<Bind>, String> {
        let bind = |source, target: &str| Bind {
            source,
            target: target.to_owned(),
            read_only: false,
        };
        let message = message_file(&self.paths, &container.name);
        let target = container
            .termination_message_path
            .as_deref()
            .filter(|p| !p.is_empty());
        let (pod, own, env) = (self.pod.clone(), container.clone(), env.to_vec());
        let (dir, subpaths) = (self.paths.volumes(), self.paths.dir().join("subpaths"));
        let mut binds = sandbox::blocking(move || {
            let _ = message.parent().map(std::fs::create_dir_all);
            std::fs::write(&message, "").map_err(|e| format!("make {}: {e}", message.display()))?;
            open_to_all(&message);
            volumes::binds(&pod, &own, &dir, &subpaths, &env).map_err(|e| e.to_string())
        })
        .await?;
        binds.push(bind(
            message_file(&self.paths, &container.name),
            target.unwrap_or("/dev/termination-log"),
        ));
        for (source, target) in [
            (self.paths.hosts(), "/etc/hosts"),
            (self.paths.resolv_conf(), "/etc/resolv.conf"),
            (self.paths.hostname(), "/etc/hostname"),
        ] {
            if !binds.iter().any(|b| b.target == target) {
                binds.push(Bind {
                    read_only: true,
                    ..bind(source, target)
                });
            }
        }
        Ok(binds)
    }
}

fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666));
}

/// Where a container may leave a word about its end. On the pod's own tmpfs, so that it cannot fill a disk.
fn message_file(paths: &PodPaths, container: &str) -> std::path::PathBuf {
    paths.volumes().join(".termination").join(container)
}

fn limits(kubelet: &Kubelet, container: &Container, uid: &str) -> Limits {
    let asked = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let memory = asked
        .and_then(|l| l.get("memory"))
        .and_then(|q| quantity::whole(&q.0));
    let cgroup = kubelet.options.cgroup.as_ref();
    Limits {
        cgroup: cgroup.map(|base| format!("{base}/{uid}/{}", container.name)),
        pids: PIDS,
        // Below a few megabytes not even the steps to the program would succeed.
        memory: Some(memory.unwrap_or(MEMORY).max(16 << 20)),
        nofile: OPEN_FILES,
    }
}

/// The names by which the lab's binary can be called in any container: the health probe's, and those of programs
/// that images have and this machine lacks.
fn applets() -> Vec<String> {
    let missing = parfait_lab_images::missing_applets().into_iter();
    missing.map(str::to_owned).collect()
}

fn ports(container: &Container) -> Vec<Port> {
    let declared = container.ports.iter().flatten();
    declared
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone(),
                container_port: u16::try_from(port.container_port).ok()?,
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
            })
        })
        .collect()
}

/// What a container that ended has to say: what it wrote to its termination message, else, after a failure, the end of
/// its log (`terminationMessagePolicy: FallbackToLogsOnError`, for every container).
pub(super) fn last_words(
    kubelet: &Kubelet,
    pod: &Pod,
    paths: &PodPaths,
    container: &str,
    attempt: u32,
    code: i32,
) -> Option<String> {
    let written = read_end(&message_file(paths, container), 4096).unwrap_or_default();
    if !written.trim().is_empty() {
        return Some(written);
    }
    if code == 0 {
        return None;
    }
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let log = kubelet.paths.log(
        &text(&meta.namespace),
        &text(&meta.name),
        &text(&meta.uid),
        container,
        attempt,
    );
    let lines: Vec<String> = read_end(&log, 2 * LAST_WORDS)?
        .lines()
        .filter_map(|line| line.splitn(4, ' ').nth(3).map(str::to_owned))
        .collect();
    let tail = lines.len().saturating_sub(20);
    let said = lines[tail..].join("\n");
    let from = said.len().saturating_sub(LAST_WORDS);
    let from = (from..said.len()).find(|i| said.is_char_boundary(*i))?;
    Some(said[from..].to_owned())
}

/// The last bytes of a file, which may be anything.
fn read_end(path: &std::path::Path, limit: usize) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit as u64)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(limit as u64).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
