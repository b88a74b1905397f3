//! `headworks file receive`: each connection brings a file.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::endpoint::{Endpoint, EndpointEvent, EndpointOptions};
use super::location::{Location, LocationError};
use super::name::{self, PART};
use super::report::{Progress, Refusals, TransferReport};
use super::storing::{Store, StoreError, free_bytes};
use super::{DISK_BYTES_PER_SECOND, DISK_EVERY, DISK_PATIENCE, Denial, FileError, ReceiveArguments};
use crate::base::Instant;
use crate::protocol::srt::connection::{CloseReason, Event, PEER_ERROR_FILE_SYSTEM};
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::srt::listener::AdmissionRequest;
use crate::protocol::srt::parameters::Role;
use crate::protocol::srt::stream_id::{Mode, ResourceType, StreamId};
use crate::shard::clock::Clock;

/// A file on its way.
struct Receiving {
    connection: u32,
    name: String,
    /// As its sender has announced it.
    size: Option<u64>,
    store: Store,
    begun: Instant,
    progress_at: Instant,
    /// When the disk was not behind last, or has taken something.
    disk_at: Instant,
    bytes: u64,
    stage: Stage,
    progress: Progress,
}

#[derive(Clone, PartialEq, Eq)]
enum Stage {
    /// Bytes come.
    Running,
    /// All have come, and are being written.
    Keeping,
    /// It has failed; the sender is to be told so.
    Failed(String),
}

/// Whether and since when all is to end.
#[derive(Default)]
struct Interruption {
    since: Option<Instant>,
    is_urgent: bool,
}

impl Interruption {
    /// There was a signal; a second one says that the disk is not to be waited for either.
    fn signalled(&mut self, now: Instant) {
        self.is_urgent = self.since.is_some();
        self.since.get_or_insert(now);
    }

    const fn is_there(&self) -> bool {
        self.since.is_some()
    }

    fn waits_for_disk(&self, now: Instant) -> bool {
        !self.is_urgent && self.since.is_none_or(|since| now < since + DISK_PATIENCE)
    }
}

/// What is done with a call.
struct Wanted {
    name: String,
    size: Option<u64>,
    store: Store,
}

/// Receives files until there were as many as were asked for, or it is interrupted.
///
/// # Errors
/// [`FileError`] when nothing can be received; what became of each file stands in its report.
pub fn run(arguments: &ReceiveArguments, interrupted: &mut dyn FnMut() -> bool) -> Result<(), FileError> {
    let directory = arguments.directory.display();
    receive(arguments, interrupted, |address| eprintln!("listening at {address}, files go to {directory}"))
}

