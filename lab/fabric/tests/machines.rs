//! Labs without a cluster, made and ended for real: as root, and without root in a user namespace.
//!
//! Each test has a state directory of its own, so that they can run beside each other and beside
//! real labs. What must not change is the host: its links, routes, rulesets and mounts are compared
//! before and after.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// Somebody with a state directory.
struct Person {
    rootless: bool,
    dir: TempDir,
    program: PathBuf,
}

impl Person {
    fn new(rootless: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("fabric-")
            .tempdir()
            .unwrap();
        // Below the home directory of somebody else the program could not be reached.
        let program = dir.path().join("bare-lab");
        // Not by this process: what another test starts meanwhile would hold the file open for writing.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_bare-lab"))
            .arg(&program)
            .status();
        assert!(copied.expect("cp runs").success());
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        if rootless && rustix::process::geteuid().is_root() {
            fs::set_permissions(
                dir.path(),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )
            .unwrap();
            chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        Self {
            rootless,
            dir,
            program,
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn command(&self, program: &Path) -> Command {
        if !self.rootless || !rustix::process::geteuid().is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(program);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let (verb, rest) = arguments.split_first().unwrap();
        self.command(&self.program)
            .arg(verb)
            .arg(self.state())
            .args(rest)
            .current_dir("/")
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The process which is a lab's PID 1, and the inode of its PID namespace.
    fn init(&self, name: &str) -> (i32, u64) {
        let list = self.ok(&["list"]);
        let line = list
            .lines()
            .find(|line| line.split(' ').next() == Some(name))
            .unwrap();
        let mut numbers = line.split(' ').skip(1);
        (
            numbers.next().unwrap().parse().unwrap(),
            numbers.next().unwrap().parse().unwrap(),
        )
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        for name in ["one", "two"] {
            self.run(&["down", name]);
        }
    }
}

/// The people that can make labs on this machine; loudly fewer than there should be.
fn people(test: &str) -> Vec<Person> {
    let skip = |why: &str| writeln!(&mut std::io::stderr().lock(), "SKIP: {test}: {why}").unwrap();
    let nobody = Person::new(true);
    let allowed = nobody
        .command(Path::new("unshare"))
        .args(["-Urn", "true"])
        .status();
    let allowed = allowed.is_ok_and(|status| status.success());
    if !rustix::process::geteuid().is_root() {
        skip("labs of root are tried by root only");
        return if allowed { vec![nobody] } else { Vec::new() };
    }
    if allowed {
        return vec![Person::new(false), nobody];
    }
    skip(
        "user namespaces are not allowed here (or setpriv and unshare are missing): rootless labs are not tried",
    );
    vec![Person::new(false)]
}

/// What of the host must not change.
fn host() -> String {
    let run = |line: &[&str]| {
        let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let links = run(&["ip", "-o", "link"]);
    // Counters and the like are not printed by these.
    let mut all = [
        links,
        run(&["ip", "-o", "addr"]),
        run(&["ip", "route"]),
        run(&["ip", "-6", "route"]),
    ];
    for text in &mut all {
        // Remaining lifetimes of addresses count down.
        *text = text
            .lines()
            .map(|l| l.split(" valid_lft").next().unwrap_or(l))
            .collect::<Vec<_>>()
            .join("\n");
    }
    let rules = run(&["nft", "list", "ruleset"]);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    format!("{}\n{rules}\n{mounts}", all.join("\n"))
}

/// Processes in a PID namespace.
fn processes_in(namespace: u64) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| fs::metadata(path.join("ns/pid")).is_ok_and(|m| m.ino() == namespace))
        .map(|path| fs::read_to_string(path.join("status")).unwrap_or_default())
        .filter(|status| !status.contains("State:\tZ"))
        .collect()
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn three_nodes_reach_each_other_and_nothing_is_left() {
    for person in people("three_nodes_reach_each_other_and_nothing_is_left") {
        let before = host();
        person.ok(&["up", "one", "3", "dual"]);
        for to in [
            "192.168.77.13",
            "fd00:77::13",
            "192.168.77.1",
            "fd00:77::1",
            "node-2",
        ] {
            person.ok(&["exec", "one", "node/1", "ping", "-c1", "-W2", to]);
        }
        let route = person.ok(&["exec", "one", "node/2", "ip", "route", "get", "10.96.0.10"]);
        assert!(route.contains("via 192.168.77.1 dev eth0"), "{route}");
        assert_eq!(
            person.ok(&["exec", "one", "node/node-2", "uname", "-n"]),
            "node-2\n"
        );
        assert_eq!(person.ok(&["exec", "one", "node/1", "pwd"]), "/\n");
        let (_, namespace) = person.init("one");
        assert!(processes_in(namespace).len() >= 2);
        assert_eq!(person.ok(&["down", "one"]), "Stopped\n");
        assert_eq!(processes_in(namespace), [""; 0]);
        assert_eq!(
            fs::read_dir(person.state().join("labs")).unwrap().count(),
            0
        );
        assert_eq!(person.ok(&["down", "one"]), "NothingThere\n");
        assert_eq!(before, host(), "the host has changed");
        // Nothing is waited for; but the machine may be busy with something else.
        let quick = || {
            let began = Instant::now();
            person.ok(&["up", "one", "3", "dual"]);
            let took = began.elapsed();
            person.ok(&["down", "one"]);
            took < Duration::from_secs(2)
        };
        assert!((0..20).any(|_| quick()), "three machines take 2 s and more");
    }
}

#[test]
fn families_are_what_was_asked_for() {
    for person in people("families_are_what_was_asked_for") {
        person.ok(&["up", "one", "1", "ipv4"]);
        person.ok(&["up", "two", "1", "ipv6"]);
        let addresses = |lab| {
            person.ok(&[
                "exec", lab, "node/1", "ip", "-o", "addr", "show", "eth0", "scope", "global",
            ])
        };
        let (v4, v6) = (addresses("one"), addresses("two"));
        assert!(
            v4.contains("192.168.77.11/24") && !v4.contains("fd00"),
            "{v4}"
        );
        assert!(
            v6.contains("fd00:77::11/64") && !v6.contains("192.168"),
            "{v6}"
        );
    }
}

#[test]
fn a_killed_lab_leaves_nothing_in_the_kernel_and_the_next_command_cleans_the_rest() {
    for person in people("a_killed_lab_leaves_nothing") {
        let before = host();
        person.ok(&["up", "one", "3", "dual"]);
        person.ok(&["up", "two", "1", "dual"]);
        let (pid, namespace) = person.init("one");
        assert_eq!(before, host(), "the host has changed while labs run");
        let killed = Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        eventually("processes are left", || processes_in(namespace).is_empty());
        assert!(
            person.state().join("labs/one").exists(),
            "what is cleaned must have been there"
        );
        let list = person.ok(&["list"]);
        assert!(list.starts_with("one removed\ntwo "), "{list}");
        assert!(
            !person.state().join("labs/one").exists()
                && !person.state().join("labs/one.lock").exists()
        );
        person.ok(&[
            "exec",
            "two",
            "node/1",
            "ping",
            "-c1",
            "-W2",
            "192.168.77.1",
        ]);
        assert_eq!(person.ok(&["down", "two"]), "Stopped\n");
        assert_eq!(before, host(), "the host has changed");
    }
}

#[test]
fn a_lab_that_hangs_is_killed() {
    for person in people("a_lab_that_hangs_is_killed") {
        person.ok(&["up", "one", "1", "dual"]);
        let (pid, namespace) = person.init("one");
        let stopped = Command::new("kill")
            .args(["-STOP", &pid.to_string()])
            .status()
            .unwrap();
        assert!(stopped.success());
        assert_eq!(person.ok(&["down", "one"]), "Killed\n");
        assert_eq!(processes_in(namespace), [""; 0]);
    }
}

#[test]
fn a_name_is_taken_once() {
    for person in people("a_name_is_taken_once") {
        person.ok(&["up", "one", "1", "dual"]);
        let said = person.fails(&["up", "one", "2", "dual"]);
        assert!(
            said.contains("lab one is already running")
                && said.contains("parfait lab down --name one"),
            "{said}"
        );
        person.ok(&["exec", "one", "node/1", "true"]);
    }
}

#[test]
fn what_is_not_there_is_told_with_the_nearest_name() {
    for person in people("what_is_not_there_is_told_with_the_nearest_name") {
        person.ok(&["up", "one", "2", "dual"]);
        let exec = |target: &str| person.fails(&["exec", "one", target, "true"]);
        assert!(
            exec("node/nod-2")
                .ends_with("there is no node nod-2 in lab one; did you mean node/node-2?\n")
        );
        assert!(exec("pod/web").ends_with("there is no pod web in lab one\n"));
        let said = person.fails(&["exec", "two", "node/1", "true"]);
        assert!(
            said.contains("lab two is not running (running: one)"),
            "{said}"
        );
        let code = |program: &[&str]| {
            person
                .run(&[&["exec", "one", "node/1"], program].concat())
                .status
                .code()
        };
        assert_eq!(code(&["no-such-program"]), Some(127));
        assert_eq!(code(&["/etc/passwd"]), Some(126));
        assert_eq!(code(&["sh", "-c", "kill -15 $$"]), Some(128 + 15));
        assert_eq!(code(&["sh", "-c", "exit 7"]), Some(7));
    }
}

#[test]
fn exec_sees_the_nodes_own_resolver_and_the_host_keeps_its() {
    for person in people("exec_sees_the_nodes_own_resolver_and_the_host_keeps_its") {
        let before = fs::read_to_string("/etc/resolv.conf").ok();
        person.ok(&["up", "one", "2", "ipv4"]);
        let seen = person.ok(&["exec", "one", "node/1", "cat", "/etc/resolv.conf"]);
        assert_eq!(seen.lines().next(), Some("nameserver 10.96.0.10"));
        // Pods would take it over, and look names up in a namespace that is not theirs.
        assert!(!seen.contains("search"), "{seen}");
        let seen = person.ok(&["exec", "one", "node/1", "cat", "/etc/hosts"]);
        assert!(seen.contains("192.168.77.12 node-2"), "{seen}");
        assert_eq!(fs::read_to_string("/etc/resolv.conf").ok(), before);
    }
}

#[test]
fn a_linked_or_missing_resolver_configuration_is_covered_all_the_same() {
    for person in people("a_linked_or_missing_resolver_configuration") {
        for target in ["/mnt/real.conf", "/nowhere/resolv.conf"] {
            // An /etc of our own, in which resolv.conf is a link, as systemd-resolved makes it.
            let script = "mount -t tmpfs none /mnt && mkdir /mnt/u /mnt/w && echo host >/mnt/real.conf && \
                mount -t overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w none /etc && \
                ln -sf $3 /etc/resolv.conf && $2 up $1 one 1 ipv4 >/dev/null && \
                $2 exec $1 one node/1 head -1 /etc/resolv.conf && readlink /etc/resolv.conf && $2 down $1 one";
            let output = person
                .command(Path::new("unshare"))
                .args(["-Urm", "sh", "-c", script, "sh"])
                .arg(person.state())
                .arg(&person.program)
                .arg(target)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                said,
                format!("nameserver 10.96.0.10\n{target}\nStopped\n"),
                "{errors}"
            );
        }
    }
}

#[test]
fn a_full_disk_is_told_before_anything_is_made() {
    for person in people("a_full_disk_is_told_before_anything_is_made") {
        // A tiny file system in a mount namespace of its own, on which the lab's state would live.
        let script = "mount -t tmpfs -o size=1m,mode=0700 none $1 && exec $2 up $1 one 1 dual";
        let output = person
            .command(Path::new("unshare"))
            .args(["-Urm", "sh", "-c", script, "sh"])
            .arg(person.state())
            .arg(&person.program)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            said.contains("no room for the lab's state")
                && said.contains("1024 KiB free")
                && said.contains("--state-dir"),
            "{said}"
        );
    }
}

#[test]
fn a_disk_that_fills_up_meanwhile_is_told_too() {
    for person in people("a_disk_that_fills_up_meanwhile_is_told_too") {
        let script =
            "mount -t tmpfs -o size=32m,nr_inodes=6,mode=0700 none $1 && exec $2 up $1 one 1 dual";
        let output = person
            .command(Path::new("unshare"))
            .args(["-Urm", "sh", "-c", script, "sh"])
            .arg(person.state())
            .arg(&person.program)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            said.contains("No space left on device")
                && said.contains("the file system is full")
                && said.contains("do:"),
            "{said}"
        );
    }
}

#[test]
fn a_forbidden_namespace_is_told_with_the_limit() {
    for person in people("a_forbidden_namespace_is_told_with_the_limit") {
        // Limits are per user namespace, so that they can be set here without touching the host's.
        for (limit, kind) in [
            ("max_net_namespaces", "network"),
            ("max_pid_namespaces", "PID"),
        ] {
            let script = format!("echo 0 > /proc/sys/user/{limit} && exec $2 up $1 one 1 dual");
            let output = person
                .command(Path::new("unshare"))
                .args(["-Ur", "sh", "-c", &script, "sh"])
                .arg(person.state())
                .arg(&person.program)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success());
            assert!(
                said.contains(&format!("cannot make a {kind} namespace")),
                "{said}"
            );
            assert!(
                said.contains(&format!("user.{limit} (it is 0)")) && said.contains("sysctl -w"),
                "{said}"
            );
        }
    }
}

