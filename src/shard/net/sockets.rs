//! The sockets of all shards: opened once, in shard order, before any shard runs, and kept for life.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use headworks_host::{
    Interface, Membership, MulticastError, SocketError, Steering, SteeringError, UdpSocketOptions, attach_steering,
    group_address, probe_exclusive, udp_socket,
};

use crate::config::StreamRtp;
use crate::protocol::rtp::sdp::{SdpMedia, SourceFilter, Transport};
use crate::shard::described::Described;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRole {
    /// The shared SRT port.
    Srt,
    /// The shared RTP port.
    Rtp,
    /// The RTCP port beside it.
    Rtcp,
    /// The port of a configured stream, by its place in the configuration.
    Stream(usize),
    /// The RTCP port beside that.
    StreamRtcp(usize),
}

/// Why the sockets cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// One of them cannot be opened.
    #[error("{what}: {source}")]
    Socket {
        /// What it was for.
        what: String,
        /// Why not.
        source: SocketError,
    },
    /// A port cannot be shared.
    #[error("{what}: {source}")]
    Steering {
        /// What it was for.
        what: String,
        /// Why not.
        source: SteeringError,
    },
    /// A multicast group cannot be joined.
    #[error("streams.{stream}.rtp: {source}")]
    Multicast {
        /// The stream.
        stream: String,
        /// Why not.
        source: MulticastError,
    },
}

/// All sockets, by shard, and what is to be said of them at start.
#[derive(Debug, Default)]
pub struct PortSet {
    /// The sockets of each shard.
    pub by_shard: Vec<Vec<(SocketRole, OwnedFd)>>,
    /// Where is listened: what and address.
    pub listening: Vec<(String, SocketAddr)>,
    /// Bytes of receive buffer asked for and the least granted.
    pub receive_buffer: (usize, usize),
}

impl PortSet {
    /// Opens everything that the configuration asks for.
    ///
    /// # Errors
    /// [`SocketsError`], which names the port or the stream.
    pub fn open(described: &Described, shards: usize) -> Result<Self, SocketsError> {
        let config = &described.config;
        let mut ports = Self { receive_buffer: (config.shards.socket_buffer, usize::MAX), ..Self::default() };
        ports.by_shard.resize_with(shards, Vec::new);
        let ingestion = &config.ingestion;
        if ingestion.srt.enabled {
            let address = SocketAddr::new(ingestion.srt.address, ingestion.srt.port);
            ports.open_shared("SRT", SocketRole::Srt, address, config.shards.socket_buffer, Steering::Srt)?;
        }
        if ingestion.rtp.enabled {
            let size = ingestion.rtp.buffer_size.max(config.shards.socket_buffer);
            let address = SocketAddr::new(ingestion.rtp.address, ingestion.rtp.port);
            ports.open_shared("RTP", SocketRole::Rtp, address, size, Steering::Rtp)?;
            let address = SocketAddr::new(ingestion.rtp.address, ingestion.rtp.rtcp_port);
            ports.open_shared("RTCP", SocketRole::Rtcp, address, 1 << 20, Steering::Rtcp)?;
        }
        // Ports of their own for all media first: an RTCP port is done without where it is a neighbour's media port.
        for media_ports in [true, false] {
            for (index, (name, stream)) in config.streams.iter().enumerate() {
                let Some(rtp) = &stream.rtp else { continue };
                let Some(port) = rtp.port else { continue };
                let (role, port) = if media_ports {
                    (SocketRole::Stream(index), Some(port))
                } else {
                    (SocketRole::StreamRtcp(index), rtcp_port(port, described.media.get(name)))
                };
                let sources = described.sources(name);
                if let Some(port) = port {
                    ports.open_stream(role, name, rtp, port, &sources, index % shards, config.shards.socket_buffer)?;
                }
            }
        }
        Ok(ports)
    }

    /// One socket per shard on one port. The order of binding is the order of shards, which the steering program counts on.
    fn open_shared(
        &mut self,
        what: &str,
        role: SocketRole,
        address: SocketAddr,
        buffer: usize,
        steering: Steering,
    ) -> Result<(), SocketsError> {
        let socket_error = |source| SocketsError::Socket { what: what.to_owned(), source };
        // A second instance would otherwise join the group of sockets without a word.
        probe_exclusive(address).map_err(socket_error)?;
        let shards = self.by_shard.len();
        for shard in 0..shards {
            let options = UdpSocketOptions {
                reuse_port: true,
                receive_buffer: buffer,
                send_buffer: 4 << 20,
                ..UdpSocketOptions::new(address)
            };
            let (socket, granted) = udp_socket(&options).map_err(socket_error)?;
            if shard + 1 == shards {
                attach_steering(&socket, shards, steering)
                    .map_err(|source| SocketsError::Steering { what: what.to_owned(), source })?;
            }
            self.note_buffer(buffer, granted.receive_buffer);
            self.by_shard[shard].push((role, socket));
        }
        self.listening.push((what.to_owned(), address));
        Ok(())
    }

