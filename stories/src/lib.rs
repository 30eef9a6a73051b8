//! Stories: end-to-end tests that read like a tutorial.
//!
//! A story is a Markdown file in this folder, `NN-name.md`. A student reads it; this crate plays it:
//! it types the commands of the `console` blocks and compares what they print.
//!
//! ````text
//! # Two pods on two nodes
//!
//! Needs: `namespaces`, `kubectl`
//!
//! ```yaml pods.yaml                      a block with a file name is written to that file
//! kind: Pod
//! ```
//!
//! ```console
//! $ kubectl apply -f pods.yaml           a command, run by bash
//! pod/a created                          what it must print, stdout and stderr together
//! $ kubectl get pod a # eventually 30s   tried again until it prints this, for 30 seconds at most
//! NAME  READY  STATUS   RESTARTS  AGE
//! a     1/1    Running  0         [TIME]
//! $ parfait explain pod/a pod/nobody     the exit code must be 0, or the one named
//! ? 2
//! ...                                    any lines
//! ```
//! ````
//!
//! Within a line `[..]` stands for any text, `[IP]` for an address, `[N]` for a number and `[TIME]` for a
//! duration or a moment; several blanks count as one, so that columns may move. `# within 120s`
//! changes how long a command may take (a minute otherwise). A line after a command that begins with
//! `> ` continues the command, as bash shows it.
//!
//! Each story plays in a folder with nothing but the project's `examples`, and an empty home. `parfait`
//! is the binary just built. The exported variables and the working directory live on from one command to the next. `PARFAIT_LAB`
//! is a lab name of the story's own, and that lab is taken down when the story ends, however it ends.
//!
//! Left out on purpose: standard input, terminals, and stories at the same time: each may be a whole
//! cluster, and its figures should be its own.

pub mod pattern;
pub mod play;
pub mod story;

pub use play::{Outcome, Stage};
pub use story::Story;