/// The same, and tells where it listens.
fn receive(
    arguments: &ReceiveArguments,
    interrupted: &mut dyn FnMut() -> bool,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), FileError> {
    let directory = arguments.directory.as_path();
    if !directory.is_dir() {
        return Err(FileError::Directory(directory.to_owned()));
    }
    let passphrase = arguments.common.passphrase.read().map_err(LocationError::from)?;
    let location = Location::parse(&arguments.location)?.with_passphrase(passphrase)?;
    let listens = location.listens;
    // Whoever calls knows what it wants; the file is made before anybody is asked for its content.
    let asked_for = location.stream_id.clone().unwrap_or_default();
    let mut called = match listens {
        true => None,
        false => Some(want(directory, &asked_for, arguments).map_err(|(_, why)| FileError::Refused(why))?),
    };
    let connections = if listens { arguments.transfers as usize } else { 1 };
    let options = EndpointOptions {
        role: Role::Receiver,
        window: arguments.common.window as usize,
        connections,
        connect_timeout: arguments.common.connect_timeout,
    };
    let mut endpoint = Endpoint::open(location, options)?;
    if listens {
        listening(endpoint.address());
    } else {
        endpoint.call(asked_for)?;
    }
    let mut left = if listens { arguments.count } else { Some(1) };
    let mut transfers: Vec<Receiving> = Vec::with_capacity(connections);
    // Of transfers that are over, as far as the disk is still at them.
    let mut hung: Vec<Store> = Vec::new();
    let (mut failed, mut first) = (0_u64, None);
    let mut interruption = Interruption::default();
    let mut refusals = Refusals::new(Clock::now());
    while left.is_none_or(|left| left > 0) || endpoint.is_saying_farewell() {
        let now = endpoint.receive()?;
        if interrupted() {
            interruption.signalled(now);
        }
        while let Some(event) = endpoint.poll_event() {
            match event {
                EndpointEvent::Connected(connection) => {
                    if let Some(wanted) = called.take() {
                        transfers.push(Receiving::new(now, connection, wanted));
                    }
                }
                EndpointEvent::Failed(error) => {
                    endpoint.transmit(now);
                    endpoint.wait(now, now)?;
                    return Err(FileError::Call(error));
                }
                EndpointEvent::Asked(request) => {
                    hung.retain(|store| !store.is_over());
                    let has_room = transfers.len() + hung.len() < connections
                        && left.is_none_or(|left| (transfers.len() as u64) < left);
                    let choose = || {
                        if interruption.is_there() {
                            Err((RejectReason::Close, "nothing more is taken here".to_owned()))
                        } else if has_room {
                            judge(directory, &request, arguments)
                        } else {
                            Err((RejectReason::Overload, crowd(transfers.len(), hung.len())))
                        }
                    };
                    match endpoint.answer(&request, choose)? {
                        Ok((connection, wanted)) => transfers.push(Receiving::new(now, connection, wanted)),
                        Err(denial) => refusals.tell(now, request.key.peer, &denial),
                    }
                }
                EndpointEvent::Refused(refusal) => {
                    refusals.tell(now, refusal.peer, &(refusal.reason, refusal.why));
                }
            }
        }
        let mut wake = Instant::FAR_FUTURE;
        let mut ended = Vec::new();
        for (at, transfer) in transfers.iter_mut().enumerate() {
            if transfer.pump(now, &mut endpoint, arguments) {
                wake = now + DISK_EVERY;
            }
            if interruption.is_there() {
                transfer.end(now, &mut endpoint, || "interrupted".to_owned());
            }
            let waits_for_disk = interruption.waits_for_disk(now) && transfer.waits_for_disk(now, arguments);
            if let Some(report) = transfer.finished(now, &mut endpoint, waits_for_disk) {
                ended.push((at, report));
            }
        }
        endpoint.transmit(now);
        for (at, report) in ended.into_iter().rev() {
            let Receiving { connection, store, .. } = transfers.remove(at);
            endpoint.forget(connection);
            hung.extend(Some(store).filter(|store| !store.is_over()));
            report.print(arguments.common.json)?;
            if let Some(error) = report.error {
                failed += 1;
                first.get_or_insert_with(|| format!("{}: {error}", report.file));
            }
            left = left.map(|left| left.saturating_sub(1));
        }
        if interruption.is_there() && transfers.is_empty() && !endpoint.is_saying_farewell() {
            break;
        }
        endpoint.wait(now, wake)?;
    }
    match (first, left) {
        (Some(first), _) => Err(FileError::Transfers { first: format!("{first} ({failed} failed)") }),
        (None, Some(left)) if left > 0 => Err(FileError::Interrupted { left, done: "received" }),
        (None, _) => Ok(()),
    }
}

/// Why there is no place for one more.
fn crowd(transfers: usize, hung: usize) -> String {
    match hung {
        0 => format!("{transfers} files are coming in already"),
        _ => format!("{transfers} files are coming in already, and the disk does not answer for {hung}"),
    }
}

/// Whether somebody who calls brings a file that is taken.
fn judge(directory: &Path, request: &AdmissionRequest, arguments: &ReceiveArguments) -> Result<Wanted, Denial> {
    let stream_id = &request.stream_id;
    if stream_id.mode() == Some(Mode::Request) {
        return Err((RejectReason::BadMode, "files are taken here, and none is sent".to_owned()));
    }
    if stream_id.value("t").is_some() && stream_id.resource_type() != ResourceType::File {
        return Err((RejectReason::UnsupportedMedia, "only files are taken (t=file)".to_owned()));
    }
    want(directory, stream_id, arguments)
}

