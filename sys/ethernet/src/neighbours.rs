//! Who has which Ethernet address on this link, and what waits for that to be known.
//!
//! One table for both versions, bounded. Only what was asked for, and who speaks to us, is entered (RFC 826; RFC 4861 §7.2.3,
//! §7.2.5). Anybody on the link can claim any number of addresses: who only speaks to us takes what room is left, and whom we send
//! to takes the place of one that nothing was ever sent to, of a question without an answer, or of one long out of use.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use crate::write::Mac;

/// Addresses known or asked for.
const ENTRIES_MAX: usize = 512;
/// Frames that wait for an address, all together.
const WAITING_MAX: usize = 128;
/// How long an address is believed without being heard of (RFC 4861 §10, REACHABLE_TIME).
const BELIEVED_NS: u64 = 30_000_000_000;
/// Between two questions (RFC 4861 §10, RETRANS_TIMER).
const ASK_AGAIN_NS: u64 = 1_000_000_000;
/// Questions without an answer after which nobody is there (MAX_MULTICAST_SOLICIT).
const QUESTIONS_MAX: u8 = 3;

/// An address that was sent to within this time keeps its place.
const IN_USE_NS: u64 = 5_000_000_000;

/// What is known of an address.
#[derive(Debug, Clone, Copy)]
struct Entry {
    mac: Option<Mac>,
    /// When it was last heard that `mac` is the one; none: it is to be asked for.
    heard_ns: Option<u64>,
    /// When something was last sent to it, if ever.
    used_ns: Option<u64>,
    /// Questions without an answer yet; 0 while none is open.
    questions: u8,
    ask_again_ns: u64,
}

/// What an advertisement says of its target (RFC 4861 §4.4).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Advertised {
    /// The Ethernet address, if it is told.
    pub(crate) mac: Option<Mac>,
    /// It answers a question, so that the way there and back is open.
    pub(crate) is_solicited: bool,
    /// It is to take the place of what was known before.
    pub(crate) overrides: bool,
}

/// A frame that is whole but for where it goes.
#[derive(Debug)]
struct Waiting {
    next_hop: IpAddr,
    frame: Vec<u8>,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    entries: BTreeMap<IpAddr, Entry>,
    waiting: VecDeque<Waiting>,
    /// Addresses to be asked for.
    questions: VecDeque<IpAddr>,
    /// Frames given up: nobody answered, or too many waited.
    pub(crate) given_up: u64,
}

impl Neighbours {
    /// The Ethernet address of a neighbour; if it is not known, or not for sure any more, it is asked for.
    pub(crate) fn look_up(&mut self, now_ns: u64, address: IpAddr) -> Option<Mac> {
        if !self.entries.contains_key(&address) && !self.make_room(now_ns) {
            return None;
        }
        let entry = self.entries.entry(address).or_insert(Entry {
            mac: None,
            heard_ns: None,
            used_ns: Some(now_ns),
            questions: 0,
            ask_again_ns: now_ns,
        });
        entry.used_ns = Some(now_ns);
        let is_believed = entry.heard_ns.is_some_and(|heard_ns| now_ns.saturating_sub(heard_ns) < BELIEVED_NS);
        if !is_believed && entry.questions == 0 {
            entry.questions = 1;
            entry.ask_again_ns = now_ns + ASK_AGAIN_NS;
            self.questions.push_back(address);
        }
        entry.mac
    }

