//! The broker: readers whom the file modes keep out get read-only descriptors over a Unix socket, for the streams they may read.
//!
//! A connection carries one request and one answer, each a message of a `SOCK_SEQPACKET` socket. A request is a word and the name of
//! the stream as its directory has it; `UUID` is the stream's as its bell has it, in 32 lower-case digits, so that no ring of a
//! directory that has taken the name since is mistaken for one of this bell's:
//!
//! ```text
//! bell cam1               → ok, with the descriptor of `bell`
//! tracks cam1 UUID        → ok, and a line per track
//! ring cam1 video0 UUID   → ok, with the descriptors of `ctl` and `data`
//! description cam1        → ok, with the descriptor of `stream.capnp`
//! ```
//!
//! An answer begins with `ok`, `refused`, `absent`, `busy`, `failed` or `malformed`, and may come before the request is taken.
//! Descriptors come as `SCM_RIGHTS` and are open for reading alone; another user can neither write through them nor open them anew.
//! Who asks is told by the kernel (`SO_PEERCRED`, `SO_PEERGROUPS`): no secret is spoken, and a stream that may not be read is refused whether it is
//! there or not.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};

use crate::bell::stream_uuid_of;
use crate::builder::{open_directory, open_shared};
use crate::directory::{NAME_MAX, decode_name, encode_name, list_tracks};
use crate::stream_descriptor::StreamDescriptor;

/// The longest request, bytes: a word, two names and a UUID.
const REQUEST_MAX: usize = 64 + 2 * NAME_MAX;
/// The longest answer, bytes; names of tracks past it are left out.
pub(crate) const ANSWER_MAX: usize = 32 << 10;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(2);

/// A stream's files, through a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    socket: PathBuf,
    stream: String,
}

/// The process at the other end of a connection, when it was made. In a user namespace all users and groups from outside that have no
/// number there count as 65534.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What is sent back.
#[derive(Debug)]
pub struct Answer {
    pub(crate) text: String,
    pub(crate) files: Vec<File>,
}

impl Broker {
    /// The way to a stream (by its name, not encoded) through the broker at `socket`. A relative path counts from the directory in
    /// which the process is now.
    #[must_use]
    pub fn new(socket: &Path, stream: &str) -> Self {
        // One that cannot be made absolute leads nowhere, which is said when the broker is asked.
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        Self { socket, stream: encode_name(stream) }
    }

    /// The stream's bell.
    ///
    /// # Errors
    /// `PermissionDenied` when this user may not read the stream, `NotFound` when it is not there, `ResourceBusy` when the broker
    /// has too many connections, `TimedOut` when it does not answer within 2 s, or what the socket says.
    pub fn bell(&self) -> io::Result<File> {
        let (_, files) = self.ask(&format!("bell {}", self.stream), 1)?;
        files.into_iter().next().ok_or_else(malformed)
    }

    /// The names of the rings beside the bell of this `stream_uuid`.
    ///
    /// # Errors
    /// As [`Broker::bell`].
    pub fn tracks(&self, stream_uuid: [u8; 16]) -> io::Result<Vec<String>> {
        let (text, _) = self.ask(&format!("tracks {} {}", self.stream, hex(stream_uuid)), 0)?;
        Ok(text.lines().skip(1).map(str::to_owned).collect())
    }

    /// `ctl` and `data` of a ring beside the bell of this `stream_uuid`.
    ///
    /// # Errors
    /// As [`Broker::bell`].
    pub fn ring(&self, track: &str, stream_uuid: [u8; 16]) -> io::Result<(File, File)> {
        let (_, files) = self.ask(&format!("ring {} {track} {}", self.stream, hex(stream_uuid)), 2)?;
        let [ctl, data] = <[File; 2]>::try_from(files).map_err(|_| malformed())?;
        Ok((ctl, data))
    }

    /// The stream's description.
    ///
    /// # Errors
    /// As [`Broker::bell`].
    pub fn description(&self) -> io::Result<File> {
        let (_, files) = self.ask(&format!("description {}", self.stream), 1)?;
        files.into_iter().next().ok_or_else(malformed)
    }