#[test]
fn forbidden_user_namespaces_are_told() {
    for person in people("forbidden_user_namespaces_are_told") {
        // Root of a user namespace that may make no further one, and has no capability either.
        let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
            exec setpriv --bounding-set=-all --inh-caps=-all $2 up $1 one 1 dual";
        let output = person
            .command(Path::new("unshare"))
            .args(["-Ur", "sh", "-c", script, "sh"])
            .arg(person.state())
            .arg(&person.program)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(said.contains("cannot make a user namespace"), "{said}");
        assert!(
            said.contains("user.max_user_namespaces (it is 0)"),
            "{said}"
        );
    }
}

#[test]
fn a_state_directory_of_somebody_else_is_refused() {
    for person in people("a_state_directory_of_somebody_else_is_refused") {
        if !person.rootless || !rustix::process::geteuid().is_root() {
            continue;
        }
        chown(person.state(), Some(0), Some(0)).unwrap();
        let said = person.fails(&["up", "one", "1", "dual"]);
        assert!(
            said.contains("Permission denied") || said.contains("belongs to user 0"),
            "{said}"
        );
        assert!(said.contains("--state-dir"), "{said}");
        chown(person.state(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// As seen from a node: the others answer, through the router where it must be; and each packet fits.
#[test]
fn nodes_reach_each_other_over_every_underlay() {
    let test = "nodes_reach_each_other_over_every_underlay";
    for person in people(test) {
        for (underlay, far4, far6, hops) in [
            ("routed", "192.168.78.13", "fd00:78::13", 63),
            ("cloud", "192.168.77.13", "fd00:77::13", 63),
            ("flat", "192.168.77.13", "fd00:77::13", 64),
        ] {
            person.ok(&["up", "one", "3", "dual", underlay]);
            for far in [far4, far6] {
                let ping = ["exec", "one", "node/1", "ping", "-c1", "-W5", far];
                let said = person.ok(&ping);
                assert!(said.contains(&format!("ttl={hops}")), "{underlay}: {said}");
            }
            let refused = person.fails(&[
                "exec",
                "one",
                "node/1",
                "nc",
                "-w5",
                "-z",
                "10.244.3.2",
                "80",
            ]);
            assert!(!refused.contains("timed out"), "{refused}");
            let routes = person.ok(&["exec", "one", "router", "ip", "-4", "route"]);
            assert!(
                !routes.contains("default"),
                "{underlay} has no way out: {routes}"
            );
            person.ok(&["down", "one"]);
        }
    }
}
