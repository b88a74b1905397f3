//! `headworks file send`: one connection for each file, one after the other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::endpoint::{Endpoint, EndpointEvent, EndpointOptions};
use super::location::{Location, LocationError};
use super::reading::{self, Next, Reader};
use super::report::{Progress, Refusals, TransferReport};
use super::{DISK_EVERY, Denial, FileError, SendArguments};
use crate::base::Instant;
use crate::protocol::srt::connection::{CloseReason, Event, PEER_ERROR_FILE_SYSTEM};
use crate::protocol::srt::handshake::RejectReason;
use crate::protocol::srt::parameters::Role;
use crate::protocol::srt::stream_id::{Mode, ResourceType, StreamId};
use crate::shard::clock::Clock;

/// A file that is to be sent.
#[derive(Debug)]
struct Item {
    path: PathBuf,
    name: String,
    size: u64,
    /// What a call asks for.
    stream_id: StreamId,
}

impl Item {
    /// The report of a file of which nothing was sent.
    fn unsent(&self, error: String) -> TransferReport {
        let file = self.path.display().to_string();
        TransferReport { file, size: Some(self.size), error: Some(error), ..TransferReport::default() }
    }
}

/// A file on its way.
struct Sending {
    item: Item,
    connection: u32,
    reader: Reader,
    begun: Instant,
    /// When something was acknowledged last, and how many packets were by then.
    progress_at: Instant,
    acknowledged: u64,
    /// When the disk was not waited for last.
    disk_at: Instant,
    packets: u64,
    bytes: u64,
    sha256: Option<String>,
    peer_error: Option<u32>,
    progress: Progress,
}

/// Sends all files.
///
/// # Errors
/// [`FileError`] when nothing could be sent; what became of each file stands in its report.
pub fn run(arguments: &SendArguments, interrupted: &mut dyn FnMut() -> bool) -> Result<(), FileError> {
    let (files, location) = arguments.files_and_location()?;
    let passphrase = arguments.common.passphrase.read().map_err(LocationError::from)?;
    let location = Location::parse(location)?.with_passphrase(passphrase)?;
    let mut waiting = items(files, &location)?;
    waiting.reverse();
    let total = waiting.len();
    let options = EndpointOptions {
        role: Role::Sender,
        window: arguments.common.window as usize,
        connections: 1,
        connect_timeout: arguments.common.connect_timeout,
    };
    let listens = location.listens;
    let mut endpoint = Endpoint::open(location, options)?;
    if listens {
        eprintln!("waiting for {total} caller{} at {}", if total == 1 { "" } else { "s" }, endpoint.address());
    }
    let mut failed = Vec::new();
    let mut sending: Option<Sending> = None;
    let mut calling: Option<Item> = None;
    let mut refusals = Refusals::new(Clock::now());
    while !waiting.is_empty() || sending.is_some() || calling.is_some() || endpoint.is_saying_farewell() {
        if interrupted() {
            let left = waiting.len() + usize::from(calling.is_some()) + usize::from(sending.is_some());
            if let Some(connection) = sending.as_ref().and_then(|it| endpoint.connection(it.connection)) {
                connection.close(Instant::ZERO, CloseReason::Local);
            }
            let now = endpoint.receive()?;
            endpoint.transmit(now);
            endpoint.wait(now, now)?;
            return Err(FileError::Interrupted { left: left as u64, done: "sent" });
        }
        if !listens
            && sending.is_none()
            && calling.is_none()
            && let Some(item) = waiting.pop()
        {
            // Nobody is called for a file that is gone.
            match reading::open(&item.path) {
                Ok(_) => {
                    endpoint.call(item.stream_id.clone())?;
                    calling = Some(item);
                }
                Err(error) => end(item.unsent(error.to_string()), arguments, &mut failed)?,
            }
        }
        let now = endpoint.receive()?;
        while let Some(event) = endpoint.poll_event() {
            match event {
                EndpointEvent::Connected(connection) => {
                    let Some(item) = calling.take() else { continue };
                    match begin(&mut endpoint, now, item, connection, arguments) {
                        Ok(begun) => sending = Some(begun),
                        Err(report) => end(*report, arguments, &mut failed)?,
                    }
                }
                EndpointEvent::Failed(error) => {
                    let Some(item) = calling.take() else { continue };
                    end(item.unsent(error.to_string()), arguments, &mut failed)?;
                }
                EndpointEvent::Asked(request) => {
                    let choose = || {
                        if sending.is_some() || waiting.is_empty() {
                            Err((RejectReason::Backlog, "another file is being sent".to_owned()))
                        } else {
                            choose(&request.stream_id, &waiting)
                        }
                    };
                    match endpoint.answer(&request, choose)? {
                        Ok((connection, at)) => {
                            let item = waiting.remove(at);
                            match begin(&mut endpoint, now, item, connection, arguments) {
                                Ok(begun) => sending = Some(begun),
                                Err(report) => end(*report, arguments, &mut failed)?,
                            }
                        }
                        Err(denial) => refusals.tell(now, request.key.peer, &denial),
                    }
                }
                EndpointEvent::Refused(refusal) => {
                    refusals.tell(now, refusal.peer, &(refusal.reason, refusal.why));
                }
            }
        }
        let mut wake = Instant::FAR_FUTURE;
        if let Some(it) = &mut sending {
            match it.pump(now, &mut endpoint, arguments) {
                Pumped::Goes => {}
                Pumped::WaitsForDisk => wake = now + DISK_EVERY,
                Pumped::Ended(outcome) => {
                    let it = sending.take().expect("it has just ended");
                    endpoint.transmit(now);
                    let report = it.report(now, &mut endpoint, outcome);
                    endpoint.forget(it.connection);
                    end(report, arguments, &mut failed)?;
                }
            }
        }
        endpoint.transmit(now);
        endpoint.wait(now, wake)?;
    }
    match failed.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(FileError::Transfers { first: format!("{}: {}", first.0, first.1) }),
    }
}

