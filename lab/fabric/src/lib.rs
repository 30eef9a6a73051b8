//! The machines of the one-machine cluster: an underlay switch and nodes, made of Linux namespaces.
//!
//! ```text
//!   host ─ 127.0.0.1:PORT, [::1]:PORT        (sockets bound before the namespaces are left)
//!            │ the API server listens here and on 192.168.77.1 / fd00:77::1
//!   ┌────────┴──────────────── the lab: own user (rootless), mount, PID, net, IPC, UTS ─────┐
//!   │  PID 1 init ── PID 2 supervisor                                                       │
//!   │                                                                                       │
//!   │        bridge "underlay"  192.168.77.1/24  fd00:77::1/64                              │
//!   │          │ n1            │ n2            │ n3                                         │
//!   │   ┌──────┴─────┐  ┌──────┴─────┐  ┌──────┴─────┐    a network namespace each          │
//!   │   │ node-1 eth0│  │ node-2 eth0│  │ node-3 eth0│    .11 / ::11, .12 / ::12, …         │
//!   │   └────────────┘  └────────────┘  └────────────┘                                      │
//!   └───────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What it promises: the host's interfaces, routes, rulesets and mounts are never touched; every
//! namespace is held only by the lab's own processes, so that the death of PID 1, by SIGKILL too,
//! takes all of it away; what is left on disk (the state directory, empty cgroups) is removed by
//! the next command. It works as root, and without root in a user namespace.
//!
//! What it leaves out: the cluster. Which programs run on the machines (the API server, the
//! controllers, an agent and a kubelet a node) is decided by `programs/parfait`, which hands
//! [`supervise`] a function to run when the machines stand. The fabric has no uplink. The picture is
//! the flat underlay, whose switch does not forward: a node reaches its neighbours and the switch,
//! nothing else. In the others ([`Underlay`]) the lab's own namespace is a router between segments.
//!
//! Sources: `namespaces(7)`, `user_namespaces(7)`, `pid_namespaces(7)`, `bridge(8)`, `veth(4)`.

mod cgroup;
mod children;
mod down;
mod enter;
mod error;
mod event;
mod host;
mod init;
mod lock;
mod name;
mod probe;
mod process;
mod router;
mod spec;
mod state;
mod supervise;
mod target;
mod underlay;
mod up;

pub use cgroup::lab_cgroup_name;
pub use children::{Child, ChildEvent, LogFile, Supervised};
pub use down::{Ended, down, sweep};
pub use enter::{exec, run_in};
pub use error::Error;
pub use event::{Event, Events};
pub use name::LabName;
pub use process::ProcessId;
pub use router::{Router, has_learned};
pub use spec::{
    IpFamily, LabSpec, NodeAddresses, Routing, Segment, UNDERLAY_GATEWAY4, UNDERLAY_GATEWAY6,
    Underlay,
};
pub use state::{Condition, LabDir, Record, StateRoot};
pub use supervise::{Inside, Machine, supervise};
pub use target::Target;
pub use up::{Starting, start};
