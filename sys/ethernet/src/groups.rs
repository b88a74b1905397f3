//! Multicast groups that this host takes part in, and what routers and switches are told of them: IGMPv3 (RFC 3376), IGMPv2 where
//! the querier speaks that (RFC 2236), MLDv2 (RFC 3810). A querier that speaks MLDv1 is answered by MLDv2.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{IgmpPacket, IgmpRepr, IgmpVersion};

use crate::frame::{PROTOCOL_ICMPV6, PROTOCOL_IGMP, fold, sum};

/// Groups at most.
pub(crate) const GROUPS_MAX: usize = 512;
/// Senders that a report has room for; of a group with more everything is asked for.
const SOURCES_MAX: usize = 64;
/// How often a change is reported (RFC 3376 §8.1, RFC 3810 §9.1), and how far apart.
const ROBUSTNESS: u8 = 2;
const CHANGE_AGAIN_NS: u64 = 1_000_000_000;
/// How long the querier is taken for one of IGMPv2 after it has asked like one (RFC 3376 §8.12).
const OLD_QUERIER_NS: u64 = 260_000_000_000;
/// The least time between two answers of a group, whatever a querier asks.
const ANSWER_AGAIN_NS: u64 = 100_000_000;

/// The IPv4 option (RFC 2113) and the hop-by-hop header (RFC 2711) that make routers look.
const ROUTER_ALERT_V4: &[u8] = &[0x94, 4, 0, 0];
const ROUTER_ALERT_V6: &[u8] = &[PROTOCOL_ICMPV6, 0, 5, 2, 0, 0, 1, 0];
const IGMPV3_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// Whose datagrams of a group are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sources {
    /// Everybody's.
    Any,
    /// Those of these senders.
    Include(Vec<IpAddr>),
    /// All but those of these senders.
    Exclude(Vec<IpAddr>),
}

impl Sources {
    /// What brings the datagrams of both: who wants less leaves the rest out by itself.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Include(mut own), Self::Include(other)) => {
                own.extend(other);
                own.sort_unstable();
                own.dedup();
                Self::Include(own)
            }
            (own, other) if own == other => own,
            _ => Self::Any,
        }
    }

    /// As far as a report has room.
    fn bounded(self) -> Self {
        match self {
            Self::Include(of) | Self::Exclude(of) if of.len() > SOURCES_MAX => Self::Any,
            own => own,
        }
    }
}

#[derive(Debug)]
struct Group {
    sources: Sources,
    /// How often the change is still to be reported, and when next.
    changes: u8,
    change_due_ns: u64,
    /// When a query is to be answered.
    answer_due_ns: Option<u64>,
    answered_ns: u64,
}

/// An IP packet for routers, all but its source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) between: &'static [u8],
    pub(crate) body: Vec<u8>,
}

/// What a report says of its group.
#[derive(Debug, Clone, Copy)]
enum Says {
    Current,
    Joined,
    Left,
}

/// The groups.
#[derive(Debug)]
pub(crate) struct Groups {
    groups: BTreeMap<IpAddr, Group>,
    /// Until when the querier is one of IGMPv2.
    old_querier_until_ns: u64,
    /// Spreads the answers of many hosts.
    spread: u64,
}

impl Groups {
    /// None yet. `seed` is the host's own, so that it does not answer when the others do.
    pub(crate) fn new(seed: u64) -> Self {
        Self { groups: BTreeMap::new(), old_querier_until_ns: 0, spread: seed | 1 }
    }

    /// Whether datagrams of this group are taken.
    pub(crate) fn has(&self, group: IpAddr) -> bool {
        self.groups.contains_key(&group)
    }

