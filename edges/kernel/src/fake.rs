//! [`FakeKernel`]: a network namespace in memory, whose calls can be made to fail.
//!
//! It applies steps as [`State::apply`] says and, like the real one, keeps foreign things: a create
//! onto something else is a conflict, a delete of what is gone succeeds. Left out: what a kernel
//! does by itself (connected routes, link-local addresses, learned neighbours).

use std::collections::BTreeMap;

use parfait_linux::{Object, State, Step, SysctlKey};
use rustix::io::Errno;

use crate::{Error, Kernel};

/// One thing that was asked of a [`FakeKernel`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// It was observed.
    Observe,
    /// It was given this step.
    Execute(Box<Step>),
}

/// A network namespace in memory.
#[derive(Clone, Debug, Default)]
pub struct FakeKernel {
    /// What it holds.
    pub state: State,
    /// What was asked of it so far, in order. The position of a call counts for `faults`.
    pub calls: Vec<Call>,
    /// Which calls fail, by their position since the start, and with what. A failing step changes
    /// nothing.
    pub faults: BTreeMap<usize, Errno>,
}

impl FakeKernel {
    /// One that holds this.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self {
            state,
            ..Self::default()
        }
    }

    /// Makes the call at this position fail.
    #[must_use]
    pub fn fail(mut self, position: usize, errno: Errno) -> Self {
        self.faults.insert(position, errno);
        self
    }

    fn call(&mut self, call: Call) -> Result<(), Errno> {
        let fault = self.faults.get(&self.calls.len()).copied();
        self.calls.push(call);
        fault.map_or(Ok(()), Err)
    }

    fn step(&mut self, step: &Step) -> Result<(), Error> {
        self.call(Call::Execute(Box::new(step.clone())))
            .map_err(|errno| Error::Step {
                step: step.to_string(),
                errno,
                message: None,
            })?;
        if let Some(link) = needed(step.object())
            && !matches!(step, Step::Delete(_))
            && !self.state.links.contains_key(link)
        {
            return Err(Error::NoSuchLink {
                step: step.to_string(),
                link: link.to_string(),
            });
        }
        if let Step::Create(item) = step
            && let Some(found) = self.in_the_way(&item.value)
        {
            return Err(Error::Conflict {
                step: step.to_string(),
                found: found.to_string(),
            });
        }
        self.state.apply(step);
        match step {
            Step::Create(item) if !self.state.satisfies(&item.value) => Err(Error::Conflict {
                step: step.to_string(),
                found: "something else".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// What the kernel cannot hold beside this: it keeps one route of a destination and metric for
    /// whoever asks for an exclusive one, and one forwarding entry of an Ethernet address.
    fn in_the_way(&self, object: &Object) -> Option<Object> {
        match object {
            Object::Route(wanted) => {
                let slot = (wanted.destination, wanted.metric);
                let routes = self.state.routes.values().map(|item| &item.value);
                let mut others =
                    routes.filter(|r| (r.destination, r.metric) == slot && *r != wanted);
                others.next().cloned().map(Into::into)
            }
            Object::Fdb(wanted) => {
                let mut entries = self.state.fdb.values().map(|item| &item.value);
                let found = entries.find(|found| wanted.displaces(found));
                found.cloned().map(Into::into)
            }
            _ => None,
        }
    }
}

/// The link that an object lies on.
fn needed(object: &Object) -> Option<&parfait_linux::IfName> {
    match object {
        Object::Address(address) => Some(&address.link),
        Object::Route(route) => route.link.as_ref(),
        Object::Neighbour(neighbour) => Some(&neighbour.link),
        Object::Fdb(entry) => Some(&entry.link),
        Object::Link(_) | Object::Sysctl(_) => None,
    }
}

impl Kernel for FakeKernel {
    fn observe(&mut self, sysctls: &[SysctlKey]) -> Result<State, Error> {
        self.call(Call::Observe).map_err(|errno| Error::Exchange {
            operation: "observing".to_owned(),
            errno,
        })?;
        let mut state = self.state.clone();
        state.sysctls.retain(|key, _| sysctls.contains(key));
        Ok(state)
    }

    fn execute(&mut self, steps: &[Step]) -> Result<(), Vec<Error>> {
        let errors: Vec<_> = steps
            .iter()
            .filter_map(|step| self.step(step).err())
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }
}
