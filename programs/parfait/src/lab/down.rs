//! `parfait lab down`: ends labs and leaves nothing.

use parfait_lab_fabric::{Ended, StateRoot, down, sweep};

use crate::args::Down;
use crate::exit::{DONE, FAILED, Failure};
use crate::output::say;

pub fn run(root: &StateRoot, args: &Down) -> Result<u8, Failure> {
    let names = if args.all {
        root.names()?
    } else {
        vec![args.which.name.clone()]
    };
    if names.is_empty() {
        say!("no lab is running: nothing to do");
    }
    let mut code = DONE;
    for name in names {
        match down(root, &name, args.grace) {
            Ok(Ended::Stopped) => say!("lab {name} is down: nothing of it is left"),
            Ok(Ended::Killed) => say!(
                "lab {name} is down: its programs did not end in {:?} and were killed; nothing of it is left",
                args.grace
            ),
            Ok(Ended::WasDead) => say!("lab {name} had died already; what it left is removed"),
            Ok(Ended::NothingThere) => say!("lab {name} is not running: nothing to do"),
            // With --all the others must go all the same.
            Err(error) => {
                eprintln!("parfait: {error}");
                code = FAILED;
            }
        }
    }
    for name in sweep(root)? {
        say!("lab {name} had died; what it left is removed too");
    }
    Ok(code)
}