    /// The groups.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.groups.keys().copied()
    }

    /// Joins a group; `false` if there are too many.
    pub(crate) fn join(&mut self, now_ns: u64, group: IpAddr, sources: Sources) -> bool {
        let sources = match self.groups.remove(&group) {
            Some(before) => before.sources.and(sources),
            None if self.groups.len() == GROUPS_MAX => return false,
            None => sources,
        };
        let joined = Group {
            sources: sources.bounded(),
            changes: ROBUSTNESS,
            change_due_ns: now_ns,
            answer_due_ns: None,
            answered_ns: 0,
        };
        self.groups.insert(group, joined);
        true
    }

    /// Leaves all groups: what is to be said.
    pub(crate) fn leave(&mut self, now_ns: u64, source: Ipv6Addr) -> Vec<Report> {
        let is_old = now_ns < self.old_querier_until_ns;
        let groups = std::mem::take(&mut self.groups);
        groups.iter().map(|(address, group)| report(*address, &group.sources, Says::Left, is_old, source)).collect()
    }

    /// A querier asks for a group, or for all of that version (an unspecified address), to be answered within `within_ns`.
    pub(crate) fn queried(&mut self, now_ns: u64, asked: IpAddr, within_ns: u64) {
        for (address, group) in &mut self.groups {
            let is_meant = address.is_ipv4() == asked.is_ipv4() && (asked.is_unspecified() || asked == *address);
            if !is_meant {
                continue;
            }
            // xorshift64: to spread, not to be unguessable.
            self.spread ^= self.spread << 13;
            self.spread ^= self.spread >> 7;
            self.spread ^= self.spread << 17;
            let due_ns = (now_ns + self.spread % within_ns.max(1)).max(group.answered_ns + ANSWER_AGAIN_NS);
            group.answer_due_ns = Some(group.answer_due_ns.map_or(due_ns, |before| before.min(due_ns)));
        }
    }

    /// The querier has asked in the way of IGMPv2.
    pub(crate) fn has_old_querier(&mut self, now_ns: u64) {
        self.old_querier_until_ns = now_ns + OLD_QUERIER_NS;
    }

    /// The next report that is due; `source` is that of reports by IPv6.
    pub(crate) fn poll_report(&mut self, now_ns: u64, source: Ipv6Addr) -> Option<Report> {
        let is_old = now_ns < self.old_querier_until_ns;
        self.groups.iter_mut().find_map(|(address, group)| {
            let says = group.says(now_ns)?;
            Some(report(*address, &group.sources, says, is_old, source))
        })
    }

    /// When the next report is due.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.groups.values().filter_map(Group::next_timeout).min()
    }
}

impl Group {
    /// What is to be said now; it counts as said.
    fn says(&mut self, now_ns: u64) -> Option<Says> {
        if self.changes > 0 && self.change_due_ns <= now_ns {
            self.changes -= 1;
            self.change_due_ns = now_ns + CHANGE_AGAIN_NS;
            return Some(Says::Joined);
        }
        self.answer_due_ns.filter(|due_ns| *due_ns <= now_ns)?;
        (self.answer_due_ns, self.answered_ns) = (None, now_ns);
        Some(Says::Current)
    }

    fn next_timeout(&self) -> Option<u64> {
        let change = (self.changes > 0).then_some(self.change_due_ns);
        change.into_iter().chain(self.answer_due_ns).min()
    }
}