/// Reports a file, and notes the reason if it has failed.
fn end(report: TransferReport, arguments: &SendArguments, failed: &mut Vec<(String, String)>) -> Result<(), FileError> {
    report.print(arguments.common.json)?;
    failed.extend(report.error.map(|error| (report.file, error)));
    Ok(())
}

/// Begins to send a file to a peer that is connected; if it cannot be read any more the peer is told of the end, and the report is there at once.
fn begin(
    endpoint: &mut Endpoint,
    now: Instant,
    item: Item,
    number: u32,
    arguments: &SendArguments,
) -> Result<Sending, Box<TransferReport>> {
    let connection = endpoint.connection(number).expect("it has just been made");
    if let Some(rate) = arguments.rate {
        connection.limit_rate(rate);
    }
    let payload_len = connection.parameters().payload_size_max();
    let reader = match reading::open(&item.path).and_then(|(file, _)| Reader::new(file, payload_len)) {
        Ok(reader) => reader,
        Err(error) => {
            connection.fail(now, PEER_ERROR_FILE_SYSTEM);
            let peer = connection.parameters().peer.to_string();
            endpoint.transmit(now);
            endpoint.forget(number);
            return Err(Box::new(TransferReport { peer, ..item.unsent(error.to_string()) }));
        }
    };
    Ok(Sending {
        item,
        connection: number,
        reader,
        begun: now,
        progress_at: now,
        acknowledged: 0,
        disk_at: now,
        packets: 0,
        bytes: 0,
        sha256: None,
        peer_error: None,
        progress: Progress::new(now),
    })
}

/// Which of the files that wait, the next at the end, this caller gets.
fn choose(stream_id: &StreamId, waiting: &[Item]) -> Result<usize, Denial> {
    if stream_id.mode() == Some(Mode::Publish) {
        return Err((RejectReason::BadMode, "files are sent from here, and none is taken".to_owned()));
    }
    if stream_id.value("t").is_some() && stream_id.resource_type() != ResourceType::File {
        return Err((RejectReason::UnsupportedMedia, "there are only files here (t=file)".to_owned()));
    }
    match stream_id.resource() {
        None => Ok(waiting.len() - 1),
        Some(name) => waiting
            .iter()
            .rposition(|item| item.name == name)
            .ok_or_else(|| (RejectReason::NotFound, format!("{name} is none of the files that wait"))),
    }
}