/// Makes the file that a Stream ID names.
fn want(directory: &Path, stream_id: &StreamId, arguments: &ReceiveArguments) -> Result<Wanted, Denial> {
    let named = match &arguments.name {
        Some(name) => name::judge(name),
        None => name::of_stream_id(stream_id),
    };
    let name = named.map_err(|error| (RejectReason::FilePath, error.to_string()))?.to_owned();
    let size = match stream_id.value("size") {
        None => None,
        Some(text) => {
            Some(text.parse::<u64>().map_err(|_| (RejectReason::BadRequest, format!("size={text} is no number")))?)
        }
    };
    if let Some(limit) = arguments.max_size.filter(|&limit| size.is_some_and(|size| size > limit)) {
        return Err((RejectReason::Unacceptable, format!("{name} has more than {limit} bytes (--max-size)")));
    }
    let free =
        free_bytes(directory).map_err(|error| (RejectReason::System, format!("{}: {error}", directory.display())))?;
    if size.unwrap_or(0) > free || free == 0 {
        return Err((RejectReason::NoRoom, format!("there are {free} bytes free in {}", directory.display())));
    }
    let store = Store::create(directory, &name, arguments.overwrite).map_err(|error| {
        let reason = match &error {
            StoreError::Exists(_) => RejectReason::Conflict,
            StoreError::Busy(_) => RejectReason::Locked,
            StoreError::System { .. } | StoreError::Unsynced { .. } => RejectReason::System,
        };
        (reason, error.to_string())
    })?;
    Ok(Wanted { name, size, store })
}

impl Receiving {
    fn new(now: Instant, connection: u32, wanted: Wanted) -> Self {
        let Wanted { name, size, store } = wanted;
        Self {
            connection,
            name,
            size,
            store,
            begun: now,
            progress_at: now,
            disk_at: now,
            bytes: 0,
            stage: Stage::Running,
            progress: Progress::new(now),
        }
    }

    /// Hands the disk what has come, as far as it takes it; whether it is behind.
    fn pump(&mut self, now: Instant, endpoint: &mut Endpoint, arguments: &ReceiveArguments) -> bool {
        let Some(connection) = endpoint.connection(self.connection) else { return false };
        if self.stage != Stage::Running {
            return true;
        }
        let before = self.bytes;
        let mut is_behind = false;
        loop {
            if !self.store.has_room() {
                is_behind = true;
                break;
            }
            let Some(payload) = connection.poll_payload(now) else { break };
            self.bytes += payload.packet.len() as u64;
            self.store.write(&payload.packet);
        }
        let mut ended = None;
        while let Some(event) = connection.poll_event() {
            if let Event::Closed(reason) = event {
                ended = Some(reason);
            }
        }
        let given_up = connection.statistics().pkt_rcv_drop;
        if arguments.common.progress {
            self.progress.tell(now, &self.name, false, self.bytes, self.size, connection);
        }
        if self.bytes != before || is_behind {
            self.progress_at = now;
        }
        if self.bytes != before || !is_behind {
            self.disk_at = now;
        }
        let limit = arguments.max_size.unwrap_or(u64::MAX);
        if self.bytes > limit {
            self.fail(now, endpoint, format!("it has more than {limit} bytes (--max-size)"));
        } else if self.size.is_some_and(|size| self.bytes > size) {
            self.fail(now, endpoint, "it has more bytes than were announced".to_owned());
        } else if given_up > 0 {
            self.fail(now, endpoint, format!("{given_up} packets of it never came"));
        } else if let Some(reason) = ended {
            match self.judge_end(reason) {
                Ok(()) => self.stage = Stage::Keeping,
                Err(error) => self.fail(now, endpoint, error),
            }
        } else if now >= self.disk_at + arguments.common.disk_timeout() {
            self.fail(now, endpoint, format!("the disk has taken nothing for {:?}", arguments.common.disk_timeout()));
        } else if now >= self.progress_at + arguments.common.timeout {
            self.end(now, endpoint, || format!("nothing has come for {:?}", arguments.common.timeout));
        }
        is_behind || self.stage != Stage::Running
    }