fn report(group: IpAddr, sources: &Sources, says: Says, is_old: bool, source: Ipv6Addr) -> Report {
    match group {
        IpAddr::V4(group) if is_old => {
            let (repr, destination) = match says {
                Says::Left => (IgmpRepr::LeaveGroup { group_addr: group }, ALL_ROUTERS),
                Says::Current | Says::Joined => {
                    (IgmpRepr::MembershipReport { group_addr: group, version: IgmpVersion::Version2 }, group)
                }
            };
            let mut body = vec![0; repr.buffer_len()];
            repr.emit(&mut IgmpPacket::new_unchecked(&mut body[..]));
            Report { destination: destination.into(), protocol: PROTOCOL_IGMP, between: ROUTER_ALERT_V4, body }
        }
        IpAddr::V4(_) => {
            let mut body = body(0x22, group, sources, says);
            let checksum = !fold(sum(&body));
            body[2..4].copy_from_slice(&checksum.to_ne_bytes());
            Report { destination: IGMPV3_ROUTERS.into(), protocol: PROTOCOL_IGMP, between: ROUTER_ALERT_V4, body }
        }
        IpAddr::V6(_) => {
            let mut body = body(143, group, sources, says);
            let addresses = sum(&source.octets()) + sum(&MLDV2_ROUTERS.octets());
            let length = sum(&(body.len() as u16).to_be_bytes());
            let checksum = !fold(addresses + length + sum(&[0, PROTOCOL_ICMPV6]) + sum(&body));
            body[2..4].copy_from_slice(&checksum.to_ne_bytes());
            Report { destination: MLDV2_ROUTERS.into(), protocol: PROTOCOL_ICMPV6, between: ROUTER_ALERT_V6, body }
        }
    }
}

