//! The sockets of all shards: opened once, in shard order, before any shard runs, and kept for life.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use headworks_host::{
    Interface, Membership, MulticastError, SocketError, Steering, SteeringError, UdpSocketOptions, attach_steering,
    probe_exclusive, udp_socket,
};

use crate::config::Config;
use crate::protocol::rtp::sdp;

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
    /// An SDP file cannot be read or says nothing of use.
    #[error("streams.{stream}.rtp.sdp: {path}: {reason}")]
    Sdp {
        /// The stream.
        stream: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
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
    /// Multicast memberships, which last as long as their sockets.
    pub memberships: Vec<(String, Membership)>,
    /// What SDP files said of payload types: stream index, session.
    pub descriptions: Vec<(usize, sdp::SdpMedia)>,
}

impl PortSet {
    /// Opens everything that the configuration asks for.
    ///
    /// # Errors
    /// [`SocketsError`], which names the port or the stream.
    pub fn open(config: &Config, shards: usize) -> Result<Self, SocketsError> {
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
        for (index, (name, stream)) in config.streams.iter().enumerate() {
            if let Some(rtp) = &stream.rtp {
                ports.open_stream(index, name, rtp, index % shards, config.shards.socket_buffer)?;
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

    /// The port of a configured stream, and its group.
    fn open_stream(
        &mut self,
        index: usize,
        name: &str,
        rtp: &crate::config::StreamRtp,
        shard: usize,
        buffer: usize,
    ) -> Result<(), SocketsError> {
        let mut rtp = rtp.clone();
        if let Some(path) = rtp.sdp.clone() {
            let sdp_error = |reason: String| SocketsError::Sdp { stream: name.to_owned(), path: path.clone(), reason };
            let text = std::fs::read(&path).map_err(|error| sdp_error(error.to_string()))?;
            let session = sdp::SdpSession::parse(&text).map_err(|error| sdp_error(error.to_string()))?;
            let media = session.media.into_iter().next().ok_or_else(|| sdp_error("no media section".to_owned()))?;
            rtp.port = rtp.port.or(Some(media.port));
            rtp.address = rtp.address.or(Some(media.address));
            if let sdp::SourceFilter::Include(sources) = &media.sources {
                rtp.source = rtp.source.or(sources.first().copied());
            }
            self.descriptions.push((index, media));
        }
        let Some(port) = rtp.port else { return Ok(()) };
        let group = rtp.address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let what = format!("stream {name}");
        for (role, port) in [(SocketRole::Stream(index), port), (SocketRole::StreamRtcp(index), port.wrapping_add(1))] {
            let address = SocketAddr::new(group, port);
            let options = UdpSocketOptions { receive_buffer: buffer, ..UdpSocketOptions::new(address) };
            let opened = udp_socket(&options);
            let (socket, granted) = match opened {
                Ok(opened) => opened,
                // Raw transport streams often stand on neighbouring ports, and have no RTCP to miss.
                Err(_) if matches!(role, SocketRole::StreamRtcp(_)) => continue,
                Err(source) => return Err(SocketsError::Socket { what, source }),
            };
            if group.is_multicast() {
                let membership = Membership {
                    group,
                    source: rtp.source,
                    interface: rtp.interface.as_ref().map_or(Interface::Any, |name| Interface::Name(name.clone())),
                };
                membership
                    .join(&socket)
                    .map_err(|source| SocketsError::Multicast { stream: name.to_owned(), source })?;
                self.memberships.push((name.to_owned(), membership));
            }
            self.note_buffer(buffer, granted.receive_buffer);
            self.by_shard[shard].push((role, socket));
            if role == SocketRole::Stream(index) {
                self.listening.push((what.clone(), address));
            }
        }
        Ok(())
    }

    fn note_buffer(&mut self, asked: usize, granted: usize) {
        if asked >= self.receive_buffer.0 {
            self.receive_buffer.1 = self.receive_buffer.1.min(granted);
        }
    }
}