    /// Whether the file is whole. Where its size was announced that decides; else that its sender ended the connection in order, which it
    /// does when everything has been acknowledged, or when it is interrupted: SRT has no word for the end of a file.
    fn judge_end(&self, reason: CloseReason) -> Result<(), String> {
        match (self.size, reason) {
            (Some(size), _) if self.bytes == size => Ok(()),
            (Some(size), _) => Err(format!("it ended after {} of {size} bytes", self.bytes)),
            (None, CloseReason::PeerShutdown) if self.bytes > 0 => Ok(()),
            (None, CloseReason::PeerShutdown) => Err("its sender ended the connection without a byte".to_owned()),
            (None, CloseReason::PeerIdle) => Err("nothing was heard from its sender any more".to_owned()),
            (None, CloseReason::Local | CloseReason::TakenOver) => Err("the connection was closed here".to_owned()),
        }
    }

    /// Nothing more is waited for: what is running has failed, unless all that was announced is there, and its sender only stays connected.
    fn end(&mut self, now: Instant, endpoint: &mut Endpoint, error: impl FnOnce() -> String) {
        if self.stage != Stage::Running {
            return;
        }
        if self.size == Some(self.bytes) {
            if let Some(connection) = endpoint.connection(self.connection) {
                connection.close(now, CloseReason::Local);
            }
            self.stage = Stage::Keeping;
        } else {
            self.fail(now, endpoint, error());
        }
    }

    fn fail(&mut self, now: Instant, endpoint: &mut Endpoint, error: String) {
        if let Some(connection) = endpoint.connection(self.connection)
            && !connection.is_closed()
        {
            connection.fail(now, PEER_ERROR_FILE_SYSTEM);
        }
        if !matches!(self.stage, Stage::Failed(_)) {
            self.stage = Stage::Failed(error);
        }
    }

    /// Whether the disk may still answer. What has come is synced at last, which may take the longer the more it is.
    fn waits_for_disk(&self, now: Instant, arguments: &ReceiveArguments) -> bool {
        let syncing = match self.stage {
            Stage::Keeping => Duration::from_secs(self.bytes / DISK_BYTES_PER_SECOND),
            Stage::Running | Stage::Failed(_) => Duration::ZERO,
        };
        now < self.disk_at + arguments.common.disk_timeout() + syncing
    }

    /// The report, when it is over; or when it is not, and the disk is not waited for any more.
    fn finished(&mut self, now: Instant, endpoint: &mut Endpoint, waits_for_disk: bool) -> Option<TransferReport> {
        // What has come of it is removed by then, and whoever sends it again finds it free.
        let is_at_it = match self.stage {
            Stage::Running => false,
            Stage::Keeping => !self.store.keep(),
            Stage::Failed(_) => !self.store.abandon(),
        };
        if is_at_it && waits_for_disk {
            return None;
        }
        let outcome = match (&self.stage, self.store.finished()) {
            // Also when it was interrupted too late.
            (_, Some(Ok(stored))) => Ok(stored),
            (Stage::Failed(error), _) if !is_at_it => Err(error.clone()),
            (_, None) if waits_for_disk => return None,
            (stage, None) => {
                self.store.leave();
                let why = match stage {
                    Stage::Failed(error) => error.as_str(),
                    Stage::Running | Stage::Keeping => "all of it has come",
                };
                Err(format!("{why}; the disk does not answer, and {}{PART} may be left", self.name))
            }
            (_, Some(Err(error))) => {
                self.fail(now, endpoint, error.to_string());
                Err(error.to_string())
            }
        };
        let connection = endpoint.connection(self.connection)?;
        let mut report = TransferReport::new(self.name.clone(), connection, false, (self.begun, now), self.bytes);
        report.size = self.size;
        match outcome {
            Ok(stored) => (report.file, report.sha256) = (stored.path.display().to_string(), Some(stored.sha256)),
            Err(error) => report.error = Some(error),
        }
        Some(report)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use clap::Parser;

    use super::super::storing;
    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        arguments: ReceiveArguments,
    }

    /// What is typed to receive one file.
    fn typed(directory: &Path, options: &str) -> ReceiveArguments {
        let words = ["receive", directory.to_str().unwrap(), "srt://127.0.0.1:0?mode=listener", "--count", "1"];
        Typed::parse_from(words.into_iter().chain(options.split_whitespace())).arguments
    }

