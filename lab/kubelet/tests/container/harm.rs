//! What a program finds that wants to do harm.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parfait_lab_kubelet::container::Report;

use crate::stage::Stage;

/// A file of the host, in a directory which containers are shown, and listings of what is around it.
struct Canary {
    dir: PathBuf,
    before: Vec<(PathBuf, Vec<String>)>,
}

impl Canary {
    fn new(stage: &Stage) -> Canary {
        // Without root there is no place but temporary directories, which are hidden from containers anyway.
        let base = if stage.root {
            Path::new("/var/lib")
        } else {
            stage.dir.path()
        };
        let dir = base.join(format!("parfait-canary-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("nest")).expect("canary");
        std::fs::write(dir.join("nest/bird"), "alive").expect("canary");
        let before = [
            "/", "/etc", "/usr", "/usr/bin", "/var", "/var/lib", "/home", "/boot", "/opt",
        ]
        .iter()
        .map(|d| (PathBuf::from(d), list(Path::new(d))))
        .collect();
        Canary { dir, before }
    }

    fn check(&self) {
        let bird = std::fs::read_to_string(self.dir.join("nest/bird")).expect("the canary lives");
        assert_eq!(bird, "alive");
        for (dir, before) in &self.before {
            assert_eq!(&list(dir), before, "{} has changed", dir.display());
        }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub fn writes_stay_inside(stage: &Stage) {
    let canary = Canary::new(stage);
    let bird = canary.dir.join("nest/bird");
    let script = format!(
        "echo dead > {bird}; rm -rf {dir}; mv /etc/hostname /etc/hostname.old; touch /x /usr/x /var/x
         chmod 777 /etc/passwd; ln /usr/bin/env /usr/bin/env2; mkdir /opt/mine; ls / > /dev/null",
        bird = bird.display(),
        dir = canary.dir.display()
    );
    let mode = |p: &str| std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(p).expect(p));
    let passwd = mode("/etc/passwd");
    stage.run(stage.sh(&script));
    canary.check();
    assert_eq!(mode("/etc/passwd"), passwd);
}

pub fn secrets_are_not_shown(stage: &Stage) {
    let own = stage.dir.path().join("kubeconfig");
    std::fs::write(&own, "token: secret").expect("write");
    let script = format!(
        "cat {} /etc/shadow /etc/gshadow 2>/dev/null; ls -A /etc/ssh /root /home /mnt /boot 2>/dev/null
         cat /proc/kcore /proc/keys /proc/kallsyms 2>/dev/null",
        own.display()
    );
    let ended = stage.run(stage.sh(&script));
    let shown: Vec<&str> = ended
        .log
        .lines()
        .filter(|l| !l.is_empty() && !l.ends_with(':'))
        .collect();
    assert!(shown.is_empty(), "{shown:?}");
}

/// Were a wall down these would do nothing worse than write what is there: a failing test must not cost the machine.
pub fn switches_of_the_machine_are_out_of_reach(stage: &Stage) {
    let forwarding = "/proc/sys/kernel/core_pattern";
    let before = std::fs::read_to_string(forwarding).expect("core_pattern");
    let log = stage.output(
        stage.sh("try() { sh -c \"$1\" 2>/dev/null && echo \"worked: $1\"; }
         same() { v=$(cat $1) && echo \"$v\" > $1 && echo \"worked: writing $1\"; }
         same /proc/sys/kernel/core_pattern 2>/dev/null
         same /proc/sys/kernel/pid_max 2>/dev/null
         same /proc/sys/net/ipv4/ip_forward 2>/dev/null
         same /proc/irq/default_smp_affinity 2>/dev/null
         same /sys/kernel/mm/ksm/run 2>/dev/null
         try 'echo h > /proc/sysrq-trigger'
         try 'touch /sys/x'
         try 'touch /dev/x'
         try 'test -e /dev/vda -o -e /dev/sda -o -e /dev/mem -o -e /dev/kmsg -o -e /dev/net/tun'
         try 'mount -o remount,rw /proc/sys'
         try 'umount /proc/sys'
         true"),
    );
    assert_eq!(log, "");
    assert_eq!(
        std::fs::read_to_string(forwarding).expect("core_pattern"),
        before
    );
}

/// The devices are the host's files: were they on a writable mount, chmod would reach those. Only what is there is written.
pub fn the_hosts_devices_keep_their_modes(stage: &Stage) {
    let log = stage.output(
        stage.sh(
            "for f in /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /etc/shadow /proc/keys; do
               chmod $(stat -L -c %a $f) $f 2>/dev/null && echo \"worked: chmod $f\"
             done
             echo x > /dev/null || echo '/dev/null cannot be written'
             head -c 4 /dev/urandom | wc -c",
        ),
    );
    assert_eq!(log.trim(), "4");
}

/// A key which only root may read, in no list of names.
pub fn what_not_everybody_may_read_is_not_shown(stage: &Stage) {
    let canary = Canary::new(stage);
    let key = canary.dir.join("key");
    let of_all = canary.dir.join("of-all");
    for (path, mode) in [(&key, 0o600), (&of_all, 0o644)] {
        std::fs::write(path, "secret\n").expect("canary");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("chmod");
    }
    let script = format!(
        "cat {} {} 2>/dev/null; true",
        key.display(),
        of_all.display()
    );
    let shown = stage.output(stage.sh(&script));
    assert_eq!(shown, if stage.root { "secret\n" } else { "" });
}

/// `/etc/ssh` is covered by an empty directory, in which a manifest's own keys still have their place.
pub fn a_volume_may_be_mounted_below_what_is_hidden(stage: &Stage) {
    let source = stage.dir.path().join("keys");
    std::fs::create_dir_all(&source).expect("mkdir");
    std::fs::write(source.join("own"), "mine\n").expect("write");
    let mut spec = stage.sh("cat /etc/ssh/own/own; touch /etc/ssh/new 2>/dev/null; ls /etc/ssh");
    spec.root.binds.push(parfait_lab_kubelet::container::Bind {
        source,
        target: "/etc/ssh/own".to_owned(),
        read_only: true,
    });
    let log = stage.output(spec);
    assert!(
        log.starts_with("mine\n") && !log.contains("ssh_host"),
        "{log}"
    );
}

pub fn forbidden_calls_are_refused(stage: &Stage) {
    let log = stage.output(
        stage.sh("try() { \"$@\" >/dev/null 2>&1 && echo \"worked: $*\"; }
         try mount -t tmpfs x /mnt
         try mount --bind /tmp /mnt
         try mknod /tmp/disk b 254 0
         try mknod /tmp/mem c 1 1
         try unshare -U true
         try unshare -Ur true
         try unshare -m true
         try unshare -n true
         try nsenter -t 1 -m true
         try hostname other
         try date -s \"$(date)\"
         try dmesg
         try chroot / true
         try kill -0 2
         true"),
    );
    assert_eq!(log, "");
}

pub fn kill_all_kills_only_itself(stage: &Stage) {
    let mut neighbour = stage.start({
        let mut spec = stage.sh("echo ready; sleep 1000");
        spec.log.path = stage.dir.path().join("logs/neighbour.log");
        spec
    });
    neighbour.started();
    neighbour.wait_for_log("ready");
    let ended = stage.run(stage.sh("sleep 1000 & kill -9 -1; echo survived; kill -9 1; exit 0"));
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    // The neighbour, our parent and we are still here; the neighbour ends when told.
    neighbour.let_go();
    assert_eq!(neighbour.end().signal(), Some(9));
}

pub fn removing_everything_removes_nothing(stage: &Stage) {
    let canary = Canary::new(stage);
    let begun = Instant::now();
    let mut running = stage.start(stage.command(&["/bin/rm", "-rf", "--no-preserve-root", "/"]));
    running.started();
    let ended = running.end();
    assert!(matches!(ended.report, Report::Exited { .. }), "{ended:?}");
    canary.check();
    assert!(Path::new("/bin/rm").exists() && Path::new("/etc/passwd").exists());
    assert!(begun.elapsed() < Duration::from_secs(120));
}

pub fn a_fork_bomb_hits_a_wall(stage: &Stage) {
    let mut running =
        stage.start(stage.sh(
            "b() { b & b & wait; }; echo ready; b 2>/dev/null & b 2>/dev/null & exec sleep 1000",
        ));
    let pid = running.started();
    running.wait_for_log("ready");
    std::thread::sleep(Duration::from_millis(1500));
    let inside = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok())
        .count();
    assert!(inside < 400, "{inside} processes");
    assert!(
        std::process::Command::new("true")
            .status()
            .expect("we can fork")
            .success()
    );
    let begun = Instant::now();
    running.let_go();
    assert_eq!(running.end().signal(), Some(9));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists());
}

pub fn memory_has_a_limit(stage: &Stage) {
    // What is written to the container's files is memory too.
    let log = stage.output(stage.sh(
        "head -c 300m /dev/zero > /tmp/big 2>/dev/null; stat -c %s /tmp/big; rm /tmp/big
         head -c 300m /dev/zero > /dev/shm/big 2>/dev/null; stat -c %s /dev/shm/big; true",
    ));
    for size in log.lines() {
        assert!(size.parse::<u64>().expect("a size") <= 64 << 20, "{log}");
    }
    let log = stage.output(stage.sh("cat /proc/self/oom_score_adj"));
    assert_eq!(log, "900\n", "the machine's own programs outlive it");
    // Without root there is no cgroup to put it in: the sizes above are all the limits there are.
    if !stage.root {
        return;
    }
    if !Path::new("/sys/fs/cgroup/memory").exists() {
        println!("SKIP memory cgroup: none can be used here");
        return;
    }
    let ended = stage.run(stage.sh("x=0123456789; while :; do x=$x$x; done"));
    let Report::Exited {
        oom_killed, signal, ..
    } = ended.report
    else {
        panic!("{ended:?}");
    };
    assert_eq!((oom_killed, signal), (true, Some(9)), "{}", ended.log);
}
