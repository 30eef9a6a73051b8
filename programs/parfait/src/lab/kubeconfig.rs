//! `parfait lab kubeconfig`: how kubectl and others reach the lab.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use parfait_lab_fabric::StateRoot;

use super::api;
use crate::args::Kubeconfig;
use crate::exit::{DONE, Failure};
use crate::output::say;

pub fn run(root: &StateRoot, args: &Kubeconfig) -> Result<u8, Failure> {
    let lab = api::running(root, &args.which.name)?;
    let path = lab.dir.kubeconfig();
    if args.path {
        say!("{}", path.display());
        return Ok(DONE);
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
    let Some(to) = &args.write else {
        say!("{}", text.trim_end());
        return Ok(DONE);
    };
    // It holds a token: readable by its owner alone.
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(to)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|e| Failure::failed(format!("{}: {e}", to.display())))?;
    eprintln!(
        "wrote {}; use it with: export KUBECONFIG={}",
        to.display(),
        to.display()
    );
    Ok(DONE)
}
