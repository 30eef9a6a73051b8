//! Doing steps. Links and settings one by one, as others need them; everything between two of them
//! in batches.
//!
//! | step | not an error |
//! |---|---|
//! | create | it is there just like this (EEXIST, and it compares equal) |
//! | delete | it is gone (ESRCH, ENOENT, ENODEV, EADDRNOTAVAIL), or its link is |

use std::collections::HashMap;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage as Message;
use parfait_linux::{Address, IfName, Item, Link, Mac, Object, Offload, State, Step, SysctlKey};
use rustix::io::Errno;

use crate::socket::{Refusal, Request};
use crate::{Error, Kernel, NetNs, Socket, message, offload, sysctl};

impl Kernel for Socket {
    fn observe(&mut self, sysctls: &[SysctlKey]) -> Result<State, Error> {
        Self::observe(self, sysctls)
    }

    fn execute(&mut self, steps: &[Step]) -> Result<(), Vec<Error>> {
        let mut run = Run {
            socket: self,
            indexes: HashMap::new(),
            batch: Vec::new(),
            present: None,
            errors: Vec::new(),
        };
        for step in steps {
            run.step(step);
        }
        run.flush();
        let errors = run.errors;
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    fn offload(&mut self, link: &IfName) -> Option<Offload> {
        Some(offload::observe(link))
    }
}

impl Socket {
    /// Makes a veth pair: `near` here, `far` in another namespace (or here too).
    ///
    /// # Errors
    /// If the kernel refuses, for instance because one of the names is taken.
    pub fn create_veth(
        &mut self,
        near: &Link,
        far: &Link,
        far_netns: Option<&NetNs>,
    ) -> Result<(), Error> {
        let step = || format!("ip link add {} type veth peer name {}", near.name, far.name);
        let pair = message::veth_pair(near, far, far_netns);
        let create = (Message::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL);
        self.one(create)?
            .map_err(|refusal| refused(step(), refusal))?;
        if let Some(alias) = message::link_alias(near) {
            self.one((Message::SetLink(alias), 0))?
                .map_err(|refusal| refused(step(), refusal))?;
        }
        match far_netns {
            _ if !far.up => Ok(()),
            None => self.set_up(&far.name),
            Some(netns) => Self::open_in(netns)?.set_up(&far.name),
        }
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// If there is no such link, or the kernel refuses.
    pub fn set_up(&mut self, link: &IfName) -> Result<(), Error> {
        let request = (Message::SetLink(message::link_up(link)), 0);
        self.one(request)?
            .map_err(|refusal| refused(format!("ip link set dev {link} up"), refusal))
    }

    /// Removes a link. `false` if there was none.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_link(&mut self, link: &IfName) -> Result<bool, Error> {
        let request = (Message::DelLink(message::link_by_name(link)), 0);
        match self.one(request)? {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.errno == Errno::NODEV => Ok(false),
            Err(refusal) => Err(refused(format!("ip link del {link}"), refusal)),
        }
    }

    /// Removes a link if it has this Ethernet address. Not by its name, which another may have taken
    /// meanwhile. `false` if there was none.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or refuses.
    pub fn delete_link_with(&mut self, name: &IfName, mac: Mac) -> Result<bool, Error> {
        let Some(index) = self.index_with(name, mac)? else {
            return Ok(false);
        };
        let request = message::link_by_index(index);
        match self.one((Message::DelLink(request), 0))? {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.errno == Errno::NODEV => Ok(false),
            Err(refusal) => Err(refused(format!("ip link del {name}"), refusal)),
        }
    }

    /// One link as it is, if it is there. A peer or master is not named.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn link(&mut self, name: &IfName) -> Result<Option<Link>, Error> {
        let question = Message::GetLink(message::link_by_name(name));
        Ok(match self.ask("a link", question)? {
            Some(Message::NewLink(found)) => crate::observe::link(&found, &HashMap::new()),
            _ => None,
        })
    }

    /// Lets the kernel keep these addresses for as long again as they are lent: it takes them away by itself if that is
    /// not said, since whoever stood for them may be gone, and another machine has them by then.
    ///
    /// # Errors
    /// If the kernel refuses, or an address's link is gone.
    pub fn lend(&mut self, addresses: &[Address]) -> Result<(), Error> {
        for address in addresses {
            let item = Item::new(Object::from(address.clone()), None);
            let step = || Step::Change(item.clone()).to_string();
            let index = self
                .index(&address.link)?
                .ok_or_else(|| Error::NoSuchLink {
                    step: step(),
                    link: address.link.to_string(),
                })?;
            let lent = Message::NewAddress(message::address(address, index));
            self.one((lent, NLM_F_REPLACE))?
                .map_err(|refusal| refused(step(), refusal))?;
        }
        Ok(())
    }

