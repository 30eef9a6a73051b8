//! A containerd of our own: its folders in a temporary directory, its network a node of our own, its
//! mounts and processes in namespaces that end with the test. Its one image is made by hand: busybox.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parfait_cluster::PodIsolation;
use parfait_cni::NodeConfig;
use serde_json::json;

pub const IMAGE: &str = "parfait.test/pause:1";

/// containerd, its node and its folder. They go with this value.
pub struct Containerd {
    folder: tempfile::TempDir,
    /// PID 1 of the namespaces, and its number as we see it.
    keeper: Child,
    init: u32,
    daemon: Option<Child>,
}

/// `None`, said aloud, where it cannot be.
pub fn possible(test: &str) -> bool {
    let mut missing: Vec<String> = [
        "containerd",
        "runc",
        "ctr",
        "busybox",
        "unshare",
        "nsenter",
        "tar",
        "sha256sum",
    ]
    .into_iter()
    .filter(|program| find(program).is_none())
    .map(|program| format!("no {program}"))
    .collect();
    if !rustix::process::geteuid().is_root() {
        missing.push("not root".to_owned());
    }
    if missing.is_empty() {
        return true;
    }
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "SKIP: {test}: {}", missing.join(", ")).unwrap();
    false
}

fn find(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/local/sbin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|file| file.is_file())
}

impl Containerd {
    /// The node and a containerd on it, which has the image.
    pub fn start() -> Self {
        let mut containerd = Self::node_alone();
        containerd.boot();
        containerd.image();
        containerd
    }

    /// The node, where somebody else calls the plugin.
    pub fn node_alone() -> Self {
        let folder = tempfile::Builder::new().prefix("ctrd-").tempdir().unwrap();
        // Until its input ends, that is until we do.
        let mut keeper = Command::new("unshare")
            .args(["-n", "-m", "-p", "--fork", "--mount-proc", "--kill-child", "sh", "-c"])
            .arg("mount -t tmpfs none /run && mkdir -p /run/netns && ip link set lo up && echo ready && exec cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        assert_eq!(ready, "ready\n");
        let init = child_of(keeper.id());
        let containerd = Self {
            folder,
            keeper,
            init,
            daemon: None,
        };
        containerd.node();
        containerd.write();
        containerd
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where its containers' control groups are: a name that only this one has.
    pub fn cgroup(&self) -> String {
        let name = self.folder.path().file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    /// In the node's namespaces.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init.to_string(), "-n", "-m", "-p", "--"])
            .args(words);
        command
    }

    pub fn shell(&self, script: &str) -> Result<String, String> {
        let output = self.command(&["sh", "-c", script]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!(
                "{script}: {}{}",
                text(&output.stdout),
                text(&output.stderr)
            )),
        }
    }

    pub fn ctr(&self, words: &str) -> Result<String, String> {
        let socket = self.path("c.sock");
        self.shell(&format!("ctr -a {} -n k8s.io {words}", socket.display()))
    }

    /// `ctr run --cni` knows no folders but the usual ones: ours are there, in our mount namespace only.
    pub fn at_the_usual_places(&self) {
        let folder = self.folder.path().display();
        self.shell(&format!(
            "set -e; mkdir -p /run/up /run/work; mount -t tmpfs none /opt; mkdir -p /opt/cni; \
             ln -s {folder}/bin /opt/cni/bin; mount -t tmpfs none /run/up; mkdir /run/up/u /run/up/w; \
             mount -t overlay -o lowerdir=/etc,upperdir=/run/up/u,workdir=/run/up/w none /etc; \
             rm -rf /etc/cni; mkdir -p /etc/cni; ln -s {folder}/conf /etc/cni/net.d"
        ))
        .unwrap();
    }

    /// The interfaces and allocations of pods that are there.
    pub fn attached(&self) -> (usize, usize) {
        let links = self.shell("ip -o link show").unwrap();
        let links = links.lines().filter(|line| line.contains(": pf")).count();
        let read = parfait_cni::ipam::read_all(&self.path("parfait")).unwrap();
        assert!(read.1.is_empty(), "{:?}", read.1);
        (links, read.0.len())
    }

    /// Ends containerd and starts it again; sandboxes go on.
    pub fn restart(&mut self) {
        self.halt();
        self.boot();
    }

    fn halt(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let pid = child_of(daemon.id());
            let _ = Command::new("kill").arg(pid.to_string()).status();
            daemon.wait().unwrap();
        }
    }

