//! How many streams there may be, which shard owns which, and which one goes when another needs its place. The desk's books:
//! no file, no clock, no thread.
//!
//! A limit counts the streams that have a session. A stream that has lost its session keeps its place until
//! `ingestion.stream_timeout`, or until a newcomer needs it; so there are never more streams than the limit allows sessions.

use std::collections::HashMap;

use crate::base::SourcePrefix;

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// SRT callers.
    Srt,
    /// Sources of RTP and raw transport packets.
    Rtp,
}

/// A stream's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The shard that owns the stream.
    pub shard: usize,
    /// Which life of the stream.
    pub life: u64,
    /// The newest answer that its shard was given for it.
    pub admission: u64,
    kind: SourceKind,
    standing: Standing,
    /// Where its session's peer is, if it is an SRT caller.
    source: Option<SourcePrefix>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has a session, or is about to get one.
    Live,
    /// It has none; which loss of a session that was, counted over all streams.
    Idle(u64),
    /// Its shard was told to end it for a newcomer, who has the place in the limit already.
    Leaving,
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The stream is there.
    Known,
    /// The stream is there, on another shard than its source.
    Elsewhere(Owner),
    /// There is a place for a new stream.
    New,
    /// This stream has to end first. To be asked again then.
    After(Owner),
    /// As many sessions as may be are there.
    Full,
}

/// Who has a place.
#[derive(Debug, Default)]
pub struct Places {
    owners: HashMap<String, Owner>,
    lives: u64,
    admissions: u64,
    losses: u64,
}

impl Places {
    /// Judges a newcomer for the stream `name`, of which kind there may be `limit`; `here` is the shard that its packets come
    /// to, if they cannot come to another.
    pub fn judge(&mut self, name: &str, kind: SourceKind, limit: u32, here: Option<usize>) -> Verdict {
        let limit = limit as usize;
        let known = self.owners.get(name).copied();
        if let Some(owner) = known
            && owner.standing == Standing::Leaving
        {
            return Verdict::After(owner);
        }
        // A session of another kind that takes the stream over needs a place of its own kind.
        let is_live = known.is_some_and(|owner| (owner.standing, owner.kind) == (Standing::Live, kind));
        if !is_live && self.count(kind, |standing| !matches!(standing, Standing::Idle(_))) >= limit {
            return Verdict::Full;
        }
        let has_place = is_live || known.is_some_and(|owner| owner.kind == kind);
        if !has_place && self.count(kind, |_| true) >= limit {
            return self.evict_oldest(Some(kind)).map_or(Verdict::Full, Verdict::After);
        }
        match known {
            Some(owner) if here.is_some_and(|here| here != owner.shard) => Verdict::Elsewhere(owner),
            Some(_) => Verdict::Known,
            None => Verdict::New,
        }
    }

    /// A session is about to be attached to a stream that is there.
    ///
    /// # Panics
    /// If it is not: [`judge`](Self::judge) has just said so.
    pub fn attach(&mut self, name: &str, kind: SourceKind) -> Owner {
        self.admissions += 1;
        let owner = self.owners.get_mut(name).expect("a known stream has a place");
        if owner.standing != Standing::Live {
            owner.source = None;
        }
        (owner.kind, owner.standing, owner.admission) = (kind, Standing::Live, self.admissions);
        *owner
    }

    /// A new stream is about to get its first session.
    pub fn insert(&mut self, name: &str, kind: SourceKind, shard: usize) -> Owner {
        self.lives += 1;
        self.admissions += 1;
        let (life, admission, standing) = (self.lives, self.admissions, Standing::Live);
        let owner = Owner { shard, life, admission, kind, standing, source: None };
        self.owners.insert(name.to_owned(), owner);
        owner
    }

    /// Where the peer of a stream's session is: of the one that is about to be attached, or that has been.
    pub fn set_source(&mut self, name: &str, life: u64, source: SourcePrefix) {
        if let Some(owner) = self.owners.get_mut(name).filter(|owner| owner.life == life) {
            owner.source = Some(source);
        }
    }

    /// How many streams beside `name` have a session whose peer is there.
    pub fn sessions_from(&self, source: SourcePrefix, name: &str) -> usize {
        let is_its = |owner: &Owner| owner.standing == Standing::Live && owner.source == Some(source);
        self.owners.iter().filter(|(other, owner)| *other != name && is_its(owner)).count()
    }

