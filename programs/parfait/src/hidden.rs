//! What the program is when it is not people who call it.
//!
//! | called as | is |
//! |---|---|
//! | anything, with `CNI_COMMAND` set and no arguments | the CNI plugin |
//! | `grpc_health_probe …` | the gRPC health probe |
//! | `parfait lab-supervise DIR` | a lab ([`lab::supervise`]) |
//! | `parfait lab-kubelet …` | a node's kubelet |
//! | `parfait lab-container` | PID 1 of a container |
//! | `parfait lab-connect STATE NAME TARGET` | `lab check`'s hands in a pod's network |
//! | `parfait image NAME …` | a built-in program of a container |

use std::path::Path;
use std::process::ExitCode;

use crate::exit::Failure;
use crate::lab;

/// Runs what is meant, unless it is the command line.
pub fn dispatch() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let (program, rest) = arguments.split_first()?;
    if rest.is_empty() && std::env::var_os("CNI_COMMAND").is_some() {
        let environment = |name: &str| std::env::var(name).ok();
        return Some(parfait_cni::main(
            &environment,
            &mut std::io::stdin(),
            &mut std::io::stdout(),
        ));
    }
    if let Some(applet) = parfait_lab_images::applet(program) {
        return Some(applet(rest.to_vec()));
    }
    let (command, rest) = rest.split_first()?;
    let code =
        |done: Result<u8, Failure>| done.map_or_else(|failure| failure.report(), ExitCode::from);
    match (command.as_str(), rest) {
        ("lab-supervise", [dir]) => Some(lab::supervise(Path::new(dir))),
        ("lab-kubelet", rest) => Some(kubelet(rest)),
        ("lab-container", _) => Some(parfait_lab_kubelet::container_main()),
        ("lab-connect", rest) => Some(code(lab::connect(rest))),
        ("image", rest) => Some(parfait_lab_images::main(rest.to_vec())),
        _ => None,
    }
}

fn kubelet(_arguments: &[String]) -> ExitCode {
    ExitCode::FAILURE
}