    fn endpoint(url: &str, role: Role) -> Endpoint {
        let options = EndpointOptions { role, window: 64, connections: 1, connect_timeout: Duration::from_secs(10) };
        Endpoint::open(Location::parse(url).unwrap(), options).unwrap()
    }

    /// Sends this file of 3,000 bytes and stays connected until `ended`; whether the receiver has ended the connection by then. Says once when
    /// everything has been acknowledged.
    fn send(to: SocketAddr, stream_id: &str, mut arrived: impl FnMut(), ended: impl Fn() -> bool) -> bool {
        let mut sender = endpoint(&format!("srt://{to}"), Role::Sender);
        sender.call(StreamId::new(stream_id).unwrap()).unwrap();
        let (mut connected, mut has_arrived, mut was_closed) = (None, false, false);
        while !ended() {
            let now = sender.receive().unwrap();
            match sender.poll_event() {
                Some(EndpointEvent::Connected(number)) => {
                    let connection = sender.connection(number).unwrap();
                    for _ in 0..3 {
                        connection.send(now, &[7; 1_000]).unwrap();
                    }
                    connected = Some(number);
                }
                None => {}
                Some(event) => panic!("{event:?}"),
            }
            if let Some(connection) = connected.and_then(|number| sender.connection(number)) {
                while let Some(event) = connection.poll_event() {
                    was_closed |= event == Event::Closed(CloseReason::PeerShutdown);
                }
                connection.gauge();
                if !has_arrived && connection.statistics().pkt_snd_buf == 0 {
                    has_arrived = true;
                    arrived();
                }
            }
            sender.transmit(now);
            sender.wait(now, now + Duration::from_millis(10)).unwrap();
        }
        was_closed
    }

    #[test]
    fn a_file_of_which_all_is_there_is_kept_though_its_sender_stays() {
        let directory = tempfile::tempdir().unwrap();
        for (name, size, is_interrupted, is_kept) in [
            ("whole", 3_000, false, true),
            ("half", 6_000, false, false),
            ("whole too", 3_000, true, true),
            ("half too", 6_000, true, false),
        ] {
            let timeout = if is_interrupted { "1h" } else { "500ms" };
            let arguments = typed(directory.path(), &format!("--timeout {timeout}"));
            let (tell, address) = mpsc::channel();
            let signal = Arc::new(AtomicBool::new(false));
            let signalled = Arc::clone(&signal);
            let receiver = std::thread::spawn(move || {
                // Once: after a second signal the disk would not be waited for.
                let mut interrupted = || signalled.swap(false, Ordering::Relaxed);
                receive(&arguments, &mut interrupted, |address| tell.send(address).unwrap())
            });
            let stream_id = format!("#!::r={name},m=publish,t=file,size={size}");
            let arrived = || signal.store(is_interrupted, Ordering::Relaxed);
            let was_closed = send(address.recv().unwrap(), &stream_id, arrived, || receiver.is_finished());
            let outcome = receiver.join().unwrap();
            assert_eq!((outcome.is_ok(), was_closed), (is_kept, true), "{name}: {outcome:?}");
            let kept = std::fs::read(directory.path().join(name)).ok();
            assert_eq!(kept, is_kept.then(|| vec![7; 3_000]), "{name}");
        }
    }