    /// Asked as netdevice(7) does, since rtnetlink would wait for who changes links and tell all about this one.
    pub(crate) fn index(&self, name: &IfName) -> Result<Option<u32>, Error> {
        match rustix::net::netdevice::name_to_index(self, name.as_str()) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(Error::Exchange {
                operation: format!("asking for the number of {name}"),
                errno,
            }),
        }
    }
}

pub(crate) fn refused(step: String, refusal: Refusal) -> Error {
    Error::Step {
        step,
        errno: refusal.errno,
        message: refusal.message,
    }
}

/// One call of [`Kernel::execute`].
struct Run<'a> {
    socket: &'a mut Socket,
    /// Link numbers, as far as they were asked for.
    indexes: HashMap<IfName, u32>,
    /// What waits to be sent.
    batch: Vec<(Step, Request)>,
    /// What is there, read once when something is found in the way.
    present: Option<State>,
    errors: Vec<Error>,
}

impl Run<'_> {
    fn step(&mut self, step: &Step) {
        let done = match (step, step.object()) {
            (_, Object::Link(link)) => {
                self.flush();
                self.link(step, link)
            }
            (Step::Delete(_), Object::Sysctl(_)) => Ok(()),
            (_, Object::Sysctl(setting)) => {
                self.flush();
                let written = self.socket.inside(|| sysctl::write(setting));
                written.and_then(|written| written)
            }
            _ => self.enqueue(step),
        };
        self.errors.extend(done.err());
    }

    fn link(&mut self, step: &Step, link: &Link) -> Result<(), Error> {
        let master = match &link.master {
            Some(name) => Some(self.index(step, name)?),
            None => None,
        };
        match step {
            Step::Create(_) => {
                let request = Message::NewLink(message::link_to_create(link, master));
                match self.socket.one((request, NLM_F_CREATE | NLM_F_EXCL))? {
                    Err(refusal) if refusal.errno == Errno::EXIST => return self.there(step),
                    done => done.map_err(|refusal| refused(step.to_string(), refusal))?,
                }
                match message::link_alias(link) {
                    Some(alias) => self.socket.one((Message::SetLink(alias), 0))?,
                    None => Ok(()),
                }
            }
            Step::Change(_) => {
                let index = self.index(step, &link.name)?;
                // Being given the address that it has is news to the kernel all the same: it then
                // forgets the link's neighbours, pinned ones too (neigh_changeaddr).
                let mac = self.socket.link(&link.name)?.and_then(|found| found.mac);
                let changed = Link {
                    mac: link.mac.filter(|wanted| mac != Some(*wanted)),
                    ..link.clone()
                };
                let change = message::link_to_change(&changed, index, master);
                self.socket.one((Message::SetLink(change), 0))?
            }
            Step::Delete(_) => {
                self.indexes.remove(&link.name);
                return self.socket.delete_link(&link.name).map(drop);
            }
        }
        .map_err(|refusal| refused(step.to_string(), refusal))
    }

    /// Whether what is there is what should be there.
    fn there(&mut self, step: &Step) -> Result<(), Error> {
        if self.present.is_none() {
            self.present = Some(self.socket.observe(&[])?);
        }
        let present = self.present.as_ref().into_iter().flat_map(State::objects);
        let conflict = |found: &Object| Error::Conflict {
            step: step.to_string(),
            found: found.to_string(),
        };
        let mut in_the_way = None;
        for found in present {
            match (step.object(), &found.value) {
                (Object::Link(wanted), Object::Link(found)) if found.name == wanted.name => {
                    let same = found.satisfies(wanted);
                    return same
                        .then_some(())
                        .ok_or_else(|| conflict(&found.clone().into()));
                }
                (Object::Address(wanted), Object::Address(found)) if found.satisfies(wanted) => {
                    return Ok(());
                }
                (wanted, found) if wanted == found => return Ok(()),
                (wanted, found) if collides(wanted, found) => {
                    in_the_way = Some(conflict(found));
                }
                _ => {}
            }
        }
        Err(in_the_way.unwrap_or_else(|| {
            refused(
                step.to_string(),
                Refusal {
                    errno: Errno::EXIST,
                    message: None,
                },
            )
        }))
    }

    fn index(&mut self, step: &Step, name: &IfName) -> Result<u32, Error> {
        if let Some(index) = self.indexes.get(name) {
            return Ok(*index);
        }
        let index = self.socket.index(name)?.ok_or_else(|| Error::NoSuchLink {
            step: step.to_string(),
            link: name.to_string(),
        })?;
        self.indexes.insert(name.clone(), index);
        Ok(index)
    }

    fn enqueue(&mut self, step: &Step) -> Result<(), Error> {
        let link = match step.object() {
            Object::Address(address) => Some(&address.link),
            Object::Route(route) => route.link.as_ref(),
            Object::Neighbour(neighbour) => Some(&neighbour.link),
            Object::Fdb(entry) => Some(&entry.link),
            Object::Link(_) | Object::Sysctl(_) => None,
        };
        let index = match link.map(|link| self.index(step, link)).transpose() {
            // What lay on a link that is gone is gone.
            Err(Error::NoSuchLink { .. }) if matches!(step, Step::Delete(_)) => return Ok(()),
            index => index?,
        };
        if let Some(message) = message_for(step, index) {
            let flags = match step {
                Step::Create(_) => NLM_F_CREATE | NLM_F_EXCL,
                Step::Change(_) => NLM_F_CREATE | NLM_F_REPLACE,
                Step::Delete(_) => 0,
            };
            self.batch.push((step.clone(), (message, flags)));
        }
        Ok(())
    }

    fn flush(&mut self) {
        let (steps, requests): (Vec<_>, Vec<_>) = self.batch.drain(..).unzip();
        if steps.is_empty() {
            return;
        }
        let answers = match self.socket.request(requests) {
            Ok(answers) => answers,
            Err(error) => return self.errors.push(error),
        };
        // Read anew: what was there before this batch says nothing.
        self.present = None;
        for (step, answer) in steps.iter().zip(answers) {
            if let Err(refusal) = answer {
                let done = self.excuse(step, refusal);
                self.errors.extend(done.err());
            }
        }
    }

    /// A refusal that means that there is nothing to do is none.
    fn excuse(&mut self, step: &Step, refusal: Refusal) -> Result<(), Error> {
        match (step, refusal.errno) {
            (Step::Create(_), Errno::EXIST) => self.there(step),
            (Step::Delete(_), Errno::SRCH | Errno::NOENT | Errno::NODEV | Errno::ADDRNOTAVAIL) => {
                Ok(())
            }
            _ => Err(refused(step.to_string(), refusal)),
        }
    }
}

