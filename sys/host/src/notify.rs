//! Telling systemd how it goes (`sd_notify(3)`, `sd_watchdog_enabled(3)`), by its socket protocol.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

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
