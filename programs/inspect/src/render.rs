//! An answer as text, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use parfait_packet::{Hop, Protocol, Reason, Verdict};

use crate::answer::{Answer, Way};
use crate::tracked::Tracked;

/// How many ways are listed.
const MOST_WAYS: usize = 16;

/// How much is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// The verdict, on one line.
    Short,
    /// The steps of one way, and where the others end.
    #[default]
    Normal,
    /// Every way, the reply, and the kernel's side of each step.
    Full,
}

/// An address and port, or an address alone for ICMP.
pub(crate) fn socket(address: IpAddr, port: u16, protocol: Protocol) -> String {
    if protocol.has_ports() {
        SocketAddr::new(address, port).to_string()
    } else {
        address.to_string()
    }
}

/// Prints an answer.
#[must_use]
pub fn render(answer: &Answer, detail: Detail) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(answer, detail, &mut text);
    text
}

fn write(answer: &Answer, detail: Detail, out: &mut String) -> std::fmt::Result {
    let port = match (answer.protocol.has_ports(), answer.port) {
        (true, 0) => String::new(),
        (true, port) => format!(" port {port}/{}", answer.protocol),
        (false, _) => format!(" {}", answer.protocol),
    };
    if detail == Detail::Short {
        return writeln!(
            out,
            "{} → {}{port}: {}",
            answer.from,
            answer.to,
            verdict(&answer.verdict)
        );
    }
    writeln!(out, "{} → {}{port}\n", answer.from, answer.to)?;
    let full = detail == Detail::Full;
    hops("name", &answer.name, full, out)?;
    ways(answer, full, out)?;
    for tracked in &answer.tracked {
        connections(tracked, out)?;
    }
    for note in &answer.notes {
        writeln!(out, "note: {note}")?;
    }
    conclusion(&answer.verdict, out)
}

fn ways(answer: &Answer, full: bool, out: &mut String) -> std::fmt::Result {
    let count = answer.ways.len();
    // Those that decide the verdict come first; of very many ways the others are not listed.
    let decides = |way: &&Way| way.verdict == answer.verdict;
    let mut listed: Vec<(usize, &Way)> = (1..).zip(&answer.ways).collect();
    let worst = answer
        .ways
        .iter()
        .position(|way| decides(&way))
        .unwrap_or(0);
    if count > MOST_WAYS {
        listed.sort_by_key(|(_, way)| !decides(way));
    }
    let unlisted = listed.split_off(count.min(MOST_WAYS));
    for (number, way) in &listed {
        if full && count > 1 {
            writeln!(out, "way {number} of {count}, {}", probability(way))?;
        }
        // Of several ways one is shown whole; one that fails is the one to see.
        if full || *number == worst + 1 {
            hops("there", &way.there, full, out)?;
            hops("back", &way.back, full, out)?;
            if way.verdict == Verdict::Delivered {
                sizes(way, full, out)?;
            }
        }
    }
    if count < 2 {
        return Ok(());
    }
    writeln!(out, "ways")?;
    for (_, way) in &listed {
        let (probability, verdict) = (probability(way), verdict(&way.verdict));
        let by = way.by.as_ref().map(|node| format!("by {node}, "));
        let end = match verdict.starts_with(&way.end) {
            true => String::new(),
            false => format!("{}: ", way.end),
        };
        let by = by.unwrap_or_default();
        writeln!(out, "  {probability:>6}  {by}{end}{verdict}")?;
    }
    let mut more: BTreeMap<String, usize> = BTreeMap::new();
    for (_, way) in &unlisted {
        *more.entry(verdict(&way.verdict)).or_default() += 1;
    }
    for (verdict, count) in more {
        writeln!(out, "  and {count} more: {verdict}")?;
    }
    writeln!(out)
}

/// Connections that there are already.
fn connections(tracked: &Tracked, out: &mut String) -> std::fmt::Result {
    let stale = match tracked.stale {
        0 => String::new(),
        count => format!(", {count} stale"),
    };
    let Tracked {
        node, count, first, ..
    } = tracked;
    writeln!(
        out,
        "open already, as {node} tracks: {count}{stale}; --source-port PORT shows the way of one"
    )?;
    for one in first {
        let pinned = &one.pinned;
        let pod = one.pod.as_ref().map(|pod| format!(" (pod {pod})"));
        write!(
            out,
            "  port {:<5}  {} → {}{}, {}, expires in {} s",
            one.source_port,
            pinned.from,
            pinned.to,
            pod.unwrap_or_default(),
            pinned.state.unwrap_or_default(),
            pinned.expires
        )?;
        match &pinned.stale {
            Some(why) => writeln!(out, "; stale, and the agent removes it: {why}")?,
            None => writeln!(out)?,
        }
    }
    if let more @ 1.. = count.saturating_sub(first.len()) {
        writeln!(out, "  and {more} more")?;
    }
    writeln!(out)
}

/// The largest packets both ways, and what becomes of larger ones.
fn sizes(way: &Way, full: bool, out: &mut String) -> std::fmt::Result {
    let Some(mtu) = way.mtu else {
        return Ok(());
    };
    match way.mtu_back.filter(|back| *back != mtu) {
        None => writeln!(out, "  largest packet: {mtu} bytes")?,
        Some(back) => writeln!(
            out,
            "  largest packet: {mtu} bytes there, {back} bytes back"
        )?,
    }
    let ways = [("", &way.larger), (" back", &way.larger_back)];
    for (which, larger) in ways {
        if let Some(larger) = larger
            && (full || which.is_empty() || way.mtu_back != way.mtu)
        {
            writeln!(out, "  a larger one{which}: {larger}")?;
        }
    }
    writeln!(out)
}

fn hops(title: &str, hops: &[Hop], full: bool, out: &mut String) -> std::fmt::Result {
    if hops.is_empty() {
        return Ok(());
    }
    writeln!(out, "{title}")?;
    let mut place = "";
    for hop in hops {
        if hop.place != place {
            writeln!(out, "  {}", hop.place)?;
            place = &hop.place;
        }
        writeln!(
            out,
            "    {:<11} {:<10} {}",
            hop.layer.to_string(),
            hop.stage.to_string(),
            hop.what
        )?;
        for line in hop.evidence.lines().filter(|_| full) {
            writeln!(out, "    {:<22} | {line}", "")?;
        }
        let mut seen: Vec<String> = hop.origins.iter().map(ToString::to_string).collect();
        seen.dedup();
        if !seen.is_empty() {
            writeln!(out, "    {:<22} because of {}", "", seen.join(", "))?;
        }
    }
    writeln!(out)
}

fn probability(way: &Way) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
    let percent = way.probability.0 as f64 * 100.0 / way.probability.1 as f64;
    match percent < 1.0 {
        true => format!("{percent:.3} %"),
        false => format!("{percent:.0} %"),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Delivered => "delivered".to_owned(),
        Verdict::NotDelivered { reason } => format!("not delivered: {reason}"),
        Verdict::Unknown { reason } => format!("unknown: {reason}"),
    }
}

fn conclusion(of: &Verdict, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{}", verdict(of))?;
    match of {
        Verdict::Delivered => Ok(()),
        Verdict::NotDelivered { reason } | Verdict::Unknown { reason } => remedy(*reason, out),
    }
}

fn remedy(reason: Reason, out: &mut String) -> std::fmt::Result {
    let remedy = reason.remedy();
    writeln!(out, "  usual cause: {}", remedy.cause)?;
    writeln!(out, "  what to do:  {}", remedy.remedy)
}