    fn node(&self) {
        for line in [
            "ip link add eth0 type veth peer name far0",
            "ip link set eth0 up; ip link set far0 up",
            "ip addr add 192.168.77.11/24 dev eth0",
            "ip addr add fd00:77::11/64 dev eth0 nodad",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        ] {
            self.shell(line).unwrap();
        }
    }

    fn write(&self) {
        for name in ["conf", "bin", "logs"] {
            fs::create_dir_all(self.path(name)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_parfait"), self.path("bin/parfait"))
            .unwrap();
        std::os::unix::fs::symlink("/usr/lib/cni/loopback", self.path("bin/loopback")).unwrap();
        let state = self.path("parfait");
        let node = NodeConfig {
            node: "node-1".to_owned(),
            addresses: ["192.168.77.11", "fd00:77::11"]
                .map(|ip| ip.parse().unwrap())
                .to_vec(),
            pod_cidrs: ["10.244.1.0/24", "fd00:10:244:1::/64"]
                .map(|c| c.parse().unwrap())
                .to_vec(),
            mtu: 1450,
            // There is no agent to make pods known.
            pod_isolation: PodIsolation::None,
            ..NodeConfig::default()
        };
        fs::create_dir_all(&state).unwrap();
        node.write(&state).unwrap();
        let plugin = json!({"type": "parfait", "stateDir": state, "waitForAgent": 0});
        let list = json!({"cniVersion": "1.0.0", "name": "parfait", "plugins": [plugin]});
        fs::write(self.path("conf/10-parfait.conflist"), list.to_string()).unwrap();
        let at = |name: &str| self.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\n  address = {:?}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = {IMAGE:?}\n  disable_apparmor = true\n  \
             restrict_oom_score_adj = true\n  netns_mounts_under_state_dir = true\n  \
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n  \
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n  \
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  conf_dir = {:?}\n  bin_dir = {:?}\n",
            at("root"),
            at("state"),
            at("c.sock"),
            at("opt"),
            at("conf"),
            at("bin"),
        );
        fs::write(self.path("config.toml"), config).unwrap();
    }

    fn boot(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let config = self.path("config.toml").display().to_string();
        let mut command = self.command(&["containerd", "-c", &config]);
        let daemon = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.daemon = Some(daemon);
        until("containerd answers", || self.ctr("version").is_ok());
    }

    /// An image of one layer, as `docker save` writes it, and its import.
    fn image(&self) {
        let layer = self.path("layer");
        for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(layer.join(name)).unwrap();
        }
        let busybox = layer.join("bin/busybox");
        fs::copy(find("busybox").unwrap(), &busybox).unwrap();
        fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
        let folder = self.folder.path().display();
        self.shell(&format!("tar -C {folder}/layer -cf {folder}/layer.tar ."))
            .unwrap();
        let sum = self
            .shell(&format!("sha256sum {folder}/layer.tar"))
            .unwrap();
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": ["/bin/busybox", "sleep", "100000"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", &sum[..64])]},
        });
        let manifest =
            json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
        fs::write(self.path("config.json"), config.to_string()).unwrap();
        fs::write(self.path("manifest.json"), manifest.to_string()).unwrap();
        self.shell(&format!(
            "cd {folder} && tar -cf image.tar manifest.json config.json layer.tar"
        ))
        .unwrap();
        self.ctr(&format!(
            "image import --snapshotter native {folder}/image.tar"
        ))
        .unwrap();
    }

    /// The last of what it said, for a failure.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("containerd said:\n{}", self.log());
        }
        self.halt();
        // PID 1 goes, and with it all that is in its namespaces.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        // Control groups have no namespace of their own here: empty ones are removed, the innermost first.
        let name = self.cgroup();
        let _ = Command::new("find")
            .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path"])
            .arg(format!("*{name}*"))
            .args(["-exec", "rmdir", "{}", ";"])
            .stderr(Stdio::null())
            .status();
    }
}

/// `unshare` and `nsenter` fork: what they run is their one child.
fn child_of(pid: u32) -> u32 {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let mut child = None;
    until("a child", || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        child = text
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        child.is_some()
    });
    child.unwrap()
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{what}: not within 30 s"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
