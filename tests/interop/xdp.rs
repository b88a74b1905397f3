//! Packets past the kernel's stack (AF_XDP), from independent senders on another host, which is a network namespace. For root alone.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use headworks_network_namespaces::{Cable, Host};

use crate::appliance::Appliance;
use crate::clips::usual_clip;
use crate::senders::{self, SRT_LATENCY_MS, SrtSender};

const NEAR: &[&str] = &["10.88.0.1/24", "fd88::1/64"];
const FAR: &[&str] = &["10.88.0.2/24", "fd88::2/64"];

#[test]
fn srt_rtp_and_raw_transport_streams_arrive_bit_exact_past_the_kernel() {
    let Some(cable) = Cable::for_xdp(1, NEAR, FAR) else { return };
    let clip = usual_clip();
    let settings = [
        "shards.packet_io=xdp",
        &format!("shards.cores=[{}]", headworks::shard::host::available_cores()[0]),
        "ingestion.srt.address=::",
        "streams.secret.passphrase=ten or more letters",
        "streams.raw.rtp.address=10.88.0.1",
        "streams.raw.rtp.port=6001",
        "streams.rtp.rtp.address=fd88::1",
        "streams.rtp.rtp.port=6003",
    ];
    let appliance = Appliance::start_within(cable.name(Host::Near), &settings);
    appliance.wait_for_log("shard 0 takes feeds0 queue 0", Duration::from_secs(5));
    let taps = ["plain", "secret", "rtp", "raw"].map(|stream| (stream, appliance.tap(stream)));
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let srt = |address: &str, query: &str| {
        let listener = SocketAddr::new(address.parse().unwrap(), appliance.ports.srt);
        let mut sender = cable.on(Host::Far, || SrtSender::to(listener, SRT_LATENCY_MS, query));
        sender.wait_for_connection();
        sender.send(&clip.bytes);
        sender.finish();
    };
    let socket = |bind: &str| cable.on(Host::Far, || UdpSocket::bind(bind).unwrap());
    let (v4, v6) = (socket("10.88.0.2:0"), socket("[fd88::2]:0"));
    std::thread::scope(|scope| {
        scope.spawn(|| srt("10.88.0.1", "streamid=plain"));
        scope.spawn(|| srt("fd88::1", "streamid=secret&passphrase=ten or more letters&pbkeylen=16"));
        scope.spawn(|| senders::send_udp(&v4, &clip.bytes, at("10.88.0.1:6001")));
        scope.spawn(|| senders::send_rtp(&v6, &clip.bytes, at("[fd88::1]:6003"), 7));
    });
    for (stream, tap) in &taps {
        clip.reference.compare(stream, &tap.wait_for(clip.reference.packet_count()));
    }
    let metric = |name: &str| cable.on(Host::Near, || appliance.metric(name));
    let (all, past_kernel) = (metric("headworks_shard_datagrams_total"), metric("headworks_shard_past_kernel_total"));
    assert!(past_kernel >= all * 0.95, "{past_kernel} of {all}");
}
