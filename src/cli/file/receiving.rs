//! `headworks file receive`: each connection brings a file.

use std::path::Path;

use super::endpoint::{Endpoint, EndpointEvent, EndpointOptions};
use super::location::Location;
use super::name;
use super::report::{Progress, Refusals, TransferReport};
use super::storing::{Store, StoreError, free_bytes};
use super::{DISK_EVERY, Denial, FileError, ReceiveArguments};
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
    let location = Location::parse(&arguments.location)?;
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
    let mut is_interrupted = false;
    let mut refusals = Refusals::new(Clock::now());
    while left.is_none_or(|left| left > 0) || endpoint.is_saying_farewell() {
        is_interrupted |= interrupted();
        let now = endpoint.receive()?;
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
                    let room = if is_interrupted {
                        Err((RejectReason::Close, "nothing more is taken here".to_owned()))
                    } else if has_room {
                        Ok(())
                    } else {
                        Err((RejectReason::Overload, format!("{} files are coming in already", transfers.len())))
                    };
                    match endpoint.answer(&request, room, || judge(directory, &request, arguments))? {
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
            if is_interrupted {
                transfer.fail(now, &mut endpoint, "interrupted".to_owned());
            }
            if transfer.pump(now, &mut endpoint, arguments) {
                wake = now + DISK_EVERY;
            }
            if let Some(report) = transfer.finished(now, &mut endpoint) {
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
        if is_interrupted && transfers.is_empty() && !endpoint.is_saying_farewell() {
            break;
        }
        endpoint.wait(now, wake)?;
    }
    match first {
        None => Ok(()),
        Some(first) => Err(FileError::Transfers { first: format!("{first} ({failed} failed)") }),
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
            self.fail(now, endpoint, format!("nothing has come for {:?}", arguments.common.timeout));
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

    /// The report, when it is over.
    fn finished(&mut self, now: Instant, endpoint: &mut Endpoint) -> Option<TransferReport> {
        if self.stage == Stage::Keeping && !self.store.keep() {
            return None;
        }
        // What has come of it is removed by then, and whoever sends it again finds it free.
        if matches!(self.stage, Stage::Failed(_)) && !self.store.abandon() {
            return None;
        }
        let outcome = match (&self.stage, self.store.finished()) {
            // Also when it was interrupted too late.
            (_, Some(Ok(stored))) => Ok(stored),
            (Stage::Failed(error), _) => Err(error.clone()),
            (_, None) => return None,
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