    fn ask(&self, request: &str, wanted: usize) -> io::Result<(String, Vec<File>)> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        for timeout in [Timeout::Recv, Timeout::Send] {
            sockopt::set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
        }
        let address = SocketAddrUnix::new(&self.socket)?;
        retry_on_intr(|| connect(&socket, &address)).map_err(late)?;
        match send(socket.as_fd(), request.as_bytes(), &[]) {
            // It may have answered before.
            Ok(()) | Err(Errno::PIPE) => {}
            Err(error) => return Err(late(error)),
        }
        let (text, files) = match receive(socket.as_fd(), ANSWER_MAX) {
            // It closed the connection without the request; what it said before that is still there.
            Err(Errno::CONNRESET) => receive(socket.as_fd(), ANSWER_MAX),
            received => received,
        }
        .map_err(late)?;
        let text = String::from_utf8(text).map_err(|_| malformed())?;
        let reason = |kind, what: &str| Err(io::Error::new(kind, format!("the broker says that {what}")));
        match text.lines().next().unwrap_or_default() {
            "ok" if files.len() == wanted => Ok((text, files)),
            "refused" => reason(io::ErrorKind::PermissionDenied, "this user may not read the stream"),
            "absent" => reason(io::ErrorKind::NotFound, "there is no such stream or track"),
            "busy" => reason(io::ErrorKind::ResourceBusy, "it has too many connections"),
            "failed" => reason(io::ErrorKind::Other, "it cannot open the files of the stream"),
            "" => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection without an answer"))
            }
            _ => Err(malformed()),
        }
    }
}

impl Answer {
    /// This peer may read nothing.
    #[must_use]
    pub fn refused() -> Self {
        Self::word("refused")
    }

    /// This peer has to come again later.
    #[must_use]
    pub fn busy() -> Self {
        Self::word("busy")
    }

    fn word(word: &str) -> Self {
        Self { text: word.to_owned(), files: Vec::new() }
    }