fn message_for(step: &Step, index: Option<u32>) -> Option<Message> {
    let delete = matches!(step, Step::Delete(_));
    let pick = |new: Message, old: Message| if delete { old } else { new };
    Some(match step.object() {
        Object::Address(address) => {
            let message = message::address(address, index?);
            pick(
                Message::NewAddress(message.clone()),
                Message::DelAddress(message),
            )
        }
        Object::Route(route) => {
            let message = message::route(route, index);
            pick(
                Message::NewRoute(message.clone()),
                Message::DelRoute(message),
            )
        }
        Object::Neighbour(neighbour) => {
            let message = message::neighbour(neighbour, index?);
            pick(
                Message::NewNeighbour(message.clone()),
                Message::DelNeighbour(message),
            )
        }
        Object::Fdb(entry) => {
            let message = message::fdb(entry, index?);
            pick(
                Message::NewNeighbour(message.clone()),
                Message::DelNeighbour(message),
            )
        }
        Object::Link(_) | Object::Sysctl(_) => return None,
    })
}

/// Whether the kernel cannot hold both.
fn collides(wanted: &Object, found: &Object) -> bool {
    match (wanted, found) {
        (Object::Address(a), Object::Address(b)) => {
            a.link == b.link && a.address.addr() == b.address.addr()
        }
        (Object::Route(a), Object::Route(b)) => {
            (a.destination, a.metric) == (b.destination, b.metric)
        }
        (Object::Neighbour(a), Object::Neighbour(b)) => a.key() == b.key(),
        (Object::Fdb(a), Object::Fdb(b)) => a.displaces(b),
        _ => false,
    }
}
