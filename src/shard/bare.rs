//! The bare receive loop: the turn's sleep and drain with nothing behind them. What everything else is measured against.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headworks_host::{SocketError, UdpSocketOptions, udp_socket};

use super::batch_window::BatchWindow;
use super::net::{Dpdk, Net, NetError, NetOptions, OwnPort, SocketRole, Way, XdpInterfaces, choice};
use super::plan::MemoryPlan;
use crate::config::Config;
use crate::protocol::rtp::sdp::SourceFilter;

/// Why the bare loop does not run.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// No socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// No net.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// What a bare loop has taken in.
#[derive(Clone, Copy, Debug, Default)]
pub struct BareOutcome {
    /// Datagrams.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams that the socket lost because its buffer was full.
    pub dropped_by_kernel: u64,
    /// Turns.
    pub turns: u64,
    /// Bytes of socket buffer granted; 0 where there is no socket.
    pub receive_buffer: usize,
}

/// Receives on `address` for `duration` the way a shard of the same configuration would, and drops everything.
///
/// # Errors
/// [`BareError`].
pub fn receive(config: &Config, address: SocketAddr, duration: Duration) -> Result<BareOutcome, BareError> {
    let plan = MemoryPlan::new(config, 1);
    let way = choice::choose(config.shards.packet_io)?.way;
    let (mut sockets, mut xdp, mut dpdk) = ([Vec::new()], XdpInterfaces::default(), Dpdk::default());
    let mut receive_buffer = 0;
    if way == Way::Dpdk {
        let own = OwnPort { address, takes_ipv4: true, sources: SourceFilter::Any };
        dpdk = Dpdk::find(&config.shards.dpdk, vec![(SocketRole::Srt, own)], 1)?;
    } else {
        let asked = config.shards.socket_buffer;
        let options =
            UdpSocketOptions { receive_buffer: asked, gro: config.shards.gro, ..UdpSocketOptions::new(address) };
        let (socket, granted) = udp_socket(&options)?;
        receive_buffer = granted.receive_buffer;
        sockets[0].push((SocketRole::Srt, socket));
    }
    if way == Way::Xdp {
        xdp = XdpInterfaces::attach(&config.shards.xdp_interfaces, &sockets)?;
    }
    let net = NetOptions {
        way,
        xdp,
        dpdk,
        shard: 0,
        slots: plan.slots_per_shard,
        aggregate_slots: plan.aggregate_slots_per_shard,
        huge_pages: config.output.huge_pages,
        credit: plan.credit,
        coldest_first: true,
    };
    let mut net = Net::new(net, std::mem::take(&mut sockets[0]))?;
    let mut outcome = BareOutcome { receive_buffer, ..BareOutcome::default() };
    let mut batch = std::mem::take(&mut net.batch);
    let mut window = BatchWindow::new(config.shards.batch_window, config.shards.batch_window_max);
    let end = Instant::now() + duration;
    while Instant::now() < end {
        net.wait(if config.shards.busy_poll { Duration::ZERO } else { window.now() })?;
        let before = outcome.datagrams;
        loop {
            let (count, more) = net.drain_into(&mut batch)?;
            outcome.datagrams += count as u64;
            outcome.bytes += batch.drain(..).map(|incoming| incoming.packet.len() as u64).sum::<u64>();
            if !more {
                break;
            }
        }
        window.found((outcome.datagrams - before) as usize);
        outcome.turns += 1;
    }
    outcome.dropped_by_kernel = net.dropped_by_kernel();
    Ok(outcome)
}