    /// The word it begins with.
    #[must_use]
    pub fn outcome(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// Sends it; the other side is not waited for.
    ///
    /// # Errors
    /// What the socket says, such as that the peer is gone.
    pub fn send(&self, connection: BorrowedFd<'_>) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = self.files.iter().map(AsFd::as_fd).collect();
        Ok(send(connection, self.text.as_bytes(), &descriptors)?)
    }
}

/// Who is at the other end.
///
/// # Errors
/// What the socket says.
pub fn peer(connection: BorrowedFd<'_>) -> io::Result<Peer> {
    // Not by rustix, whose type holds no process id of 0, which a peer of another process namespace has.
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: a live descriptor, and a live structure of the length given.
    let status = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if status != 0 || length as usize != size_of::<libc::ucred>() {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { uid: credentials.uid, gid: credentials.gid, groups: peer_groups(connection)? })
}

/// The supplementary groups of who is at the other end, when the connection was made (`SO_PEERGROUPS`).
fn peer_groups(connection: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // More than almost anybody is in; the kernel says how many there are if that is not enough.
    let mut groups: Vec<u32> = vec![0; 32];
    loop {
        let mut length = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: a live descriptor, and as many live integers as the length says.
        let status = unsafe {
            libc::getsockopt(
                connection.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        if status == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ERANGE) if count > groups.len() => groups.resize(count, 0),
            // A kernel before 4.13 does not tell: the peer is judged by its user and first group.
            Some(libc::ENOPROTOOPT) => return Ok(Vec::new()),
            _ => return Err(error),
        }
    }
}

/// Whether the peer has taken what was sent to it, or is gone. Until then descriptors are in flight, and count against the limit of
/// the user who sent them.
#[must_use]
pub fn is_taken(connection: BorrowedFd<'_>) -> bool {
    let mut waiting: libc::c_int = 0;
    // SAFETY: a live descriptor, and a live integer of the kind that this request writes.
    let status = unsafe { libc::ioctl(connection.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    status != 0 || waiting == 0
}

/// Takes the request that has come on a connection, without waiting for one.
///
/// # Errors
/// What the socket says; `WouldBlock` when none has come, `UnexpectedEof` when none will.
pub fn receive_request(connection: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    // Descriptors that somebody sends along are closed by the kernel: there is no room for them.
    let mut request = vec![0; REQUEST_MAX + 1];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let mut slices = [IoSliceMut::new(&mut request)];
    let received = recvmsg(connection, &mut slices, &mut RecvAncillaryBuffer::default(), flags)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    request.truncate(received.bytes);
    Ok(request)
}

/// Answers a request for a stream below `root`; `may_read` judges its name.
pub fn answer(root: &Path, request: &[u8], may_read: impl FnOnce(&str) -> bool) -> Answer {
    let text = std::str::from_utf8(request).ok().filter(|text| text.len() <= REQUEST_MAX).unwrap_or_default();
    let words: Vec<&str> = text.split(' ').collect();
    let (stream, asked) = match words[..] {
        ["bell", stream] => (stream, Asked::File("bell")),
        ["description", stream] => (stream, Asked::File("stream.capnp")),
        ["tracks", stream, uuid] => (stream, Asked::Tracks { uuid }),
        ["ring", stream, track, uuid] => (stream, Asked::Ring { track, uuid }),
        _ => return Answer::word("malformed"),
    };
    let Some((name, directory)) = stream_of(root, stream) else { return Answer::refused() };
    if !may_read(&name) {
        return Answer::refused();
    }
    match asked.answer(&directory) {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::word("absent"),
        Err(_) => Answer::word("failed"),
    }
}

/// What is wanted of a stream.
enum Asked<'a> {
    File(&'a str),
    Tracks { uuid: &'a str },
    Ring { track: &'a str, uuid: &'a str },
}

impl Asked<'_> {
    fn answer(&self, directory: &Path) -> io::Result<Answer> {
        // Its name may change hands at any moment: all is looked for through this handle.
        let handle = open_directory(directory)?;
        let mut answer = Answer::word("ok");
        match *self {
            Self::File(name) => answer.files.push(open_shared(&handle, name, false)?),
            Self::Tracks { uuid } => {
                for track in tracks_beside(&handle, uuid)?.iter().filter(|track| !track.contains('\n')) {
                    if answer.text.len() + 1 + track.len() <= ANSWER_MAX {
                        answer.text.push('\n');
                        answer.text.push_str(track);
                    }
                }
            }
            Self::Ring { track, uuid } => {
                if !tracks_beside(&handle, uuid)?.iter().any(|known| known == track) {
                    return Ok(Answer::word("absent"));
                }
                let ring = open_directory(&path_of(&handle).join(track))?;
                answer.files = vec![open_shared(&ring, "ctl", false)?, open_shared(&ring, "data", false)?];
            }
        }
        Ok(answer)
    }
}

/// The tracks in a directory, `NotFound` if its bell is not the one of this UUID.
fn tracks_beside(directory: &OwnedFd, uuid: &str) -> io::Result<Vec<String>> {
    let bell = stream_uuid_of(&open_shared(directory, "bell", false)?).map_err(io::Error::other)?;
    if hex(bell) == uuid { list_tracks(&path_of(directory)) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn path_of(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

pub(crate) fn hex(uuid: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(uuid))
}

/// The name that an encoded one stands for, and where its directory is, or would be; `None` for what leads out of the root. The
/// name of a directory that is cut is known by its description alone.
fn stream_of(root: &Path, encoded: &str) -> Option<(String, PathBuf)> {
    if encoded.starts_with('.') || encoded.contains('/') || encoded.len() > NAME_MAX {
        return None;
    }
    let directory = root.join(encoded);
    let cut = || StreamDescriptor::read(&directory).ok().map(|it| it.name).filter(|name| encode_name(name) == encoded);
    let name = decode_name(encoded).or_else(cut)?;
    Some((name, directory))
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        assert!(fits, "there is room for the two files of a ring");
    }
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL))?;
    Ok(())
}

fn receive(socket: BorrowedFd<'_>, max: usize) -> Result<(Vec<u8>, Vec<File>), Errno> {
    let mut bytes = vec![0; max];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received =
        retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors.map(|descriptor: OwnedFd| File::from(descriptor)));
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::BADMSG);
    }
    bytes.truncate(received.bytes);
    Ok((bytes, files))
}

