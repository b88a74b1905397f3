//! The bare receive loop: the turn's sleep and drain with nothing behind them. What everything else is measured against.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headworks_host::{SocketError, UdpSocketOptions, udp_socket};

use super::batch_window::BatchWindow;
use super::net::{Net, NetError, NetOptions, SocketRole, Way, XdpInterfaces, choice};
use super::plan::MemoryPlan;
use crate::config::Config;

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
    /// Bytes of socket buffer granted.
    pub receive_buffer: usize,
}

/// Receives on `address` for `duration` the way a shard of the same configuration would, and drops everything.
///
/// # Errors
/// [`BareError`].
pub fn receive(config: &Config, address: SocketAddr, duration: Duration) -> Result<BareOutcome, BareError> {
    let plan = MemoryPlan::new(config, 1);
    let options = UdpSocketOptions {
        receive_buffer: config.shards.socket_buffer,
        gro: config.shards.gro,
        ..UdpSocketOptions::new(address)
    };
    let (socket, granted) = udp_socket(&options)?;
    let mut sockets = [vec![(SocketRole::Srt, socket)]];
    let way = choice::choose(config.shards.packet_io)?.way;
    let xdp = match way {
        Way::Xdp => XdpInterfaces::attach(&config.shards.xdp_interfaces, &sockets)?,
        Way::Uring | Way::Mmsg => XdpInterfaces::default(),
    };
    let net = NetOptions {
        way,
        xdp,
        shard: 0,
        slots: plan.slots_per_shard,
        aggregate_slots: plan.aggregate_slots_per_shard,
        huge_pages: config.output.huge_pages,
        credit: plan.credit,
        coldest_first: true,
    };
    let mut net = Net::new(net, std::mem::take(&mut sockets[0]))?;
    let mut outcome = BareOutcome { receive_buffer: granted.receive_buffer, ..BareOutcome::default() };
    let mut batch = std::mem::take(&mut net.batch);
    let mut window = BatchWindow::new(config.shards.batch_window, config.shards.batch_window_max);
    let end = Instant::now() + duration;
    while Instant::now() < end {
        net.wait(window.now())?;
        let before = outcome.datagrams;
        loop {
            let (count, more) = net.drain_into(&mut batch)?;
            outcome.datagrams += count as u64;
            // One byte of each is touched, as any use of it would.
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