/// What became of a turn.
enum Pumped {
    Goes,
    WaitsForDisk,
    Ended(Result<(), String>),
}

impl Sending {
    /// Hands in what the connection has room for, and looks at how it goes.
    fn pump(&mut self, now: Instant, endpoint: &mut Endpoint, arguments: &SendArguments) -> Pumped {
        let Some(connection) = endpoint.connection(self.connection) else {
            return Pumped::Ended(Err("the connection is gone".to_owned()));
        };
        let before = self.packets;
        let mut waits_for_disk = false;
        while self.sha256.is_none() && !connection.is_send_buffer_full() && !connection.is_closed() {
            match self.reader.next() {
                Ok(Next::Payload(payload)) => {
                    let length = payload.len() as u64;
                    if connection.send(now, payload).is_err() {
                        break;
                    }
                    self.bytes += length;
                    self.packets += 1;
                    self.reader.take();
                }
                Ok(Next::NotYet) => {
                    waits_for_disk = true;
                    break;
                }
                Ok(Next::End(sha256)) => self.sha256 = Some(sha256.to_owned()),
                Err(error) => {
                    connection.fail(now, PEER_ERROR_FILE_SYSTEM);
                    return Pumped::Ended(Err(format!("reading: {error}")));
                }
            }
        }
        connection.gauge();
        let waiting = connection.statistics().pkt_snd_buf;
        let has_all = self.sha256.is_some() && waiting == 0;
        while let Some(event) = connection.poll_event() {
            match event {
                Event::PeerError { code } => self.peer_error = Some(code),
                // Some end the connection as soon as they have everything.
                Event::Closed(_) if has_all => return Pumped::Ended(Ok(())),
                Event::Closed(reason) => return Pumped::Ended(Err(self.lost(reason))),
                _ => {}
            }
        }
        if has_all {
            connection.close(now, CloseReason::Local);
            return Pumped::Ended(Ok(()));
        }
        if arguments.common.progress {
            let acknowledged = self.bytes.saturating_sub(waiting * connection.parameters().payload_size_max() as u64);
            self.progress.tell(now, &self.item.name, true, acknowledged, Some(self.item.size), connection);
        }
        if self.packets != before || !waits_for_disk {
            self.disk_at = now;
        } else if now >= self.disk_at + arguments.common.disk_timeout() {
            connection.fail(now, PEER_ERROR_FILE_SYSTEM);
            return Pumped::Ended(Err(format!("the disk has given nothing for {:?}", arguments.common.disk_timeout())));
        }
        let acknowledged = self.packets.saturating_sub(waiting);
        if acknowledged != self.acknowledged || waits_for_disk {
            (self.acknowledged, self.progress_at) = (acknowledged, now);
        } else if now >= self.progress_at + arguments.common.timeout {
            connection.close(now, CloseReason::Local);
            return Pumped::Ended(Err(format!("the peer has taken nothing for {:?}", arguments.common.timeout)));
        }
        if waits_for_disk { Pumped::WaitsForDisk } else { Pumped::Goes }
    }

    fn lost(&self, reason: CloseReason) -> String {
        match (self.peer_error, reason) {
            (Some(PEER_ERROR_FILE_SYSTEM), _) => "the peer cannot keep it (error 4000)".to_owned(),
            (Some(code), _) => format!("the peer cannot take it (error {code})"),
            (None, CloseReason::PeerShutdown) => "the peer ended the connection before it had everything".to_owned(),
            (None, CloseReason::PeerIdle) => "nothing was heard from the peer any more".to_owned(),
            (None, CloseReason::Local | CloseReason::TakenOver) => "the connection was closed here".to_owned(),
        }
    }

