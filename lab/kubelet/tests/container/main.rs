//! A pod cannot harm the machine: the container, tried with programs that mean no good.
//!
//! This target has its own `main`, for two reasons: it is also the `lab-container` program (the tests start
//! it as the kubelet would), and it runs every test twice, as root and without root in a user namespace,
//! each time in mount, PID and network namespaces of its own.

mod harm;
mod running;
mod stage;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};

type Test = fn(&stage::Stage);

/// The tests in this order: the ones that try harm come after those which show that the walls stand.
const TESTS: &[(&str, Test)] = &[
    (
        "output_and_exit_code_come_back",
        running::output_and_exit_code_come_back,
    ),
    (
        "a_missing_program_is_explained",
        running::a_missing_program_is_explained,
    ),
    (
        "the_container_is_by_itself",
        running::the_container_is_by_itself,
    ),
    (
        "few_capabilities_and_no_new_ones",
        running::few_capabilities_and_no_new_ones,
    ),
    (
        "volumes_land_where_they_should",
        running::volumes_land_where_they_should,
    ),
    (
        "a_read_only_root_is_read_only",
        running::a_read_only_root_is_read_only,
    ),
    (
        "exec_sees_the_same_container",
        running::exec_sees_the_same_container,
    ),
    (
        "run_as_user_is_taken_where_mapped",
        running::run_as_user_is_taken_where_mapped,
    ),
    (
        "a_signal_reaches_the_program",
        running::a_signal_reaches_the_program,
    ),
    (
        "nothing_outlives_its_monitor",
        running::nothing_outlives_its_monitor,
    ),
    ("writes_stay_inside", harm::writes_stay_inside),
    ("secrets_are_not_shown", harm::secrets_are_not_shown),
    (
        "switches_of_the_machine_are_out_of_reach",
        harm::switches_of_the_machine_are_out_of_reach,
    ),
    (
        "the_hosts_devices_keep_their_modes",
        harm::the_hosts_devices_keep_their_modes,
    ),
    (
        "a_volume_may_be_mounted_below_what_is_hidden",
        harm::a_volume_may_be_mounted_below_what_is_hidden,
    ),
    (
        "what_not_everybody_may_read_is_not_shown",
        harm::what_not_everybody_may_read_is_not_shown,
    ),
    (
        "forbidden_calls_are_refused",
        harm::forbidden_calls_are_refused,
    ),
    (
        "kill_all_kills_only_itself",
        harm::kill_all_kills_only_itself,
    ),
    (
        "removing_everything_removes_nothing",
        harm::removing_everything_removes_nothing,
    ),
    ("a_fork_bomb_hits_a_wall", harm::a_fork_bomb_hits_a_wall),
    ("memory_has_a_limit", harm::memory_has_a_limit),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("lab-container") => parfait_lab_kubelet::container_main(),
        Some("inside") => run_all(args.get(2).map_or("", String::as_str), args.get(3)),
        Some("--list") => ExitCode::SUCCESS,
        filter => twice(filter.filter(|f| !f.starts_with('-'))),
    }
}

/// Runs this program again, as root and rootless, in namespaces.
fn twice(filter: Option<&str>) -> ExitCode {
    if !rustix::process::geteuid().is_root() {
        eprintln!("container tests: without root, only the rootless half runs");
        return half("rootless", filter, &["-r"]);
    }
    let root = half("root", filter, &[]);
    let rootless = half("rootless", filter, &["-r"]);
    if root == ExitCode::SUCCESS {
        rootless
    } else {
        root
    }
}

fn half(kind: &str, filter: Option<&str>, unshare: &[&str]) -> ExitCode {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let copy = dir.path().join("parfait");
    let own = std::env::current_exe().expect("own path");
    std::fs::copy(own, &copy).expect("copy of this program");
    let mut command = if kind == "rootless" && rustix::process::geteuid().is_root() {
        let mut c = Command::new("setpriv");
        c.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "unshare",
            "-U",
        ]);
        c
    } else {
        Command::new("unshare")
    };
    let status = command
        .args(unshare)
        .args(["-m", "-p", "-f", "-n", "--mount-proc", "--kill-child"])
        .arg(&copy)
        .args(["inside", kind])
        .args(filter)
        .env("PARFAIT_TEST_STATE", dir.path())
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("container tests: the {kind} half failed: {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("container tests: cannot start unshare(1) for the {kind} half: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(kind: &str, filter: Option<&String>) -> ExitCode {
    let mut failed = 0;
    for (name, test) in TESTS {
        if filter.is_some_and(|f| !name.contains(f.as_str())) {
            continue;
        }
        let stage = stage::Stage::new(kind == "root");
        let begun = std::time::Instant::now();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&stage)));
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {kind}::{name} ... {word} ({:.1?})", begun.elapsed());
        if result.is_err() {
            failed += 1;
            // What follows may only be tried behind walls that stand.
            if name.starts_with("writes_stay_inside") {
                break;
            }
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
