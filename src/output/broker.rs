//! The thread that hands rings to readers whom the file modes keep out; what it says is in [`headworks_frame_ring::broker`].

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headworks_frame_ring::broker::{Answer, Peer, answer, is_taken, peer, receive_request};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use crate::config::{Config, Readers};

/// How long a connection may be without its request.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at connections.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Connections that the kernel keeps until they are looked at.
const BACKLOG: i32 = 64;

/// Who may read what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerOptions {
    /// Where it listens.
    pub socket: PathBuf,
    /// Where rings are.
    pub root: PathBuf,
    /// Connections at a time.
    pub max_connections: usize,
    /// Readers of streams that name none.
    pub readers: Readers,
    /// Readers of streams that do.
    pub by_stream: BTreeMap<String, Readers>,
}

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
#[error("output.broker.socket {path}: {source}")]
pub struct BrokerError {
    /// The socket.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

/// The running thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Broker {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
    /// Device and inode of the socket.
    identity: (u64, u64),
}

impl BrokerOptions {
    /// What the configuration asks for; `None` when it asks for none.
    pub fn from_config(config: &Config) -> Option<Self> {
        let broker = &config.output.broker;
        let named = config.streams.iter().filter_map(|(name, stream)| Some((name.clone(), stream.readers.clone()?)));
        Some(Self {
            socket: broker.socket.clone()?,
            root: config.output.root.clone(),
            max_connections: broker.max_connections.max(1) as usize,
            readers: broker.readers.clone(),
            by_stream: named.collect(),
        })
    }

    /// Whether a peer may read a stream.
    fn allows(&self, peer: &Peer, stream: &str) -> bool {
        may_read_all(peer) || names(self.by_stream.get(stream).unwrap_or(&self.readers), peer)
    }

    /// Whether there can be any stream that a peer may read. Nobody else takes a place from those who may.
    fn knows(&self, peer: &Peer) -> bool {
        may_read_all(peer) || names(&self.readers, peer) || self.by_stream.values().any(|readers| names(readers, peer))
    }
}

/// The user that rings belong to, and root.
fn may_read_all(peer: &Peer) -> bool {
    peer.uid == 0 || peer.uid == rustix::process::geteuid().as_raw()
}

fn names(readers: &Readers, peer: &Peer) -> bool {
    readers.uids.contains(&peer.uid)
        || readers.gids.contains(&peer.gid)
        || peer.groups.iter().any(|group| readers.gids.contains(group))
}

