//! Body of the fuzz target: any frames in, nothing may panic or grow without bound.

use std::net::IpAddr;

use crate::{Edge, EdgeOptions, Outgoing, Sources};

/// The host that frames are for. Its Ethernet address ends in 1, its peer's in 7, and so do their addresses.
fn options() -> EdgeOptions {
    EdgeOptions {
        mac: [2, 0, 0, 0, 0, 1],
        addresses: vec![(IpAddr::from([192, 0, 2, 1]), 24), (IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]), 64)],
        gateways: vec![IpAddr::from([192, 0, 2, 254])],
        vlan: None,
        mtu: 1_500,
        interface: 1,
    }
}

/// Frames, each behind its length in two bytes, a twentieth of a second apart; who sends a datagram is answered.
pub fn fuzz_edge(data: &[u8]) {
    const STEP_NS: u64 = 50_000_000;
    const FRAME_MAX: usize = 2_047;
    let mut edge = Edge::new(0, options()).expect("such a host can be");
    edge.join(0, IpAddr::from([239, 1, 2, 3]), Sources::Any).expect("there are few groups");
    let (mut rest, mut now_ns, mut frames) = (data, 0, 0);
    while let [high, low, behind @ ..] = rest {
        let length = (usize::from(u16::from_be_bytes([*high, *low])) & FRAME_MAX).min(behind.len());
        let (frame, next) = behind.split_at(length);
        rest = next;
        frames += 1;
        now_ns += STEP_NS;
        if let Some(datagram) = edge.receive(now_ns, frame) {
            let payload = &frame[datagram.payload];
            let answer = Outgoing { local: None, port: datagram.port, to: datagram.peer, payload };
            // There may be no way back.
            let _ = edge.send(now_ns, answer, &mut [0; 1_600]);
        }
        assert_eq!(edge.statistics().frames(), frames);
        edge.handle_timeout(now_ns);
        let mut sent = 0;
        while let Some((frame, _)) = edge.poll_transmit() {
            assert!((60..=FRAME_MAX).contains(&frame.len()));
            sent += 1;
        }
        assert!(sent <= 512);
    }
}