/// A report of one record (RFC 3376 §4.2, RFC 3810 §5.2: the same shape in both), its checksum still to come.
fn body(kind: u8, group: IpAddr, sources: &Sources, says: Says) -> Vec<u8> {
    const NOBODY: &[IpAddr] = &[];
    let (record, of) = match (says, sources) {
        (Says::Current, Sources::Include(of)) => (1, &of[..]),
        (Says::Current, Sources::Any) => (2, NOBODY),
        (Says::Current, Sources::Exclude(of)) => (2, &of[..]),
        // A change to nobody is how a group is left.
        (Says::Left, Sources::Any | Sources::Exclude(_)) => (3, NOBODY),
        (Says::Joined, Sources::Any) => (4, NOBODY),
        (Says::Joined, Sources::Exclude(of)) => (4, &of[..]),
        (Says::Joined, Sources::Include(of)) => (5, &of[..]),
        (Says::Left, Sources::Include(of)) => (6, &of[..]),
    };
    let mut body = vec![kind, 0, 0, 0, 0, 0, 0, 1, record, 0];
    body.extend((of.len() as u16).to_be_bytes());
    for address in std::iter::once(&group).chain(of) {
        match address {
            IpAddr::V4(address) => body.extend(address.octets()),
            IpAddr::V6(address) => body.extend(address.octets()),
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const OWN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn bodies(groups: &mut Groups, now_ns: u64) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| groups.poll_report(now_ns, OWN)).map(|it| it.body).collect()
    }

    #[test]
    fn a_join_is_reported_twice_and_every_query_answered_within_its_time() {
        let mut groups = Groups::new(7);
        assert!(groups.join(0, at("239.1.2.3"), Sources::Any));
        let joined = vec![0x22, 0, 0xe8, 0xf9, 0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3];
        assert_eq!(bodies(&mut groups, 0), std::slice::from_ref(&joined));
        assert_eq!((bodies(&mut groups, SECOND - 1), groups.next_timeout()), (vec![], Some(SECOND)));
        assert_eq!((bodies(&mut groups, SECOND), groups.next_timeout()), (vec![joined], None));
        let asked = [("0.0.0.0", true), ("239.1.2.3", true), ("239.1.2.4", false), ("::", false)];
        for (now_ns, (asked, is_meant)) in (5..).step_by(5).map(|second| second * SECOND).zip(asked) {
            groups.queried(now_ns, at(asked), SECOND);
            assert_eq!(groups.next_timeout().is_some_and(|due| due < now_ns + SECOND), is_meant, "{asked}");
            let answers = bodies(&mut groups, now_ns + SECOND);
            assert_eq!(answers.iter().map(|it| it[8]).collect::<Vec<_>>(), [2].repeat(usize::from(is_meant)));
        }
    }

    #[test]
    fn senders_are_named_in_both_versions() {
        let mut groups = Groups::new(7);
        groups.join(0, at("232.1.2.3"), Sources::Include(vec![at("192.0.2.7")]));
        groups.join(0, at("ff35::7702"), Sources::Exclude(vec![at("2001:db8::7")]));
        let reports: Vec<_> = std::iter::from_fn(|| groups.poll_report(0, OWN)).collect();
        assert_eq!(reports[0].body[4..], [0, 0, 0, 1, 5, 0, 0, 1, 232, 1, 2, 3, 192, 0, 2, 7]);
        assert_eq!((reports[0].destination, reports[1].destination), (at("224.0.0.22"), at("ff02::16")));
        assert_eq!(reports[1].body[..12], [143, 0, reports[1].body[2], reports[1].body[3], 0, 0, 0, 1, 4, 0, 0, 1]);
        assert_eq!(reports[1].body.len(), 8 + 4 + 32);
        let left: Vec<u8> = groups.leave(SECOND, OWN).iter().map(|it| it.body[8]).collect();
        assert_eq!((left, groups.has(at("232.1.2.3"))), (vec![6, 3], false));
    }

    #[test]
    fn two_wishes_of_one_group_become_one_that_brings_both() {
        let of = |text: &str| Sources::Include(vec![at(text)]);
        let mut groups = Groups::new(7);
        groups.join(0, at("232.1.2.3"), of("192.0.2.7"));
        groups.join(0, at("232.1.2.3"), of("192.0.2.8"));
        assert_eq!(groups.groups[&at("232.1.2.3")].sources, Sources::Include(vec![at("192.0.2.7"), at("192.0.2.8")]));
        groups.join(0, at("232.1.2.3"), Sources::Exclude(vec![at("192.0.2.9")]));
        assert_eq!(groups.groups[&at("232.1.2.3")].sources, Sources::Any);
        groups.join(
            0,
            at("232.1.2.4"),
            Sources::Include((0..200).map(|last| IpAddr::from([10, 0, 0, last])).collect()),
        );
        assert_eq!(groups.groups[&at("232.1.2.4")].sources, Sources::Any, "more than a report holds");
    }

    #[test]
    fn a_querier_of_igmpv2_gets_what_it_understands_until_it_has_been_silent_for_long() {
        let mut groups = Groups::new(7);
        groups.join(0, at("239.1.2.3"), Sources::Any);
        bodies(&mut groups, 0);
        bodies(&mut groups, SECOND);
        groups.has_old_querier(2 * SECOND);
        groups.queried(2 * SECOND, at("0.0.0.0"), SECOND);
        let answer = groups.poll_report(3 * SECOND, OWN).unwrap();
        assert_eq!((answer.destination, &answer.body[..]), (at("239.1.2.3"), &[0x16, 0, 0xf8, 0xfa, 239, 1, 2, 3][..]));
        groups.queried(300 * SECOND, at("0.0.0.0"), SECOND);
        assert_eq!(groups.poll_report(301 * SECOND, OWN).unwrap().destination, at("224.0.0.22"));
        groups.has_old_querier(302 * SECOND);
        let left = &groups.leave(303 * SECOND, OWN)[0];
        assert_eq!((left.destination, left.body[0]), (at("224.0.0.2"), 0x17));
    }

    #[test]
    fn a_flood_of_queries_is_answered_ten_times_a_second_at_most() {
        let mut groups = Groups::new(7);
        groups.join(0, at("239.1.2.3"), Sources::Any);
        let mut answers = 0;
        for millisecond in 0..5_000 {
            let now_ns = 10 * SECOND + millisecond * 1_000_000;
            groups.queried(now_ns, at("0.0.0.0"), 1);
            answers += bodies(&mut groups, now_ns).len();
        }
        assert!((40..=52).contains(&answers), "{answers}");
    }

    #[test]
    fn there_is_a_limit() {
        let mut groups = Groups::new(7);
        for n in 0..GROUPS_MAX {
            assert!(groups.join(0, IpAddr::from([239, 1, (n >> 8) as u8, n as u8]), Sources::Any));
        }
        assert!(!groups.join(0, at("239.9.9.9"), Sources::Any));
    }
}