impl Broker {
    /// Listens, and starts the thread.
    ///
    /// # Errors
    /// [`BrokerError`], such as when another process listens there.
    ///
    /// # Panics
    /// When the system has no thread left at start.
    pub fn start(options: BrokerOptions) -> Result<Self, BrokerError> {
        let socket = options.socket.clone();
        let opened = || -> io::Result<(OwnedFd, (u64, u64), OwnedFd)> {
            let listener = open_listener(&socket)?;
            Ok((listener, identity(&socket)?, eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        };
        let (listener, identity, stop) = opened().map_err(|source| BrokerError { path: socket.clone(), source })?;
        let stopped = stop.try_clone().map_err(|source| BrokerError { path: socket.clone(), source })?;
        tracing::info!("the broker listens on {}", socket.display());
        let desk = Desk { options, listener, stopped, waiting: Vec::new(), answered: Vec::new() };
        let thread = std::thread::Builder::new().name("hw-broker".to_owned()).spawn(move || desk.run());
        Ok(Self { stop, thread: Some(thread.expect("a thread can be started")), socket, identity })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Another process may have put its own in the place of one that was removed by hand.
        if identity(&self.socket).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let facts = std::fs::symlink_metadata(path)?;
    Ok((facts.dev(), facts.ino()))
}

/// Everyone may connect: who it is decides what comes of it.
fn open_listener(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = SocketAddrUnix::new(path)?;
    let new_socket = || socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    if let Ok(found) = std::fs::symlink_metadata(path) {
        let taken = |what| Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        if !found.file_type().is_socket() || found.uid() != rustix::process::geteuid().as_raw() {
            return taken("what is there is no socket of this user's");
        }
        match connect(&new_socket()?, &address) {
            // Left by an earlier run.
            Err(Errno::CONNREFUSED) => std::fs::remove_file(path)?,
            _ => return taken("another process listens there"),
        }
    }
    let listener = new_socket()?;
    bind(&listener, &address)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

struct Desk {
    options: BrokerOptions,
    listener: OwnedFd,
    stopped: OwnedFd,
    waiting: Vec<Connection>,
    /// They hold their places until the answer is taken: descriptors in flight are limited, and who lets them lie gets no more.
    answered: Vec<Connection>,
}

struct Connection {
    socket: OwnedFd,
    peer: Peer,
    since: Instant,
}

/// How far a connection has come.
enum Progress {
    Waiting,
    Answered,
    Failed,
}

impl Desk {
    fn run(mut self) {
        loop {
            let ready: Vec<bool> = {
                let sockets = self.waiting.iter().map(|connection| connection.socket.as_fd());
                let all = [self.stopped.as_fd(), self.listener.as_fd()].into_iter().chain(sockets);
                let mut polled: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
                let is_idle = self.waiting.is_empty() && self.answered.is_empty();
                if poll(&mut polled, (!is_idle).then_some(&LOOK_INTERVAL)).is_err() {
                    continue;
                }
                polled.iter().map(|fd| !fd.revents().is_empty()).collect()
            };
            if ready[0] {
                return;
            }
            self.answered.retain(|connection| !is_taken(connection.socket.as_fd()));
            for (connection, is_ready) in std::mem::take(&mut self.waiting).into_iter().zip(&ready[2..]) {
                match if *is_ready { connection.serve(&self.options) } else { Progress::Waiting } {
                    Progress::Waiting if connection.since.elapsed() < PATIENCE => self.waiting.push(connection),
                    Progress::Answered => self.answered.push(connection),
                    Progress::Waiting | Progress::Failed => {}
                }
            }
            if ready[1] {
                self.accept();
            }
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // As many as may wait, so that those who wait for an answer get one first.
        for _ in 0..BACKLOG {
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    // Out of descriptors, most likely: the listener stays ready, and nothing is won by asking it at once.
                    std::thread::sleep(Duration::from_millis(50));
                    return;
                }
            };
            let Ok(peer) = peer(socket.as_fd()) else { continue };
            if !self.options.knows(&peer) {
                tell_refused(&peer, None);
                let _ = Answer::refused().send(socket.as_fd());
                continue;
            }
            let held = || self.waiting.iter().chain(&self.answered);
            let of_user = held().filter(|connection| connection.peer.uid == peer.uid).count();
            let share = self.options.max_connections.div_ceil(4);
            if held().count() >= self.options.max_connections || of_user >= share {
                let _ = Answer::busy().send(socket.as_fd());
                continue;
            }
            self.waiting.push(Connection { socket, peer, since: Instant::now() });
        }
    }
}

impl Connection {
    fn serve(&self, options: &BrokerOptions) -> Progress {
        let request = match receive_request(self.socket.as_fd()) {
            Ok(request) => request,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Waiting,
            Err(_) => return Progress::Failed,
        };
        let given = answer(&options.root, &request, |stream| {
            let may_read = options.allows(&self.peer, stream);
            if !may_read {
                tell_refused(&self.peer, Some(stream));
            }
            may_read
        });
        given.send(self.socket.as_fd()).map_or(Progress::Failed, |()| Progress::Answered)
    }
}

fn tell_refused(peer: &Peer, stream: Option<&str>) {
    tracing::debug!(stream, uid = peer.uid, gid = peer.gid, groups = ?peer.groups, "the broker refuses a reader");
}

#[cfg(test)]
mod tests;