    /// Keeps a frame until the Ethernet address of its next hop is known. The oldest makes way. One whose next hop found no room in
    /// the table is given up.
    pub(crate) fn wait(&mut self, next_hop: IpAddr, frame: Vec<u8>) {
        if !self.entries.contains_key(&next_hop) {
            self.given_up += 1;
            return;
        }
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
            self.given_up += 1;
        }
        self.waiting.push_back(Waiting { next_hop, frame });
    }

    /// A neighbour has told its Ethernet address. One that was not asked for is entered only if `speaks_to_us`, and
    /// there is room.
    pub(crate) fn heard(&mut self, now_ns: u64, address: IpAddr, mac: Mac, speaks_to_us: bool) {
        let has_room = self.entries.len() < ENTRIES_MAX;
        match self.entries.get_mut(&address) {
            Some(entry) => *entry = Entry { mac: Some(mac), heard_ns: Some(now_ns), questions: 0, ..*entry },
            None if speaks_to_us && has_room => {
                let entry =
                    Entry { mac: Some(mac), heard_ns: Some(now_ns), used_ns: None, questions: 0, ask_again_ns: 0 };
                self.entries.insert(address, entry);
            }
            None => {}
        }
    }

    /// A neighbour has advertised itself (RFC 4861 §7.2.5). One that was neither asked for nor has spoken to us is not entered.
    pub(crate) fn advertised(&mut self, now_ns: u64, address: IpAddr, told: Advertised) {
        let Some(entry) = self.entries.get_mut(&address) else { return };
        let heard_ns = told.is_solicited.then_some(now_ns);
        let Some(known) = entry.mac else {
            // We ask all who may be it, to whom an answer without an Ethernet address is none (§4.4).
            if told.mac.is_some() {
                *entry = Entry { mac: told.mac, heard_ns, questions: 0, ..*entry };
            }
            return;
        };
        let mac = told.mac.unwrap_or(known);
        if mac != known && !told.overrides {
            // A proxy, or a second card: what is known stays in use, and is asked for again.
            entry.heard_ns = None;
        } else if mac != known || told.is_solicited {
            *entry = Entry { mac: Some(mac), heard_ns, questions: 0, ..*entry };
        }
    }

    /// The next frame whose way is known by now, in the order in which they came.
    pub(crate) fn poll_frame(&mut self) -> Option<Vec<u8>> {
        let entries = &self.entries;
        let known = |waiting: &Waiting| entries.get(&waiting.next_hop).and_then(|entry| entry.mac);
        let (place, mac) = self.waiting.iter().enumerate().find_map(|(place, it)| Some((place, known(it)?)))?;
        let Waiting { mut frame, .. } = self.waiting.remove(place)?;
        frame[..6].copy_from_slice(&mac);
        Some(frame)
    }

    /// The next address to ask for.
    pub(crate) fn poll_question(&mut self) -> Option<IpAddr> {
        self.questions.pop_front()
    }

    /// Asks again for what is overdue, and gives up whoever does not answer.
    pub(crate) fn handle_timeout(&mut self, now_ns: u64) {
        let questions = &mut self.questions;
        self.entries.retain(|address, entry| {
            if entry.questions == 0 || entry.ask_again_ns > now_ns {
                return true;
            }
            if entry.questions == QUESTIONS_MAX {
                return false;
            }
            entry.questions += 1;
            entry.ask_again_ns = now_ns + ASK_AGAIN_NS;
            questions.push_back(*address);
            true
        });
        self.drop_orphans();
    }

    /// When the next question is overdue.
    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.entries.values().filter(|entry| entry.questions > 0).map(|entry| entry.ask_again_ns).min()
    }

    /// Whether there is a place for whom we send to, after somebody else's was taken if need be.
    fn make_room(&mut self, now_ns: u64) -> bool {
        if self.entries.len() < ENTRIES_MAX {
            return true;
        }
        let is_idle = |used_ns: u64| now_ns.saturating_sub(used_ns) >= IN_USE_NS;
        let is_free = |entry: &Entry| entry.mac.is_none() || entry.used_ns.is_none_or(is_idle);
        // A question of ours must not make way while there are claims that nobody has asked for.
        let order = |entry: &Entry| (entry.used_ns.is_some(), entry.mac.is_some(), entry.used_ns);
        let free = self.entries.iter().filter(|(_, entry)| is_free(entry));
        let Some(address) = free.min_by_key(|(_, entry)| order(entry)).map(|(address, _)| *address) else {
            return false;
        };
        self.entries.remove(&address);
        self.drop_orphans();
        true
    }

    /// Drops frames whose next hop is not asked for any more.
    fn drop_orphans(&mut self) {
        let (entries, before) = (&self.entries, self.waiting.len());
        self.waiting.retain(|it| entries.contains_key(&it.next_hop));
        self.given_up += (before - self.waiting.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    fn at(last: u16) -> IpAddr {
        IpAddr::from([10, 88, (last >> 8) as u8, last as u8])
    }

    #[test]
    fn a_frame_waits_until_its_neighbour_answers() {
        let mut table = Neighbours::default();
        assert_eq!(table.look_up(0, at(7)), None);
        table.wait(at(7), vec![0; 60]);
        assert_eq!((table.poll_question(), table.poll_question(), table.poll_frame()), (Some(at(7)), None, None));
        table.heard(5, at(7), MAC, false);
        assert_eq!(table.poll_frame().unwrap()[..6], MAC);
        assert_eq!((table.poll_frame(), table.look_up(6, at(7)), table.next_timeout()), (None, Some(MAC), None));
    }

    #[test]
    fn nobody_is_there_after_three_questions_and_what_waited_is_counted() {
        let mut table = Neighbours::default();
        table.look_up(0, at(7));
        table.wait(at(7), vec![0; 60]);
        let mut questions = 0;
        for second in 0..5 {
            table.handle_timeout(second * SECOND);
            questions += std::iter::from_fn(|| table.poll_question()).count();
        }
        assert_eq!((questions, table.given_up, table.next_timeout()), (3, 1, None));
        assert_eq!(table.look_up(9 * SECOND, at(7)), None);
        assert_eq!(table.poll_question(), Some(at(7)), "asked for anew");
    }

    #[test]
    fn an_old_address_is_used_while_it_is_asked_for_again() {
        let mut table = Neighbours::default();
        table.heard(0, at(7), MAC, true);
        assert_eq!((table.look_up(29 * SECOND, at(7)), table.poll_question()), (Some(MAC), None));
        assert_eq!((table.look_up(31 * SECOND, at(7)), table.poll_question()), (Some(MAC), Some(at(7))));
        table.heard(32 * SECOND, at(7), [2, 0, 0, 0, 0, 8], false);
        assert_eq!(table.look_up(33 * SECOND, at(7)), Some([2, 0, 0, 0, 0, 8]));
        assert_eq!(table.next_timeout(), None);
    }

    const OTHER: Mac = [2, 0, 0, 0, 0, 8];

    fn told(mac: Option<Mac>, is_solicited: bool, overrides: bool) -> Advertised {
        Advertised { mac, is_solicited, overrides }
    }

    /// What is sent to after an advertisement one second after the address was heard of, and whether it is asked for again.
    fn after(told: Advertised) -> (Option<Mac>, bool) {
        let mut table = Neighbours::default();
        table.heard(0, at(7), MAC, true);
        table.advertised(SECOND, at(7), told);
        (table.look_up(2 * SECOND, at(7)), table.poll_question().is_some())
    }

    #[test]
    fn an_advertisement_takes_the_place_of_a_known_address_only_if_it_is_to_override() {
        for (mac, is_solicited, overrides, expected) in [
            (Some(OTHER), true, false, (Some(MAC), true)),
            (Some(OTHER), false, false, (Some(MAC), true)),
            (Some(OTHER), true, true, (Some(OTHER), false)),
            // Nobody has shown that it can be reached there.
            (Some(OTHER), false, true, (Some(OTHER), true)),
            (Some(MAC), true, false, (Some(MAC), false)),
            (Some(MAC), false, false, (Some(MAC), false)),
            (Some(MAC), false, true, (Some(MAC), false)),
            (None, true, false, (Some(MAC), false)),
            (None, false, true, (Some(MAC), false)),
        ] {
            let advertised = told(mac, is_solicited, overrides);
            assert_eq!(after(advertised), expected, "{advertised:?}");
        }
    }

    #[test]
    fn only_an_answer_confirms_an_address_that_has_grown_old() {
        for (is_solicited, is_asked_for) in [(true, false), (false, true)] {
            let mut table = Neighbours::default();
            table.heard(0, at(7), MAC, true);
            table.advertised(29 * SECOND, at(7), told(Some(MAC), is_solicited, true));
            assert_eq!(table.look_up(31 * SECOND, at(7)), Some(MAC));
            assert_eq!(table.poll_question().is_some(), is_asked_for, "solicited: {is_solicited}");
        }
    }

    #[test]
    fn an_address_that_is_asked_for_is_taken_from_any_advertisement_that_has_it() {
        for (is_solicited, overrides) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut table = Neighbours::default();
            table.look_up(0, at(7));
            table.wait(at(7), vec![0; 60]);
            table.advertised(5, at(7), told(None, is_solicited, overrides));
            assert_eq!(table.poll_frame(), None, "which Ethernet address?");
            table.advertised(6, at(7), told(Some(MAC), is_solicited, overrides));
            assert_eq!(table.poll_frame().unwrap()[..6], MAC);
            assert_eq!((table.poll_question(), table.next_timeout()), (Some(at(7)), None));
            // What nobody has asked for is used, and asked for.
            assert_eq!((table.look_up(7, at(7)), table.poll_question().is_none()), (Some(MAC), is_solicited));
        }
        let mut table = Neighbours::default();
        table.advertised(0, at(7), told(Some(MAC), false, true));
        assert_eq!(table.look_up(0, at(7)), None, "nobody has asked for it");
    }

    #[test]
    fn who_has_another_address_and_may_not_override_is_found_when_the_old_one_does_not_answer() {
        let mut table = Neighbours::default();
        table.heard(0, at(7), MAC, true);
        table.look_up(31 * SECOND, at(7));
        for second in 31..35 {
            table.advertised(second * SECOND, at(7), told(Some(OTHER), true, false));
            table.handle_timeout(second * SECOND);
        }
        assert_eq!(table.look_up(35 * SECOND, at(7)), None);
        table.advertised(35 * SECOND, at(7), told(Some(OTHER), true, false));
        assert_eq!(table.look_up(35 * SECOND, at(7)), Some(OTHER));
    }

    #[test]
    fn who_does_not_speak_to_us_and_was_not_asked_for_is_not_entered() {
        let mut table = Neighbours::default();
        table.heard(0, at(7), MAC, false);
        assert_eq!(table.look_up(0, at(7)), None);
    }

    #[test]
    fn a_flood_of_neighbours_takes_no_more_than_its_room_and_frames_make_way_oldest_first() {
        let mut table = Neighbours::default();
        for last in 0..2_000 {
            table.heard(u64::from(last), at(last), MAC, true);
        }
        assert_eq!(table.entries.len(), ENTRIES_MAX);
        assert_eq!(table.look_up(2_000, at(0)), Some(MAC));
        table.look_up(2_001, at(9_999));
        for n in 0..=WAITING_MAX {
            table.wait(at(9_999), vec![n as u8; 60]);
        }
        assert_eq!((table.waiting.len(), table.given_up), (WAITING_MAX, 1));
        table.heard(2_002, at(9_999), MAC, false);
        assert_eq!(table.poll_frame().unwrap()[6], 1);
    }

    #[test]
    fn forged_claims_take_the_place_of_no_neighbour_that_is_sent_to() {
        let mut table = Neighbours::default();
        table.heard(0, at(7), MAC, true);
        let forged = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a59_0000 + n));
        // 60,000 a second for a second, and an acknowledgement each 10 ms.
        for n in 0..60_000 {
            let now_ns = u64::from(n) * SECOND / 60_000;
            table.heard(now_ns, forged(n), [2, 0, 0, 0, 0, 9], true);
            if n % 600 == 0 {
                assert_eq!(table.look_up(now_ns, at(7)), Some(MAC), "claim {n}");
            }
        }
        assert_eq!(table.entries.len(), ENTRIES_MAX);
        // A new peer is found nevertheless.
        assert_eq!((table.look_up(SECOND, at(8)), table.poll_question()), (None, Some(at(8))));
        table.heard(SECOND, at(8), MAC, false);
        assert_eq!((table.look_up(SECOND, at(8)), table.look_up(SECOND, at(7))), (Some(MAC), Some(MAC)));
    }

    #[test]
    fn where_all_are_sent_to_a_newcomer_is_refused_until_one_is_out_of_use() {
        let mut table = Neighbours::default();
        for last in 0..ENTRIES_MAX as u16 {
            table.look_up(0, at(last));
            table.heard(0, at(last), MAC, false);
        }
        assert_eq!(table.look_up(SECOND, at(9_999)), None);
        table.wait(at(9_999), vec![0; 60]);
        assert_eq!((table.given_up, table.entries.contains_key(&at(9_999))), (1, false));
        table.look_up(IN_USE_NS, at(9_999));
        assert!(table.entries.contains_key(&at(9_999)));
        assert_eq!(table.entries.len(), ENTRIES_MAX);
    }
}
