//! Telling systemd how it goes (`sd_notify(3)`, `sd_watchdog_enabled(3)`), by its socket protocol.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use rustix::pipe::{PipeFlags, pipe_with};

/// How long a manager whose queue is full is waited for; it has to take in a descriptor for every socket.
const SEND_MAX: Duration = Duration::from_secs(2);

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState<'a> {
    /// Start-up is over (`Type=notify`).
    Ready,
    /// Still alive (`WatchdogSec=`).
    Watchdog,
    /// Going down in good order.
    Stopping,
    /// A line for `systemctl status`.
    Status(&'a str),
}

/// The service manager that started this process, if it wants to be told.
#[derive(Debug)]
pub struct ServiceManager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl ServiceManager {
    /// From `$NOTIFY_SOCKET`; `None` if it is not set, that is, if nobody asked.
    pub fn from_environment() -> Option<Self> {
        Self::at(&std::env::var_os("NOTIFY_SOCKET")?).ok()
    }

    /// A manager that listens at `name`: a path, or `@` and an abstract name.
    ///
    /// # Errors
    ///
    /// The name is too long or empty, or no descriptor is left.
    pub fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [] => return Err(io::ErrorKind::InvalidInput.into()),
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not hold up anybody.
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    /// Tells one thing.
    ///
    /// # Errors
    ///
    /// Nobody listens, or its queue is full. There is nothing to do about it but to go on.
    pub fn notify(&self, state: ServiceState<'_>) -> io::Result<()> {
        let sent = match state {
            ServiceState::Ready => self.socket.send_to_addr(b"READY=1", &self.address),
            ServiceState::Watchdog => self.socket.send_to_addr(b"WATCHDOG=1", &self.address),
            ServiceState::Stopping => self.socket.send_to_addr(b"STOPPING=1", &self.address),
            ServiceState::Status(line) => {
                let line = format!("STATUS={}", line.replace('\n', " "));
                self.socket.send_to_addr(line.as_bytes(), &self.address)
            }
        };
        sent.map(drop)
    }

    /// Has the manager keep `descriptor` under `name` until the service ends for good (`FileDescriptorStoreMax=`).
    ///
    /// # Errors
    ///
    /// Nobody listens, or the queue stays full for two seconds.
    pub fn store(&self, name: &str, descriptor: impl AsFd) -> io::Result<()> {
        // Without FDPOLL=0 the manager lets go of a socket as soon as there is an error to be read from it, such as an ICMP answer.
        self.send(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), &[descriptor.as_fd()])
    }

    /// Has the manager let go of all descriptors under `name`.
    ///
    /// # Errors
    ///
    /// See [`Self::store`].
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// Waits until the manager has acted upon all that it was told (`sd_notify_barrier(3)`), at most `timeout`; whether it has.
    ///
    /// # Errors
    ///
    /// See [`Self::store`].
    pub fn barrier(&self, timeout: Duration) -> io::Result<bool> {
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC)?;
        self.send("BARRIER=1", &[writing.as_fd()])?;
        drop(writing);
        // The manager closes its end when it comes to the message.
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        Ok(poll(&mut [PollFd::new(&reading, PollFlags::empty())], Some(&timeout))? > 0)
    }

    /// Unlike [`Self::notify`] it waits for room: what is told here has to arrive.
    fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        let address = match self.address.as_abstract_name() {
            Some(name) => SocketAddrUnix::new_abstract_name(name)?,
            None => SocketAddrUnix::new(self.address.as_pathname().unwrap_or("".as_ref()))?,
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg_addr(&socket, &address, &[IoSlice::new(text.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

/// How often [`ServiceState::Watchdog`] is due: half of `$WATCHDOG_USEC`, if that is meant for this process.
pub fn watchdog_interval() -> Option<Duration> {
    let pid = std::env::var("WATCHDOG_PID").ok();
    interval(&std::env::var("WATCHDOG_USEC").ok()?, pid.as_deref(), std::process::id())
}

fn interval(period_us: &str, meant_for: Option<&str>, pid: u32) -> Option<Duration> {
    if meant_for.is_some_and(|meant| meant.parse() != Ok(pid)) {
        return None;
    }
    let period_us: u64 = period_us.parse().ok()?;
    (period_us > 0).then(|| Duration::from_micros(period_us / 2))
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::net::UdpSocket;
    use std::os::fd::OwnedFd;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    fn told(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn states_arrive_at_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::at(path.as_os_str()).unwrap();
        manager.notify(ServiceState::Ready).unwrap();
        manager.notify(ServiceState::Watchdog).unwrap();
        manager.notify(ServiceState::Status("two\nlines")).unwrap();
        manager.notify(ServiceState::Stopping).unwrap();
        assert_eq!(told(&listener), "READY=1");
        assert_eq!(told(&listener), "WATCHDOG=1");
        assert_eq!(told(&listener), "STATUS=two lines");
        assert_eq!(told(&listener), "STOPPING=1");
    }

    #[test]
    fn states_arrive_at_an_abstract_name() {
        let name = format!("headworks-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        let manager = ServiceManager::at(OsStr::new(&format!("@{name}"))).unwrap();
        manager.notify(ServiceState::Ready).unwrap();
        assert_eq!(told(&listener), "READY=1");
    }

    /// What was told, and the descriptor that came with it.
    fn told_with_descriptor(listener: &UnixDatagram) -> (String, Option<OwnedFd>) {
        let mut bytes = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let length = recvmsg(listener, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        (String::from_utf8(bytes[..length].to_vec()).unwrap(), descriptor)
    }

    #[test]
    fn a_descriptor_is_handed_over_and_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::at(path.as_os_str()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        manager.store("srt-0", &socket).unwrap();
        let (text, stored) = told_with_descriptor(&listener);
        assert_eq!(text, "FDSTORE=1\nFDPOLL=0\nFDNAME=srt-0");
        let stored = UdpSocket::from(stored.unwrap());
        assert_eq!(stored.local_addr().unwrap(), socket.local_addr().unwrap());
        manager.remove("srt-0").unwrap();
        assert_eq!(told(&listener), "FDSTOREREMOVE=1\nFDNAME=srt-0");
    }

    #[test]
    fn a_barrier_is_over_when_the_manager_has_come_to_it() {
        let name = format!("headworks-barrier-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let manager = ServiceManager::at(OsStr::new(&format!("@{name}"))).unwrap();
        assert!(!manager.barrier(Duration::from_millis(20)).unwrap(), "nobody has read it");
        let reader = std::thread::spawn(move || [(); 2].map(|()| told_with_descriptor(&listener).0));
        assert!(manager.barrier(Duration::from_secs(10)).unwrap());
        assert_eq!(reader.join().unwrap(), ["BARRIER=1", "BARRIER=1"]);
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error_and_no_more() {
        let manager = ServiceManager::at(OsStr::new("/nonexistent/notify")).unwrap();
        assert!(manager.notify(ServiceState::Ready).is_err());
        assert!(ServiceManager::at(OsStr::new("")).is_err());
    }

    #[test]
    fn the_watchdog_is_fed_twice_per_period_and_only_if_meant() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval("2000000", None, 7), second);
        assert_eq!(interval("2000000", Some("7"), 7), second);
        assert_eq!(interval("2000000", Some("8"), 7), None);
        assert_eq!(interval("0", None, 7), None);
        assert_eq!(interval("soon", None, 7), None);
    }
}
