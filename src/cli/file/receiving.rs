//! `headworks file receive`: each connection brings a file.

use std::path::Path;

use super::endpoint::{Endpoint, EndpointEvent, EndpointOptions};
use super::location::{Location, LocationError};
use super::name::{self, PART};
use super::report::{Progress, Refusals, TransferReport};
use super::storing::{Store, StoreError, free_bytes};
use super::{DISK_EVERY, DISK_PATIENCE, Denial, FileError, ReceiveArguments};
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
        eprintln!("listening at {}, files go to {}", endpoint.address(), directory.display());
    } else {
        endpoint.call(asked_for)?;
    }
    let mut left = if listens { arguments.count } else { Some(1) };
    let mut transfers: Vec<Receiving> = Vec::with_capacity(connections);
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
                    let has_room =
                        transfers.len() < connections && left.is_none_or(|left| (transfers.len() as u64) < left);
                    let choose = || {
                        if interruption.is_there() {
                            Err((RejectReason::Close, "nothing more is taken here".to_owned()))
                        } else if has_room {
                            judge(directory, &request, arguments)
                        } else {
                            Err((RejectReason::Overload, format!("{} files are coming in already", transfers.len())))
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
            if let Some(report) = transfer.finished(now, &mut endpoint, interruption.waits_for_disk(now)) {
                ended.push((at, report));
            }
        }
        endpoint.transmit(now);
        for (at, report) in ended.into_iter().rev() {
            endpoint.forget(transfers.remove(at).connection);
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
            StoreError::System { .. } => RejectReason::System,
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
            (_, None) => {
                self.store.leave();
                Err(format!("interrupted; the disk does not answer, and {}{PART} may be left", self.name))
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
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use clap::Parser;

    use super::super::storing;
    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        arguments: ReceiveArguments,
    }

    /// What is typed to receive one file at this port.
    fn typed(directory: &Path, port: u16, options: &str) -> ReceiveArguments {
        let url = format!("srt://127.0.0.1:{port}?mode=listener");
        let words = ["receive", directory.to_str().unwrap(), &url, "--count", "1"];
        Typed::parse_from(words.into_iter().chain(options.split_whitespace())).arguments
    }

    fn free_port() -> u16 {
        UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn endpoint(url: &str, role: Role) -> Endpoint {
        let options = EndpointOptions { role, window: 64, connections: 1, connect_timeout: Duration::from_secs(10) };
        Endpoint::open(Location::parse(url).unwrap(), options).unwrap()
    }

    /// Sends this file of 3,000 bytes and stays connected until `ended`; whether the receiver has ended the connection by then.
    fn send(port: u16, stream_id: &str, ended: impl Fn() -> bool) -> bool {
        let mut sender = endpoint(&format!("srt://127.0.0.1:{port}"), Role::Sender);
        sender.call(StreamId::new(stream_id).unwrap()).unwrap();
        let (mut connected, mut was_closed) = (None, false);
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
            }
            sender.transmit(now);
            sender.wait(now, now + Duration::from_millis(10)).unwrap();
        }
        was_closed
    }

    #[test]
    fn a_file_of_which_all_is_there_is_kept_though_its_sender_stays() {
        let directory = tempfile::tempdir().unwrap();
        for (name, size, interrupted_after, is_kept) in [
            ("whole", 3_000, None, true),
            ("half", 6_000, None, false),
            ("whole too", 3_000, Some(Duration::from_millis(500)), true),
            ("half too", 6_000, Some(Duration::from_millis(500)), false),
        ] {
            let port = free_port();
            let timeout = if interrupted_after.is_some() { "1h" } else { "500ms" };
            let arguments = typed(directory.path(), port, &format!("--timeout {timeout}"));
            let part = directory.path().join(format!("{name}{PART}"));
            let receiver = std::thread::spawn(move || {
                let mut come_at = None;
                let mut interrupted = || {
                    let Some(after) = interrupted_after else { return false };
                    let come_at = match part.exists() {
                        true => Some(*come_at.get_or_insert_with(std::time::Instant::now)),
                        false => come_at,
                    };
                    come_at.is_some_and(|at: std::time::Instant| at.elapsed() > after)
                };
                run(&arguments, &mut interrupted)
            });
            let stream_id = format!("#!::r={name},m=publish,t=file,size={size}");
            let was_closed = send(port, &stream_id, || receiver.is_finished());
            let outcome = receiver.join().unwrap();
            assert_eq!((outcome.is_ok(), was_closed), (is_kept, true), "{name}: {outcome:?}");
            let kept = std::fs::read(directory.path().join(name)).ok();
            assert_eq!(kept, is_kept.then(|| vec![7; 3_000]), "{name}");
        }
    }

    #[test]
    fn a_disk_that_does_not_answer_is_left_alone_when_all_is_to_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut receiver = endpoint("srt://127.0.0.1:0?mode=listener", Role::Receiver);
        let mut sender = endpoint(&format!("srt://{}", receiver.address()), Role::Sender);
        sender.call(StreamId::default()).unwrap();
        let (now, number) = loop {
            for endpoint in [&mut sender, &mut receiver] {
                let now = endpoint.receive().unwrap();
                endpoint.transmit(now);
                endpoint.wait(now, now).unwrap();
            }
            let now = receiver.receive().unwrap();
            if let Some(EndpointEvent::Asked(request)) = receiver.poll_event() {
                break (now, receiver.answer(&request, || Ok(())).unwrap().unwrap().0);
            }
        };
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
            assert!(error.contains("does not answer, and a.part may be left"), "{error}");
            assert!(receiving.store.abandon(), "nobody waits for it");
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