    /// A port of a configured stream, and its group.
    #[expect(clippy::too_many_arguments, reason = "called in one place, where each has its name")]
    fn open_stream(
        &mut self,
        role: SocketRole,
        name: &str,
        rtp: &StreamRtp,
        port: u16,
        sources: &SourceFilter,
        shard: usize,
        buffer: usize,
    ) -> Result<(), SocketsError> {
        let group = rtp.address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let interface = rtp.interface.as_ref().map_or(Interface::Any, |name| Interface::Name(name.clone()));
        let multicast_error = |source| SocketsError::Multicast { stream: name.to_owned(), source };
        let address = group_address(group, port, &interface).map_err(multicast_error)?;
        let what = format!("stream {name}");
        let options = UdpSocketOptions { receive_buffer: buffer, ..UdpSocketOptions::new(address) };
        let (socket, granted) = match udp_socket(&options) {
            Ok(opened) => opened,
            Err(_) if matches!(role, SocketRole::StreamRtcp(_)) => return Ok(()),
            Err(source) => return Err(SocketsError::Socket { what, source }),
        };
        if group.is_multicast() {
            join(&socket, group, sources, interface).map_err(multicast_error)?;
        }
        self.note_buffer(buffer, granted.receive_buffer);
        self.by_shard[shard].push((role, socket));
        if matches!(role, SocketRole::Stream(_)) {
            self.listening.push((what, address));
        }
        Ok(())
    }

    fn note_buffer(&mut self, asked: usize, granted: usize) {
        if asked >= self.receive_buffer.0 {
            self.receive_buffer.1 = self.receive_buffer.1.min(granted);
        }
    }
}

/// Joins a group as its sources say (RFC 4570 §3): once per sender that is to be heard, or for all but some.
fn join(socket: impl AsFd, group: IpAddr, sources: &SourceFilter, interface: Interface) -> Result<(), MulticastError> {
    let everybody = Membership { group, source: None, interface };
    let of = |source: &IpAddr| Membership { source: Some(*source), ..everybody.clone() };
    match sources {
        SourceFilter::Any => everybody.join(&socket),
        SourceFilter::Include(only) => only.iter().try_for_each(|source| of(source).join(&socket)),
        SourceFilter::Exclude(others) => {
            everybody.join(&socket)?;
            others.iter().try_for_each(|source| of(source).block(&socket))
        }
    }
}

/// The port of a stream's RTCP: the one described, else the next one (RFC 3550 §11), from which reports are sent even where
/// the peer's come in beside the media. Bare UDP has none.
fn rtcp_port(port: u16, described: Option<&SdpMedia>) -> Option<u16> {
    if described.is_some_and(|media| media.transport == Transport::Udp) {
        return None;
    }
    let own = described.and_then(|media| media.rtcp_port).filter(|&own| own != port);
    own.or(port.checked_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// The ports of configured streams, by role.
    fn roles(settings: &[String]) -> Vec<SocketRole> {
        let mut settings = settings.to_vec();
        settings.extend(["ingestion.srt.enabled=false", "ingestion.rtp.enabled=false"].map(str::to_owned));
        let config = config::load(None, std::iter::empty(), &settings).unwrap().config;
        let ports = PortSet::open(&Described { config, ..Described::default() }, 1).unwrap();
        ports.by_shard[0].iter().map(|(role, _)| *role).collect()
    }

    #[test]
    fn streams_on_neighbouring_ports_keep_their_media_and_do_without_rtcp() {
        let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port() & !1;
        drop(probe);
        let settings: Vec<String> = [("a", port), ("b", port + 1)]
            .iter()
            .flat_map(|(name, port)| {
                [format!("streams.{name}.rtp.port={port}"), format!("streams.{name}.rtp.address=127.0.0.1")]
            })
            .collect();
        assert_eq!(
            roles(&settings),
            [SocketRole::Stream(0), SocketRole::Stream(1), SocketRole::StreamRtcp(1)],
            "the first stream's RTCP port is the second one's media port"
        );
    }
}
