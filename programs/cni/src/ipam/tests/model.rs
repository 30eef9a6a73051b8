//! A node whose kernel is two maps, and what a runtime does with it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ipnet::IpNet;
use parfait_linux::IfName;
use parfait_linux::attachment::{host_interface, host_mac};

use super::super::*;
use crate::file::Moment;

/// The kernel of a node, and whose connections are left of each address.
#[derive(Clone, Debug, Default)]
pub(super) struct Kernel(pub Seen, pub BTreeMap<IpAddr, IfName>);

impl Reality for Kernel {
    fn look(&mut self) -> Result<Seen, Error> {
        Ok(self.0.clone())
    }

    fn is_routed(&mut self, address: IpAddr) -> Result<bool, Error> {
        Ok(self.0.routes.contains_key(&address))
    }

    fn detach(&mut self, interface: &IfName, addresses: &[IpAddr]) -> Result<(), Error> {
        let mac = host_mac(addresses[0]);
        if self.0.links.get(&mac) == Some(interface) {
            self.0.links.remove(&mac);
            self.0
                .routes
                .retain(|ip, link| link != interface || !addresses.contains(ip));
        }
        Ok(())
    }

    fn forget(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        self.1.retain(|address, _| !addresses.contains(address));
        Ok(())
    }

    fn isolate(&mut self, _: &IfName, _: &[IpAddr]) -> Result<(), Error> {
        Ok(())
    }
}

impl Kernel {
    /// As the plugin attaches: an earlier interface of that name goes. What runs there has connections from then on.
    pub fn attach(&mut self, record: &Record) {
        let own = record.addresses.iter();
        self.1.extend(own.map(|ip| (*ip, record.interface.clone())));
        self.0.links.retain(|_, name| *name != record.interface);
        self.0.routes.retain(|_, name| *name != record.interface);
        let mac = host_mac(record.addresses[0]);
        self.0.links.insert(mac, record.interface.clone());
        for address in &record.addresses {
            self.0.routes.insert(*address, record.interface.clone());
        }
    }
}

/// A node and what its runtime knows.
pub(super) struct Node {
    pub folder: tempfile::TempDir,
    pub kernel: Kernel,
    pub boot: u32,
    pub ranges: Vec<IpNet>,
    /// The live attachments, as the runtime was told.
    pub live: BTreeMap<u8, Vec<IpAddr>>,
}

pub(super) fn id(number: u8) -> AttachmentId {
    AttachmentId {
        container: format!("c{number}"),
        ifname: "eth0".to_owned(),
    }
}

pub(super) fn ranges(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl Node {
    pub fn new(texts: &[&str]) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            kernel: Kernel::default(),
            boot: 1,
            ranges: ranges(texts),
            live: BTreeMap::new(),
        }
    }

    pub fn boot(&self) -> String {
        format!("boot-{}", self.boot)
    }

    pub fn store(&self) -> Store {
        Store::new(self.folder.path())
    }

    pub fn ipam(&self) -> Ipam<'static> {
        Ipam::new(self.folder.path(), &self.boot(), &|_| {})
    }

    pub fn netns(&self, number: u8) -> PathBuf {
        self.folder.path().join(format!("netns-{number}"))
    }

    pub fn wanted(&self, number: u8, wished: &[IpAddr]) -> Record {
        Record {
            id: id(number),
            network: "n".to_owned(),
            pod: None,
            interface: host_interface("default", &format!("web-{number}")),
            addresses: wished.to_vec(),
            mac: None,
            port_mappings: Vec::new(),
            bandwidth: None,
            netns: Some(self.netns(number)),
            boot: String::new(),
        }
    }

    /// ADD up to `moment`, or to its end. What it answered.
    pub fn add(
        &mut self,
        number: u8,
        wished: &[IpAddr],
        moment: Option<Moment>,
    ) -> Option<Result<Vec<IpAddr>, Error>> {
        std::fs::write(self.netns(number), "").unwrap();
        let wanted = self.wanted(number, wished);
        let (path, boot) = (self.folder.path().to_owned(), self.boot());
        let pool = Pool::parse(&self.ranges, &[]).unwrap();
        let kernel = &mut self.kernel;
        let clean = Cell::new(true);
        let done = killed_at(moment, |hook| {
            let given = Ipam::new(&path, &boot, hook).allocate(wanted, &pool, kernel)?;
            // What this panics with would pass for being killed.
            let own = &given.record.interface;
            let left = |ip| kernel.1.get(ip).is_some_and(|whose| whose != own);
            clean.set(!given.record.addresses.iter().any(left));
            kernel.attach(&given.record);
            Ok(given.attached()?.addresses)
        });
        assert!(
            clean.get(),
            "{number} was given an address that has another's connections"
        );
        if let Some(Ok(addresses)) = &done {
            self.live.insert(number, addresses.clone());
        }
        done
    }

    pub fn del(&mut self, number: u8, moment: Option<Moment>) {
        let _ = std::fs::remove_file(self.netns(number));
        self.live.remove(&number);
        let (path, boot) = (self.folder.path().to_owned(), self.boot());
        let kernel = &mut self.kernel;
        let done = killed_at(moment, |hook| {
            Ipam::new(&path, &boot, hook).release(&id(number), kernel)
        });
        if let Some(done) = done {
            done.unwrap();
        }
    }

    pub fn collect(&mut self, moment: Option<Moment>) {
        let valid = self.live.keys().map(|number| id(*number)).collect();
        let (path, boot) = (self.folder.path().to_owned(), self.boot());
        let kernel = &mut self.kernel;
        let done = killed_at(moment, |hook| {
            Ipam::new(&path, &boot, hook).collect("n", &valid, kernel)
        });
        if let Some(done) = done {
            done.unwrap();
        }
    }

    /// Power goes and comes back: nothing lives any more.
    pub fn reboot(&mut self) {
        for number in std::mem::take(&mut self.live).into_keys() {
            let _ = std::fs::remove_file(self.netns(number));
        }
        self.kernel = Kernel::default();
        self.boot += 1;
    }

    pub fn names(&self) -> Vec<Name> {
        self.store().names().unwrap()
    }
}

/// Runs until `moment` comes, and is killed then: `None`. Unwinding does what the kernel does to a killed process:
/// locks go, files stay.
fn killed_at<T>(moment: Option<Moment>, run: impl FnOnce(Hook<'_>) -> T) -> Option<T> {
    let hook = |now: Moment| {
        if Some(now) == moment {
            resume_unwind(Box::new("killed"));
        }
    };
    catch_unwind(AssertUnwindSafe(|| run(&hook))).ok()
}
