//! Queueing disciplines: an interface's token bucket, set, read and removed (tc-tbf(8), linux/pkt_sched.h).
//!
//! ```text
//!   tc qdisc replace dev NAME root handle 1: tbf rate RATE burst BURST limit LIMIT
//! ```
//!
//! The burst goes as `TCA_TBF_BURST`, in bytes, so that no rate tables and no clock of the packet scheduler are needed; it
//! comes back as the time that it takes at this rate, in ticks of 64 ns (`PSCHED_SHIFT`).

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_ECHO, NLM_F_REPLACE, Nla, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use parfait_linux::{IfName, Tbf};
use rustix::io::Errno;

use crate::execute::refused;
use crate::{Error, Socket, message};

/// `TCA_TBF_*` of linux/pkt_sched.h.
const PARMS: u16 = 1;
const RATE64: u16 = 4;
const BURST: u16 = 6;

/// `TC_LINKLAYER_ETHERNET`.
const ETHERNET: u8 = 1;

/// Nanoseconds in a tick of the packet scheduler.
const TICK: u128 = 64;

impl Socket {
    /// Gives an interface a token bucket, in place of whatever queue it has.
    ///
    /// # Errors
    /// If there is no such interface, or the kernel refuses.
    pub fn set_tbf(&mut self, link: &IfName, tbf: &Tbf) -> Result<(), Error> {
        let step = || format!("tc qdisc replace dev {link} root handle 1: {tbf}");
        let Some(mut message) = self.at_root(link)? else {
            return Err(Error::NoSuchLink {
                step: step(),
                link: link.to_string(),
            });
        };
        message.header.handle = TcHandle { major: 1, minor: 0 };
        message.attributes = vec![
            TcAttribute::Kind("tbf".to_owned()),
            TcAttribute::Options(options(tbf)),
        ];
        let request = Message::NewQueueDiscipline(message);
        self.one((request, NLM_F_CREATE | NLM_F_REPLACE))?
            .map_err(|refusal| refused(step(), refusal))
    }

    /// The token bucket at an interface's root, if that is what it has.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn tbf(&mut self, link: &IfName) -> Result<Option<Tbf>, Error> {
        let Some(message) = self.at_root(link)? else {
            return Ok(None);
        };
        let question = Message::GetQueueDiscipline(message);
        // The answer is a notification, which the one who asks gets only as an echo (tc_get_qdisc in sch_api.c).
        Ok(
            match self.ask_with("a queueing discipline", question, NLM_F_ECHO)? {
                Some(Message::NewQueueDiscipline(found)) => read(&found),
                _ => None,
            },
        )
    }

    /// Takes an interface's token bucket away. Success if it has none.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove_tbf(&mut self, link: &IfName) -> Result<(), Error> {
        if self.tbf(link)?.is_none() {
            return Ok(());
        }
        let Some(message) = self.at_root(link)? else {
            return Ok(());
        };
        match self.one((Message::DelQueueDiscipline(message), 0))? {
            Err(refusal) if [Errno::NOENT, Errno::NODEV].contains(&refusal.errno) => Ok(()),
            done => done.map_err(|no| refused(format!("tc qdisc del dev {link} root"), no)),
        }
    }

    /// A message about the root of an interface's queues; `None` if there is no such interface.
    fn at_root(&mut self, link: &IfName) -> Result<Option<TcMessage>, Error> {
        let question = Message::GetLink(message::link_by_name(link));
        let Some(Message::NewLink(found)) = self.ask("a link", question)? else {
            return Ok(None);
        };
        let mut message = TcMessage::default();
        message.header.index = found.header.index.cast_signed();
        message.header.parent = TcHandle::ROOT;
        Ok(Some(message))
    }
}

/// `struct tc_tbf_qopt`: the rate's and the peak rate's `struct tc_ratespec`, limit, buffer, mtu.
fn options(tbf: &Tbf) -> Vec<TcOption> {
    let mut parms = [0; 36];
    parms[1] = ETHERNET;
    let rate = u32::try_from(tbf.rate).unwrap_or(u32::MAX);
    parms[8..12].copy_from_slice(&rate.to_ne_bytes());
    parms[24..28].copy_from_slice(&tbf.limit.to_ne_bytes());
    let option = |kind, value: &[u8]| TcOption::Other(DefaultNla::new(kind, value.to_vec()));
    vec![
        option(PARMS, &parms),
        option(RATE64, &tbf.rate.to_ne_bytes()),
        option(BURST, &tbf.burst.to_ne_bytes()),
    ]
}

fn read(message: &TcMessage) -> Option<Tbf> {
    let kind = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Kind(kind) => Some(kind.as_str()),
            _ => None,
        });
    if kind != Some("tbf") {
        return None;
    }
    let options = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            TcAttribute::Options(options) => Some(options),
            _ => None,
        })?;
    // The library knows no options of this kind: it leaves them as the bytes of one.
    let [TcOption::Other(nla)] = &options[..] else {
        return None;
    };
    let mut bytes = vec![0; nla.value_len()];
    nla.emit_value(&mut bytes);
    let value = |wanted: u16| {
        let mut all = NlasIterator::new(&bytes).filter_map(Result::ok);
        all.find(|one| one.kind() == wanted)
            .map(|one| one.value().to_vec())
    };
    let parms = value(PARMS)?;
    let word = |at: usize| Some(u32::from_ne_bytes(parms.get(at..at + 4)?.try_into().ok()?));
    let large = value(RATE64).and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)));
    let rate = large.map_or_else(|| word(8).map(u64::from), Some)?;
    let nanoseconds = u128::from(word(28)?) * TICK;
    let burst = nanoseconds * u128::from(rate) / 1_000_000_000;
    Some(Tbf {
        rate,
        burst: u32::try_from(burst).unwrap_or(u32::MAX),
        limit: word(24)?,
    })
}
