//! A broker as small as it can be.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use headworks_frame_ring::broker;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with};

/// Of the streams below `root`, `cam1` may be read. The socket; who listens there ends with the process.
pub fn serve(root: &Path) -> PathBuf {
    let path = root.join(".broker");
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&listener, 8).unwrap();
    let root = root.to_owned();
    std::thread::spawn(move || {
        while let Ok(connection) = accept(&listener) {
            let request = loop {
                match broker::receive_request(connection.as_fd()) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                    request => break request,
                }
            };
            if let Ok(request) = request {
                let _ = broker::answer(&root, &request, |stream| stream == "cam1").send(connection.as_fd());
            }
        }
    });
    path
}