    /// A receiver and a sender that are connected, each with the number that the connection has there; and the time.
    pub fn connected() -> ((Endpoint, u32), (Endpoint, u32), Instant) {
        let mut receiver = endpoint("srt://127.0.0.1:0?mode=listener", Role::Receiver);
        let mut sender = endpoint(&format!("srt://{}", receiver.address()), Role::Sender);
        sender.call(StreamId::default()).unwrap();
        let mut number_there = None;
        loop {
            for endpoint in [&mut sender, &mut receiver] {
                let now = endpoint.receive().unwrap();
                endpoint.transmit(now);
                endpoint.wait(now, now).unwrap();
            }
            let now = receiver.receive().unwrap();
            if let Some(EndpointEvent::Asked(request)) = receiver.poll_event() {
                number_there = Some(receiver.answer(&request, || Ok(())).unwrap().unwrap().0);
            }
            if let (Some(EndpointEvent::Connected(number)), Some(there)) = (sender.poll_event(), number_there) {
                return ((receiver, there), (sender, number), now);
            }
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        for (options, timeout) in [("--timeout 1s", 30), ("--timeout 40s", 40)] {
            let ((mut receiver, number), _sender, start) = connected();
            let after = |seconds: u64| start + Duration::from_secs(seconds);
            let arguments = typed(directory.path(), options);
            let (_reader, mut store) = storing::tests::hanging(directory.path());
            let mut bytes = 0;
            // The thread takes a piece out of the line when it gets to run.
            while bytes < 6 * storing::PIECE_LEN {
                if store.has_room() {
                    store.write(&vec![7; storing::PIECE_LEN]);
                    bytes += storing::PIECE_LEN;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut receiving = Receiving::new(start, number, Wanted { name: "a".to_owned(), size: None, store });
            assert!(receiving.pump(after(timeout - 1), &mut receiver, &arguments), "it is behind");
            assert!(receiving.stage == Stage::Running && receiving.waits_for_disk(after(timeout - 1), &arguments));
            receiving.pump(after(timeout), &mut receiver, &arguments);
            assert!(!receiving.waits_for_disk(after(timeout), &arguments));
            let error = receiving.finished(after(timeout), &mut receiver, false).unwrap().error.unwrap();
            let expected =
                format!("the disk has taken nothing for {timeout}s; the disk does not answer, and a.part may be left");
            assert_eq!(error, expected);
            assert!(!receiving.store.is_over(), "it counts among the transfers until the disk answers");
        }
    }

    #[test]
    fn a_disk_that_syncs_has_the_longer_the_more_it_has_taken() {
        let directory = tempfile::tempdir().unwrap();
        let ((mut receiver, number), _sender, start) = connected();
        let arguments = typed(directory.path(), "--timeout 1s");
        let (_reader, store) = storing::tests::hanging(directory.path());
        let wanted = Wanted { name: "a".to_owned(), size: Some(100 << 20), store };
        let mut receiving = Receiving::new(start, number, wanted);
        receiving.bytes = 100 << 20;
        receiving.end(start, &mut receiver, || "interrupted".to_owned());
        assert!(receiving.stage == Stage::Keeping);
        assert!(receiving.waits_for_disk(start + Duration::from_secs(129), &arguments));
        assert!(!receiving.waits_for_disk(start + Duration::from_secs(130), &arguments));
        assert_eq!(crowd(1, 0), "1 files are coming in already");
        assert_eq!(crowd(1, 2), "1 files are coming in already, and the disk does not answer for 2");
    }

    #[test]
    fn a_disk_that_does_not_answer_is_left_alone_when_all_is_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let ((mut receiver, number), _sender, now) = connected();
        for is_whole in [false, true] {
            let (_reader, mut store) = storing::tests::hanging(directory.path());
            store.write(&vec![7; storing::PIECE_LEN]);
            assert!(store.has_room(), "the thread has it, and hangs");
            let size = Some(if is_whole { 0 } else { 1 });
            let mut receiving = Receiving::new(now, number, Wanted { name: "a".to_owned(), size, store });
            receiving.end(now, &mut receiver, || "interrupted".to_owned());
            assert!(receiving.finished(now, &mut receiver, true).is_none());
            let report = receiving.finished(now, &mut receiver, false).unwrap();
            let error = report.error.unwrap();
            let why = if is_whole { "all of it has come" } else { "interrupted" };
            assert_eq!(error, format!("{why}; the disk does not answer, and a.part may be left"));
            let begun = std::time::Instant::now();
            drop(receiving);
            assert!(begun.elapsed() < DISK_PATIENCE, "nobody waits for it");
        }
    }

    #[test]
    fn a_second_signal_or_some_time_ends_the_patience_with_a_disk() {
        let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
        let mut interruption = Interruption::default();
        assert!(!interruption.is_there() && interruption.waits_for_disk(at(1_000)));
        interruption.signalled(at(1_000));
        assert!(interruption.is_there() && interruption.waits_for_disk(at(1_029)));
        assert!(!interruption.waits_for_disk(at(1_030)));
        interruption.signalled(at(1_001));
        assert!(!interruption.waits_for_disk(at(1_001)));
    }
}
