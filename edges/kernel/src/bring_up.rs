//! Bringing a link up that is right before it carries anything.
//!
//! Settings of a link that rtnetlink takes (`IFLA_AF_SPEC` of rtnetlink(7)) go with its alias, in one message; for the
//! kernel that is a fraction of opening and closing a file below /proc/sys for each. The others are written there.
//!
//! | setting | attribute (linux/if_link.h) |
//! |---|---|
//! | `net.ipv4.conf.*.send_redirects`, `rp_filter` | `IFLA_INET_CONF`, numbered as in linux/ip.h |
//! | `net.ipv6.conf.*.addr_gen_mode` | `IFLA_INET6_ADDR_GEN_MODE` |

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{AfSpecInet, AfSpecInet6, AfSpecUnspec, LinkAttribute};
use parfait_linux::{Alias, IfName, Sysctl, SysctlKey};
use parfait_packet::Family;

use crate::execute::refused;
use crate::{Error, Socket, message, sysctl};

/// `IFLA_INET_CONF` of linux/if_link.h.
const INET_CONF: u16 = 1;

/// `IPV4_DEVCONF_*` of linux/ip.h.
const IPV4_NUMBERS: [(&str, u16); 2] = [("send_redirects", 6), ("rp_filter", 8)];

impl Socket {
    /// Gives a link its alias and settings of its own, and brings it up when it has them.
    ///
    /// # Errors
    /// If there is no such link or setting, or the kernel refuses.
    pub fn bring_up(
        &mut self,
        link: &IfName,
        alias: &Alias,
        settings: &[Sysctl],
    ) -> Result<(), Error> {
        let mut message = message::link_by_name(link);
        let alias = LinkAttribute::IfAlias(alias.as_str().to_owned());
        message.attributes.push(alias);
        let (with_link, files): (Vec<_>, Vec<_>) = settings
            .iter()
            .partition(|setting| attribute(link, setting).is_some());
        let of = with_link.iter().filter_map(|one| attribute(link, one));
        message
            .attributes
            .push(LinkAttribute::AfSpecUnspec(of.collect()));
        self.one((Message::SetLink(message), 0))?
            .map_err(|refusal| {
                let settings: Vec<_> = with_link.iter().map(ToString::to_string).collect();
                refused(
                    format!("setting the alias of {link}, {}", settings.join(", ")),
                    refusal,
                )
            })?;
        self.inside(|| files.into_iter().try_for_each(sysctl::write))??;
        self.set_up(link)
    }
}

/// A setting of this link as a part of `IFLA_AF_SPEC`, if the kernel takes it there.
fn attribute(link: &IfName, setting: &Sysctl) -> Option<AfSpecUnspec> {
    let is = |family, name| setting.key == SysctlKey::conf(family, link, name);
    if is(Family::Ipv6, "addr_gen_mode") {
        let mode: u8 = setting.value.parse().ok()?;
        let mode = AfSpecInet6::AddrGenMode(mode.into());
        return Some(AfSpecUnspec::Inet6(vec![mode]));
    }
    let (_, number) = IPV4_NUMBERS
        .iter()
        .find(|(name, _)| is(Family::Ipv4, name))?;
    let value: u32 = setting.value.parse().ok()?;
    // struct nlattr with a number of 32 bits.
    let mut nested = 8u16.to_ne_bytes().to_vec();
    nested.extend(number.to_ne_bytes());
    nested.extend(value.to_ne_bytes());
    let conf = AfSpecInet::Other(DefaultNla::new(INET_CONF, nested));
    Some(AfSpecUnspec::Inet(vec![conf]))
}