    fn report(&self, now: Instant, endpoint: &mut Endpoint, outcome: Result<(), String>) -> TransferReport {
        let file = self.item.path.display().to_string();
        let Some(connection) = endpoint.connection(self.connection) else { return TransferReport::default() };
        let changed = (outcome.is_ok() && self.bytes != self.item.size)
            .then(|| format!("it had {} bytes when it was announced, and {} now", self.item.size, self.bytes));
        TransferReport {
            size: Some(self.item.size),
            sha256: self.sha256.clone(),
            error: outcome.err().or(changed),
            ..TransferReport::new(file, connection, true, (self.begun, now), self.bytes)
        }
    }
}

/// What each file is called, and what its call says.
fn items(files: &[String], location: &Location) -> Result<Vec<Item>, FileError> {
    if location.stream_id.is_some() && files.len() > 1 && !location.listens {
        return Err(FileError::OneName);
    }
    files.iter().map(|file| item(Path::new(file), location)).collect()
}

fn item(path: &Path, location: &Location) -> Result<Item, FileError> {
    let failed = |error| FileError::Read { path: path.to_owned(), error };
    let (_, size): (File, u64) = reading::open(path).map_err(failed)?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidInput, "its name is no text")))?
        .to_owned();
    let stream_id = match &location.stream_id {
        Some(stream_id) => stream_id.clone(),
        None if location.listens => StreamId::default(),
        None => announce(&name, size).ok_or_else(|| FileError::Name { path: path.to_owned() })?,
    };
    Ok(Item { path: path.to_owned(), name, size, stream_id })
}

/// The Stream ID of a file: with its size, or nobody could tell its end from that of the connection.
fn announce(name: &str, size: u64) -> Option<StreamId> {
    if name.contains(',') {
        return None;
    }
    StreamId::new(&format!("#!::r={name},m=publish,t=file,size={size}")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::super::receiving;
    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        arguments: SendArguments,
    }

    #[test]
    fn a_disk_that_gives_nothing_is_not_waited_for_for_ever() {
        for (timeout_typed, timeout) in [("1s", 30), ("40s", 40)] {
            let words = ["send", "a", "srt://127.0.0.1:1", "--timeout", timeout_typed];
            let arguments = Typed::parse_from(words).arguments;
            let (_receiver, (mut sender, number), start) = receiving::tests::connected();
            let after = |seconds: u64| start + Duration::from_secs(seconds);
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a");
            std::fs::write(&path, "abc").unwrap();
            let item = item(&path, &Location::parse("srt://127.0.0.1:1").unwrap()).unwrap();
            let mut sending = begin(&mut sender, start, item, number, &arguments).unwrap();
            // A pipe into which nobody writes.
            let (pipe, _writer) = io::pipe().unwrap();
            sending.reader = Reader::new(File::from(std::os::fd::OwnedFd::from(pipe)), 1_456).unwrap();
            for waited in [0, 1, timeout - 1] {
                let pumped = sending.pump(after(waited), &mut sender, &arguments);
                assert!(matches!(pumped, Pumped::WaitsForDisk), "after {waited} s");
            }
            let Pumped::Ended(Err(error)) = sending.pump(after(timeout), &mut sender, &arguments) else { panic!() };
            assert_eq!(error, format!("the disk has given nothing for {timeout}s"));
        }
    }

    #[test]
    fn a_file_is_announced_with_its_size_if_its_name_can_be_said() {
        let stream_id = announce("a clip = 1.ts", 12).unwrap();
        assert_eq!(stream_id.as_str(), "#!::r=a clip = 1.ts,m=publish,t=file,size=12");
        assert_eq!((stream_id.resource(), stream_id.value("size")), (Some("a clip = 1.ts"), Some("12")));
        assert_eq!(announce("a,m=request", 12), None);
        assert_eq!(announce(&"a".repeat(129), 12), None);
    }

    #[test]
    fn one_stream_id_names_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a");
        std::fs::write(&file, "abc").unwrap();
        let file = file.to_str().unwrap().to_owned();
        let location = Location::parse("srt://127.0.0.1:1?streamid=b").unwrap();
        assert!(matches!(items(&[file.clone(), file.clone()], &location), Err(FileError::OneName)));
        let items = items(&[file], &location).unwrap();
        assert_eq!((items[0].stream_id.as_str(), items[0].name.as_str(), items[0].size), ("b", "a", 3));
    }
}