    /// Whether a stream has a session, or is about to get one.
    pub fn is_live(&self, name: &str) -> bool {
        self.owners.get(name).is_some_and(|owner| owner.standing == Standing::Live)
    }

    /// A stream has no session any more, says its shard, which knew of all answers up to `admission` then.
    pub fn session_ended(&mut self, name: &str, life: u64, admission: u64) {
        if let Some(owner) = self.owners.get_mut(name)
            && (owner.life, owner.admission, owner.standing) == (life, admission, Standing::Live)
        {
            owner.standing = Standing::Idle(self.losses);
            self.losses += 1;
        }
    }

    /// A stream has ended; `false` if that was known, or if it has another life by now.
    pub fn forget(&mut self, name: &str, life: u64) -> bool {
        let is_its = self.owners.get(name).is_some_and(|owner| owner.life == life);
        is_its && self.owners.remove(name).is_some()
    }

    /// Chooses the stream, of this kind or of any, that has been without a session for longest; it is to be ended.
    pub fn evict_oldest(&mut self, kind: Option<SourceKind>) -> Option<Owner> {
        let idle_since = |owner: &Owner| match owner.standing {
            Standing::Idle(loss) if kind.is_none_or(|kind| kind == owner.kind) => Some(loss),
            _ => None,
        };
        let (_, owner) = self
            .owners
            .values_mut()
            .filter_map(|owner| Some((idle_since(owner)?, owner)))
            .min_by_key(|(loss, _)| *loss)?;
        owner.standing = Standing::Leaving;
        Some(*owner)
    }

    /// The streams without a session.
    pub fn idle(&self) -> impl Iterator<Item = &str> {
        let is_idle = |owner: &Owner| matches!(owner.standing, Standing::Idle(_));
        self.owners.iter().filter(move |(_, owner)| is_idle(owner)).map(|(name, _)| name.as_str())
    }

    /// How many streams each of so many shards has.
    pub fn loads(&self, shards: usize) -> Vec<usize> {
        let mut loads = vec![0; shards];
        for owner in self.owners.values() {
            loads[owner.shard] += 1;
        }
        loads
    }

