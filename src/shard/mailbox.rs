//! What other threads say to a shard: the control thread's questions and housekeeping's answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::access::Denial;
use super::admission::{Admitted, Newcomer};
use super::calls::terms::{CallTerms, TermsError};
use super::report::ShardReport;
use super::strangers::SourceKey;
use crate::base::Instant;
use crate::output::TrackReady;
use crate::protocol::srt::encryption::{KeyEncryptingKey, KeyMaterial};
use crate::protocol::srt::listener::{AdmissionRequest, Answer};

/// Messages that may wait; housekeeping cannot produce them faster than a shard reads.
const MESSAGES_MAX: usize = 4_096;
/// Datagrams from other shards that may wait: two batches.
const HANDED_MAX: usize = 512;

/// Without a turn for so long a shard stands still: six times its longest sleep.
const STILL_AFTER: Duration = Duration::from_millis(300);

/// What can be said to a shard.
pub enum Message {
    /// How do you do?
    Report(SyncSender<ShardReport>),
    /// Publish what is open, say goodbye to peers, and end.
    Stop,
    /// A source was admitted, and this shard owns its stream.
    Admitted(Box<Admitted>),
    /// An SRT caller was refused; its conclusion came to this shard.
    Refused(Box<AdmissionRequest>, Denial),
    /// An SRT caller whose conclusion came to this shard was answered by another.
    Answered(Box<Answer>),
    /// A source of RTP or raw transport packets, in probation here, was refused, and is not to be asked about again for so long;
    /// and why.
    SourceRefused(SourceKey, Duration, String),
    /// A source of RTP packets has the name of a stream that this shard owns, and came to another one: which life of the
    /// stream, which source, to which shard.
    Vacate(u64, SourceKey, usize),
    /// A stream without a session, by its life, is to end, because a newcomer needs its place or its memory; the newcomer is to
    /// be judged again then.
    Evict(u64, Newcomer),
    /// The key that a peer of version 4 of the handshake wants: of which life of the stream, of which session.
    KeyDerived(u64, u32, KeyEncryptingKey),
    /// A stream that is fetched, by its place in the configuration, can be called, or cannot.
    CallPrepared(usize, Result<Box<CallTerms>, TermsError>),
    /// The key that its passphrase makes for key material of its peer.
    CallUnlocked(usize, Box<(KeyMaterial, KeyEncryptingKey)>),
    /// A ring is ready, or cannot be had: name of the stream, and which life of it.
    TrackReady(u64, TrackReady),
}

/// A datagram that came to the wrong shard, copied for the right one.
///
/// The steering program sends nearly all to the right one: what is left are ports without the program and aggregates of
/// several connections. So one bounded lane into each shard does, where one per pair would only be more of the same.
pub struct Handed {
    /// Who sent it.
    pub peer: SocketAddr,
    /// To which address.
    pub local: Option<IpAddr>,
    /// By which interface.
    pub interface: u32,
    /// When it came in.
    pub arrival: Instant,
    /// Its bytes.
    pub bytes: Box<[u8]>,
}

/// A shard's mailbox; clones lead to the same one.
#[derive(Clone)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

struct Shared {
    messages: ArrayQueue<Message>,
    lane: ArrayQueue<Handed>,
    closed: AtomicBool,
    /// Written by the shard alone.
    turns: AtomicU64,
    /// When it began its last turn, in nanoseconds of the monotonic clock; 0 before the first. Likewise.
    turned_ns: AtomicU64,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                messages: ArrayQueue::new(MESSAGES_MAX),
                lane: ArrayQueue::new(HANDED_MAX),
                closed: AtomicBool::new(false),
                turns: AtomicU64::new(0),
                turned_ns: AtomicU64::new(0),
            }),
        }
    }

    /// Puts a message in, which is read in the shard's next turn, from an idle one 50 ms from now at most; `false` if the shard has ended or
    /// has too many already.
    pub fn post(&self, message: Message) -> bool {
        !self.shared.closed.load(Ordering::Acquire) && self.shared.messages.push(message).is_ok()
    }

    /// Hands over a datagram that belongs to this shard; `false` if the lane is full, and the datagram lost.
    pub fn hand_over(&self, handed: Handed) -> bool {
        self.shared.lane.push(handed).is_ok()
    }

    /// The shard's side: the next message.
    #[inline]
    pub fn take(&self) -> Option<Message> {
        self.shared.messages.pop()
    }

    /// The shard's side: the next datagram from another shard.
    #[inline]
    pub fn take_handed(&self) -> Option<Handed> {
        self.shared.lane.pop()
    }

    /// The shard's side: it has turned so many times, and goes on.
    #[inline]
    pub fn turned(&self, turns: u64, now: Instant) {
        self.shared.turns.store(turns, Ordering::Relaxed);
        self.shared.turned_ns.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Whether the shard has begun to turn and does so no more: it hangs, or its core has no time for it.
    pub fn stands_still(&self, now: Instant) -> bool {
        let turned = self.shared.turned_ns.load(Ordering::Relaxed);
        turned > 0 && now.saturating_since(Instant::from_nanos(turned)) >= STILL_AFTER
    }

    /// The shard's side: nothing will be read any more.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        while self.take().is_some() {}
    }
}

/// The mailboxes of all shards, for those who ask all of them.
#[derive(Clone, Default)]
pub struct Shards {
    mailboxes: Vec<Mailbox>,
}

impl Shards {
    /// Room for `count` shards.
    pub fn new(count: usize) -> Self {
        Self { mailboxes: (0..count).map(|_| Mailbox::new()).collect() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.mailboxes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.mailboxes.is_empty()
    }

    /// One shard's mailbox.
    pub fn mailbox(&self, shard: usize) -> &Mailbox {
        &self.mailboxes[shard]
    }

    /// Asks every shard for a report and waits for the answers, at most `timeout` for all. A shard that does not answer is
    /// missing. Blocks: not for a shard, and on an async runtime only where blocking is allowed.
    pub fn reports(&self, timeout: Duration) -> Vec<ShardReport> {
        let deadline = std::time::Instant::now() + timeout;
        let (sender, receiver) = std::sync::mpsc::sync_channel(self.mailboxes.len().max(1));
        let asked = self.mailboxes.iter().filter(|mailbox| mailbox.post(Message::Report(sender.clone()))).count();
        drop(sender);
        let mut reports: Vec<ShardReport> = (0..asked)
            .map_while(|_| receiver.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())).ok())
            .collect();
        reports.sort_by_key(|report| report.shard);
        reports
    }

    /// How many times each shard has turned, without asking it.
    pub fn turns(&self) -> Vec<u64> {
        self.mailboxes.iter().map(|mailbox| mailbox.shared.turns.load(Ordering::Relaxed)).collect()
    }

    /// Tells every shard to end.
    pub fn stop(&self) {
        for mailbox in &self.mailboxes {
            mailbox.post(Message::Stop);
        }
    }
}
