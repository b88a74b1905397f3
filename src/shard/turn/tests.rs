use std::net::{SocketAddr, UdpSocket};

use super::*;
use crate::output::directory::RingDirectory;
use crate::output::{Housekeeping, OutputOptions};
use crate::shard::net::{Dpdk, Way, XdpInterfaces};
use crate::shard::packet_filters::PacketFilters;

/// A shard of its own on this thread, with a socket that nobody knows.
fn shard() -> (Shard, tempfile::TempDir) {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut config = Config::default();
    config.output.root = root.path().to_owned();
    let config = Arc::new(config);
    let (waker, _) = Waker::start("test-waker");
    let directory = RingDirectory::prepare(OutputOptions::from_config(&config), vec![waker.clone()]).unwrap();
    let (housekeeping, _) = Housekeeping::start("test-house", || {});
    let shards = Shards::new(1);
    let desk =
        Desk::new(Arc::clone(&config), PacketFilters::default(), shards.clone(), Arc::new(directory), housekeeping);
    let net = NetOptions {
        way: Way::Mmsg,
        xdp: XdpInterfaces::default(),
        dpdk: Dpdk::default(),
        shard: 0,
        slots: 256,
        aggregate_slots: 0,
        huge_pages: false,
        credit: 64,
        coldest_first: false,
    };
    let options = ShardOptions {
        shard: 0,
        core: None,
        config,
        net,
        sockets: vec![(SocketRole::Srt, UdpSocket::bind("127.0.0.1:0").unwrap().into())],
        shards,
        desk,
        waker,
        payload_types: Arc::default(),
        sources: Arc::default(),
        cookie_secret: [1; 16],
        address_secret: [2; 16],
        seed: 3,
    };
    (Shard::new(options).unwrap(), root)
}

#[test]
fn what_another_shard_hands_over_is_counted_if_no_slot_is_left_for_it() {
    let (mut shard, _root) = shard();
    let hand_over = |shard: &Shard| {
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        let bytes = [0x11; 32].into();
        assert!(shard.mailbox.hand_over(Handed { peer, local: None, interface: 0, arrival: Instant::ZERO, bytes }));
    };
    let counted = |shard: &Shard| (shard.counters.dropped_stray, shard.counters.dropped_no_slot);
    hand_over(&shard);
    shard.turn().unwrap();
    assert_eq!(counted(&shard), (1, 0), "it is for nobody");
    let held: Vec<_> = std::iter::from_fn(|| shard.net.pool().copy_from(b"held")).collect();
    assert!(!held.is_empty());
    hand_over(&shard);
    shard.turn().unwrap();
    assert_eq!(counted(&shard), (1, 1));
    drop(held);
    hand_over(&shard);
    shard.turn().unwrap();
    assert_eq!(counted(&shard), (2, 1));
}