    fn count(&self, kind: SourceKind, which: impl Fn(Standing) -> bool) -> usize {
        self.owners.values().filter(|owner| owner.kind == kind && which(owner.standing)).count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use super::*;
    use crate::shard::net::random::Random;

    const SRT: SourceKind = SourceKind::Srt;

    /// A stream `name` with a session.
    fn admit(places: &mut Places, name: &str) -> Owner {
        assert_eq!(places.judge(name, SRT, 2, None), Verdict::New);
        places.insert(name, SRT, 0)
    }

    #[test]
    fn a_limit_counts_sessions_and_the_oldest_stream_without_one_makes_way() {
        let mut places = Places::default();
        let (first, second) = (admit(&mut places, "a"), admit(&mut places, "b"));
        assert_eq!(places.judge("c", SRT, 2, None), Verdict::Full);
        places.session_ended("b", second.life, second.admission);
        places.session_ended("a", first.life, first.admission);
        assert_eq!(places.idle().count(), 2);
        let Verdict::After(leaving) = places.judge("c", SRT, 2, None) else { panic!("b makes way") };
        assert_eq!(leaving.life, second.life);
        assert!(matches!(places.judge("d", SRT, 2, None), Verdict::After(owner) if owner.life == first.life));
        assert_eq!(places.judge("e", SRT, 2, None), Verdict::Full, "both places are spoken for");
        places.forget("b", second.life);
        admit(&mut places, "c");
        assert!(matches!(places.judge("a", SRT, 2, None), Verdict::After(owner) if owner.life == first.life));
    }

    #[test]
    fn sessions_of_one_source_are_counted_while_they_last() {
        let mut places = Places::default();
        let source = |last| SourcePrefix::of(std::net::IpAddr::from([10, 0, 0, last]));
        let (first, second) = (admit(&mut places, "a"), admit(&mut places, "b"));
        places.set_source("a", first.life, source(1));
        places.set_source("b", second.life, source(1));
        places.set_source("b", second.life + 1, source(2));
        assert_eq!((places.sessions_from(source(1), "c"), places.sessions_from(source(1), "a")), (2, 1));
        places.session_ended("a", first.life, first.admission);
        assert_eq!(places.sessions_from(source(1), "c"), 1, "a stream that waits is no session");
        places.attach("a", SRT);
        assert_eq!(places.sessions_from(source(1), "c"), 1, "nor is it known yet where the new one is");
        places.set_source("b", second.life, source(2));
        assert_eq!((places.sessions_from(source(1), "c"), places.sessions_from(source(2), "c")), (0, 1));
    }

    #[test]
    fn a_stream_that_waits_for_its_source_is_no_session_and_takes_one_up_only_within_the_limit() {
        let mut places = Places::default();
        let first = admit(&mut places, "a");
        places.session_ended("a", first.life, first.admission);
        assert_eq!(places.judge("a", SRT, 1, None), Verdict::Known);
        let again = places.attach("a", SRT);
        assert_eq!(again.life, first.life);
        places.session_ended("a", first.life, first.admission);
        assert_eq!(places.idle().count(), 0, "the shard did not know of the new session yet");
        assert_eq!(places.judge("b", SRT, 1, None), Verdict::Full);
        places.session_ended("a", again.life, again.admission);
        assert_eq!(places.judge("a", SRT, 0, None), Verdict::Full);
    }

    #[test]
    fn a_name_that_changes_its_kind_needs_a_place_among_its_new_kind() {
        let mut places = Places::default();
        let other = places.insert("a", SourceKind::Rtp, 1);
        places.session_ended("a", other.life, other.admission);
        let idle = admit(&mut places, "b");
        places.session_ended("b", idle.life, idle.admission);
        assert!(matches!(places.judge("a", SRT, 1, None), Verdict::After(owner) if owner.life == idle.life));
        places.forget("b", idle.life);
        assert_eq!(places.judge("a", SRT, 1, None), Verdict::Known);
        assert!(
            matches!(places.judge("a", SourceKind::Rtp, 1, Some(0)), Verdict::Elsewhere(owner) if owner.shard == 1)
        );
    }

    #[test]
    fn a_session_of_another_kind_takes_a_live_stream_over_only_within_its_own_limit() {
        let mut places = Places::default();
        places.insert("a", SourceKind::Rtp, 0);
        admit(&mut places, "b");
        assert_eq!(places.judge("a", SRT, 1, None), Verdict::Full);
        assert_eq!(places.judge("a", SRT, 2, None), Verdict::Known);
        places.attach("a", SRT);
        assert_eq!(places.judge("c", SRT, 2, None), Verdict::Full);
        assert_eq!(places.judge("c", SourceKind::Rtp, 1, None), Verdict::New, "its place among the others is free");
    }

    /// What a shard is told, and what it tells the desk.
    enum ToShard {
        /// With what a new stream needs to be written, or without.
        Admitted(String, Owner, bool),
        Evict(u64, String),
    }

    enum ToDesk {
        Caller(String),
        SessionEnded(String, u64, u64),
        Ended(String, u64),
    }

    /// A stream as its shard sees it.
    struct Stream {
        owner: Owner,
        attached: bool,
        reported: bool,
    }

    /// A desk and two shards, whose messages are under way for any time.
    struct House {
        places: Places,
        to_desk: VecDeque<ToDesk>,
        to_shard: [VecDeque<ToShard>; 2],
        streams: [BTreeMap<String, Stream>; 2],
        admitted: u32,
        evicted: u32,
        refused: u32,
    }

    const LIMIT: u32 = 4;

    impl House {
        fn desk(&mut self) {
            match self.to_desk.pop_front() {
                None => {}
                Some(ToDesk::Caller(name)) => match self.places.judge(&name, SRT, LIMIT, None) {
                    Verdict::Known => {
                        let owner = self.places.attach(&name, SRT);
                        self.to_shard[owner.shard].push_back(ToShard::Admitted(name, owner, false));
                    }
                    Verdict::New => {
                        let owner = self.places.insert(&name, SRT, name.len() % 2);
                        self.to_shard[owner.shard].push_back(ToShard::Admitted(name, owner, true));
                    }
                    Verdict::After(owner) => self.to_shard[owner.shard].push_back(ToShard::Evict(owner.life, name)),
                    Verdict::Full => self.refused += 1,
                    Verdict::Elsewhere(_) => unreachable!("SRT callers are bound to no shard"),
                },
                Some(ToDesk::SessionEnded(name, life, admission)) => self.places.session_ended(&name, life, admission),
                Some(ToDesk::Ended(name, life)) => drop(self.places.forget(&name, life)),
            }
            assert!(self.places.owners.len() <= LIMIT as usize, "never more streams than sessions may be");
        }

        fn shard(&mut self, shard: usize) {
            match self.to_shard[shard].pop_front() {
                None => {}
                // It has ended meanwhile; the caller is told to call again.
                Some(ToShard::Admitted(name, _, false)) if !self.streams[shard].contains_key(&name) => {}
                Some(ToShard::Admitted(name, owner, _)) => {
                    self.admitted += 1;
                    self.streams[shard].insert(name, Stream { owner, attached: true, reported: false });
                    let sessions = self.streams.iter().flat_map(BTreeMap::values).filter(|it| it.attached).count();
                    assert!(sessions <= LIMIT as usize);
                }
                Some(ToShard::Evict(life, newcomer)) => {
                    let found = self.streams[shard].iter().find(|(_, it)| it.owner.life == life);
                    if let Some(name) = found.map(|(name, _)| name.clone()) {
                        let ended = self.streams[shard].remove(&name).unwrap();
                        assert!(!ended.attached, "a session is never ended for another");
                        self.evicted += 1;
                        self.to_desk.push_back(ToDesk::Ended(name, life));
                    }
                    self.to_desk.push_back(ToDesk::Caller(newcomer));
                }
            }
        }

        /// A session is lost; now or later its shard says so. Or a stream without one times out.
        fn lose(&mut self, shard: usize, random: &mut Random) {
            let count = self.streams[shard].len() as u64;
            let Some(nth) = random.bits().checked_rem(count) else { return };
            let name = self.streams[shard].keys().nth(nth as usize).unwrap().clone();
            let stream = self.streams[shard].get_mut(&name).unwrap();
            let Owner { life, admission, .. } = stream.owner;
            if !stream.attached && random.bits().is_multiple_of(8) {
                self.streams[shard].remove(&name);
                self.to_desk.push_back(ToDesk::Ended(name, life));
            } else {
                stream.attached = false;
                if random.bits().is_multiple_of(2) && !std::mem::replace(&mut stream.reported, true) {
                    self.to_desk.push_back(ToDesk::SessionEnded(name, life, admission));
                }
            }
        }

        fn settle(&mut self) {
            for shard in 0..2 {
                for (name, stream) in &mut self.streams[shard] {
                    if !stream.attached && !std::mem::replace(&mut stream.reported, true) {
                        let Owner { life, admission, .. } = stream.owner;
                        self.to_desk.push_back(ToDesk::SessionEnded(name.clone(), life, admission));
                    }
                }
            }
            while !self.to_desk.is_empty() || self.to_shard.iter().any(|messages| !messages.is_empty()) {
                self.desk();
                self.shard(0);
                self.shard(1);
            }
        }
    }

    #[test]
    fn whatever_is_under_way_no_session_is_ended_for_another_and_none_refused_that_has_a_place() {
        let mut totals = [0; 3];
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut house = House {
                places: Places::default(),
                to_desk: VecDeque::new(),
                to_shard: Default::default(),
                streams: Default::default(),
                admitted: 0,
                evicted: 0,
                refused: 0,
            };
            for step in 0..2_000_u32 {
                let shard = random.bits() as usize % 2;
                match random.bits() % 8 {
                    // An encoder that returns under its name, or one that has another name each time.
                    0 => house.to_desk.push_back(ToDesk::Caller("x".repeat(random.bits() as usize % 6))),
                    1 => house.to_desk.push_back(ToDesk::Caller(format!("fresh{step}"))),
                    2 | 3 => house.lose(shard, &mut random),
                    4 | 5 => house.desk(),
                    _ => house.shard(shard),
                }
                if step % 100 == 99 {
                    house.settle();
                    let sessions = house.streams.iter().flat_map(BTreeMap::values).filter(|it| it.attached).count();
                    let refused = house.refused;
                    house.to_desk.push_back(ToDesk::Caller(format!("probe{step}")));
                    house.settle();
                    assert_eq!(house.refused > refused, sessions == LIMIT as usize, "seed {seed}, step {step}");
                }
            }
            totals = [totals[0] + house.admitted, totals[1] + house.evicted, totals[2] + house.refused];
        }
        assert!(totals.iter().all(|&total| total > 1_000), "admitted, evicted, refused: {totals:?}");
    }
}