/// What a call said that waits for the broker.
fn late(error: Errno) -> io::Error {
    match error {
        Errno::AGAIN => io::Error::new(io::ErrorKind::TimedOut, "the broker does not answer"),
        Errno::BADMSG => malformed(),
        other => other.into(),
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the broker's answer makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_socket_is_found_from_any_directory() {
        let here = std::env::current_dir().unwrap();
        let broker = Broker::new(Path::new("broker.sock"), "cam1");
        assert_eq!(broker, Broker { socket: here.join("broker.sock"), stream: "cam1".to_owned() });
    }

    #[test]
    fn only_a_stream_that_may_be_read_is_looked_for() {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let outside = tempfile::tempdir_in("/dev/shm").unwrap();
        let stream = root.path().join("cam1");
        std::fs::create_dir(&stream).unwrap();
        let _bell = crate::bell::BellWriter::create(&stream).unwrap();
        let uuid = hex(crate::bell::BellReader::open(&stream).unwrap().stream_uuid());
        let outcome = |request: &[u8], may: bool| {
            let answer = answer(root.path(), request, |_| may);
            (answer.outcome().to_owned(), answer.files.len())
        };
        let of_bell = |request: &str, uuid: &str| outcome(format!("{request} {uuid}").as_bytes(), true);
        let said = |word: &str, files| (word.to_owned(), files);
        assert_eq!(outcome(b"bell cam1", true), said("ok", 1));
        assert_eq!(of_bell("tracks cam1", &uuid), said("ok", 0));
        assert_eq!(of_bell("tracks cam1", &hex([7; 16])), said("absent", 0), "another directory has the name");
        assert_eq!(of_bell("ring cam1 video0", &uuid), said("absent", 0));
        assert_eq!(outcome(b"description cam1", true), said("absent", 0));
        assert_eq!(outcome(b"bell cam1", false), said("refused", 0));
        assert_eq!(outcome(b"bell cam2", false), said("refused", 0));
        assert_eq!(outcome(b"bell cam2", true), said("absent", 0));
        for request in [
            &b"bell"[..],
            b"",
            b"tracks cam1",
            b"ring cam1 video0",
            b"bell cam1 x",
            b"drop cam1",
            b"\xff cam1",
            &[b'x'; 5_000],
        ] {
            assert_eq!(outcome(request, true), said("malformed", 0), "{request:?}");
        }
        let name = outside.path().file_name().unwrap().to_str().unwrap();
        for stream in ["..", ".", ".lock", &format!("../{name}"), "a+b", "%2e%2e", outside.path().to_str().unwrap()] {
            assert_eq!(of_bell(&format!("tracks {stream}"), &uuid), said("refused", 0), "{stream}");
        }
        for track in ["..", ".", "../cam1/video0", "bell", ""] {
            assert_eq!(of_bell(&format!("ring cam1 {track}"), &uuid), said("absent", 0), "{track}");
        }
        std::fs::remove_file(stream.join("bell")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", stream.join("bell")).unwrap();
        assert_eq!(outcome(b"bell cam1", true), said("failed", 0));
    }

    #[test]
    fn a_ring_is_handed_out_beside_its_own_bell_alone() {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let stream = root.path().join("cam1");
        std::fs::create_dir_all(stream.join("video0")).unwrap();
        let _bell = crate::bell::BellWriter::create(&stream).unwrap();
        let uuid = crate::bell::BellReader::open(&stream).unwrap().stream_uuid();
        std::fs::write(stream.join("video0/ctl"), b"c").unwrap();
        std::fs::write(stream.join("video0/data"), b"d").unwrap();
        let ring = |uuid| answer(root.path(), format!("ring cam1 video0 {}", hex(uuid)).as_bytes(), |_| true);
        let given = ring(uuid);
        assert_eq!(given.outcome(), "ok");
        assert_eq!(given.files.iter().map(|file| io::read_to_string(file).unwrap()).collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!(ring([0; 16]).outcome(), "absent");
    }

    #[test]
    fn the_name_that_is_judged_is_the_one_the_stream_goes_by() {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut judged = Vec::new();
        answer(root.path(), b"bell studio%2Fcam%201", |name| {
            judged.push(name.to_owned());
            false
        });
        assert_eq!(judged, ["studio/cam 1"]);
    }
}
