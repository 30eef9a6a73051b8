//! What a well-behaved program finds.

use parfait_lab_kubelet::container::{Bind, Identity, Report};

use crate::stage::{Stage, exec};

pub fn output_and_exit_code_come_back(stage: &Stage) {
    let mut spec = stage.sh("echo out $GREETING; echo err >&2; pwd; exit 7");
    spec.env.push(("GREETING".to_owned(), "hello".to_owned()));
    spec.cwd = Some("/usr/bin".to_owned());
    let ended = stage.run(spec);
    assert_eq!(ended.code(), Some(7));
    for line in ["out hello\n", "err\n", "/usr/bin\n"] {
        assert!(ended.log.contains(line), "{ended:?}");
    }
}

pub fn a_missing_program_is_explained(stage: &Stage) {
    for argv in [&["no-such-program"][..], &["/app/server"][..]] {
        let ended = stage.run(stage.command(argv));
        let Report::Failed { message } = &ended.report else {
            panic!("{ended:?}");
        };
        assert!(message.contains(argv[0]), "{message}");
        assert!(message.contains("a program of this machine"), "{message}");
    }
}

pub fn the_container_is_by_itself(stage: &Stage) {
    let log = stage.output(stage.sh(
        "echo pid $$; hostname; ls /proc | grep -c '^[0-9]'; ls /run /dev; echo homes; ls -A /root /home",
    ));
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[..2], ["pid 1", "web-0"]);
    let processes: u32 = lines[2].parse().expect("a number of processes");
    assert!(processes <= 4, "{log}");
    assert!(log.contains("parfait\n"), "{log}");
    for device in ["null", "urandom", "shm", "fd"] {
        assert!(lines.contains(&device), "{log}");
    }
    let homes = log.split("homes\n").nth(1).expect("the homes");
    assert_eq!(homes.trim(), "/home:\n\n/root:", "homes are empty");
}

pub fn few_capabilities_and_no_new_ones(stage: &Stage) {
    let log = stage.output(stage.sh("grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status"));
    let words: Vec<(&str, &str)> = log
        .lines()
        .filter_map(|l| l.split_once(':').map(|(k, v)| (k, v.trim())))
        .collect();
    let few = "0000000000002400"; // NET_BIND_SERVICE (10) and NET_RAW (13)
    for (key, value) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", few),
        ("CapEff", few),
        ("CapBnd", few),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert!(words.contains(&(key, value)), "{key}: {words:?}");
    }
}

pub fn volumes_land_where_they_should(stage: &Stage) {
    let data = stage.dir.path().join("data");
    std::fs::create_dir(&data).expect("mkdir");
    std::fs::write(data.join("seed"), "seed\n").expect("write");
    let hosts = stage.dir.path().join("hosts");
    std::fs::write(&hosts, "10.0.0.1 web-0\n").expect("write");
    let bind = |source: &std::path::Path, target: &str, read_only| Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
    };
    let mut spec = stage.sh(
        "cat /etc/hosts /data/seed /usr/share/no/such/place/seed /run/app/seed
         echo new > /data/new && cat /run/app/new
         echo no > /etc/hosts || echo hosts are read-only
         rm /usr/share/no/such/place/seed || echo place is read-only
         echo made > /usr/share/no/such/mine || echo no, not made",
    );
    spec.root.binds = vec![
        bind(&hosts, "/etc/hosts", true),
        bind(&data, "/data", false),
        bind(&data, "/usr/share/no/such/place", true),
        bind(&data, "/var/run/app", false), // /var/run is a link to /run on the host
    ];
    let log = stage.output(spec);
    assert!(
        log.starts_with("10.0.0.1 web-0\nseed\nseed\nseed\nnew\n"),
        "{log}"
    );
    assert!(log.contains("hosts are read-only"), "{log}");
    assert!(log.contains("place is read-only"), "{log}");
    assert_eq!(
        std::fs::read_to_string(data.join("new")).expect("new"),
        "new\n"
    );
    assert!(!std::path::Path::new("/run/app").exists());
    assert!(!std::path::Path::new("/usr/share/no").exists());
    let mut spec = stage.sh("true");
    spec.root.binds = vec![bind(&data, "/proc/1", false)];
    let Report::Failed { message } = stage.run(spec).report else {
        panic!("a volume on /proc must be refused");
    };
    assert!(message.contains("choose another mountPath"), "{message}");
}

pub fn a_read_only_root_is_read_only(stage: &Stage) {
    let data = stage.dir.path().join("data");
    std::fs::create_dir(&data).expect("mkdir");
    let mut spec = stage.sh(
        "for d in / /etc /usr /tmp /run /var/tmp /home; do touch $d/x 2>/dev/null && echo wrote $d; done
         touch /data/x /dev/shm/x && echo volumes are writable; echo > /dev/null && echo null",
    );
    spec.root.read_only = true;
    spec.root.binds = vec![Bind {
        source: data,
        target: "/data".to_owned(),
        read_only: false,
    }];
    assert_eq!(stage.output(spec), "volumes are writable\nnull\n");
}

pub fn exec_sees_the_same_container(stage: &Stage) {
    let spec = stage.sh("echo mark > /tmp/mark; echo ready; sleep 60");
    let mut running = stage.start(spec.clone());
    let pid = running.started();
    running.wait_for_log("ready");
    let (code, out) = exec(
        pid,
        &spec,
        &["sh", "-c", "cat /tmp/mark /proc/1/comm; hostname; exit 3"],
    );
    assert_eq!((code, out.as_str()), (3, "mark\nsh\nweb-0\n"));
    let (code, out) = exec(
        pid,
        &spec,
        &[
            "sh",
            "-c",
            "grep CapEff /proc/self/status; mount -t tmpfs x /mnt",
        ],
    );
    assert!(out.contains("0000000000002400"), "{out}");
    assert_ne!(code, 0);
    assert_eq!(exec(pid, &spec, &["no-such-program"]).0, 126);
    running.let_go();
    assert_eq!(running.end().signal(), Some(9));
}

pub fn run_as_user_is_taken_where_mapped(stage: &Stage) {
    if !stage.root {
        return; // Without root only 0 is mapped; the kubelet does not ask for others then.
    }
    let mut spec = stage.sh("id; grep CapEff /proc/self/status; touch /usr/x || echo not mine");
    spec.identity = Identity {
        uid: Some(1000),
        gid: Some(1001),
        groups: vec![1002],
    };
    let log = stage.output(spec);
    assert!(log.contains("uid=1000"), "{log}");
    assert!(log.contains("gid=1001"), "{log}");
    assert!(log.contains("1002"), "{log}");
    assert!(log.contains("0000000000000000"), "{log}");
    assert!(log.contains("not mine"), "{log}");
}

pub fn a_signal_reaches_the_program(stage: &Stage) {
    let mut running = stage
        .start(stage.sh("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"));
    running.started();
    running.wait_for_log("ready");
    running.signal(libc::SIGTERM as u8);
    let ended = running.end();
    assert_eq!(ended.code(), Some(0));
    assert!(ended.log.ends_with("bye\n"), "{ended:?}");
}

pub fn nothing_outlives_its_monitor(stage: &Stage) {
    let mut running = stage.start(stage.sh("sleep 1000 & echo ready; sleep 1000"));
    let pid = running.started();
    running.wait_for_log("ready");
    running.kill_monitor();
    for _ in 0..300 {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state.is_empty() || state.contains(") Z") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the container outlives its monitor");
}
