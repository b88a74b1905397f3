//! Every way to meet Debian's libsrt 1.5.1: who calls whom, under what key, over what network, with which tool. What the cells compare,
//! and with what, is written down in `../INTEROP.md`.

mod peer;
pub mod wire;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headworks_network_namespaces::{Cable, Host};
use serde_json::Value;

use self::peer::{Peer, Sent};
use self::wire::{Kind, Road, Tally, Wire};
use crate::appliance::{Appliance, Ports, Root, free_ports};
use crate::clip_table::said;
use crate::clips::{Clip, usual_clip};
use crate::operation::without_the_end;

/// What the appliance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Listener,
    Caller,
    Rendezvous,
}

impl Role {
    /// What the peer is, as the tools name it.
    fn of_peer(self) -> &'static str {
        match self {
            Self::Listener => "caller",
            Self::Caller => "listener",
            Self::Rendezvous => "rendezvous",
        }
    }
}

/// What sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    SrtLiveTransmit,
    Ffmpeg,
    GStreamer,
}

/// Bytes of the key; without one in plain.
const KEY_LENGTHS: [Option<u8>; 4] = [None, Some(16), Some(24), Some(32)];
/// Ten round trips where packets are lost.
const LATENCY_MS: u32 = 600;
const DELAY: Duration = Duration::from_millis(30);
const LOSS: f64 = 0.02;
/// For what is still under way, sent again, or counted.
const SETTLED: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(5);
/// An address that two hosts have.
const TWINS: [&str; 2] = ["10.88.0.1/32", "fd88::1/128"];

/// One way of them all.
#[derive(Clone, Copy, Debug)]
struct Cell {
    role: Role,
    tool: Tool,
    key_length: Option<u8>,
    is_lossy: bool,
}

impl Cell {
    fn of(role: Role, tool: Tool) -> impl Iterator<Item = Self> {
        let roads = move |key_length| [false, true].map(|is_lossy| Self { role, tool, key_length, is_lossy });
        KEY_LENGTHS.into_iter().flat_map(roads)
    }

    /// The name of its stream, which is the only one of its key and road at its appliance.
    fn stream(&self) -> String {
        let key = self.key_length.map_or_else(|| "plain".to_owned(), |length| format!("aes{}", u32::from(length) * 8));
        format!("{key}-{}", if self.is_lossy { "lossy" } else { "clean" })
    }

    /// Without spaces, which GStreamer would have escaped.
    fn passphrase(&self) -> String {
        format!("the-secret-of-{}", self.stream())
    }

    /// Which cells go by it does not matter, as long as each tool and role does, on either road.
    fn is_ipv6(&self) -> bool {
        self.key_length == Some(24)
    }

    fn cipher(&self) -> Value {
        self.key_length.map_or(Value::Null, |length| format!("AES-{}-CTR", u32::from(length) * 8).into())
    }

    fn road(&self) -> Road {
        let seed = self.key_length.map_or(1, u64::from);
        match self.is_lossy {
            true => Road { delay: DELAY, loss: LOSS, seed },
            false => Road { delay: Duration::ZERO, loss: 0.0, seed },
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}, {}", self.role, self.tool, self.stream())
    }
}

/// A cell with its network, before anybody has been started.
struct Meeting {
    cell: Cell,
    wire: Wire,
    /// The peer's own address, where it is called or meets.
    at: Option<SocketAddr>,
    /// What the appliance is told.
    settings: Vec<String>,
}

impl Meeting {
    /// With a cable of twins the peer is on the far one, and the far side of the wire on the near one.
    fn new(cell: Cell, listener: u16, cable: Option<&Cable>) -> Self {
        let ip = if cell.is_ipv6() { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let bind = |address: SocketAddr| UdpSocket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let any = || bind(SocketAddr::new(ip, 0));
        let (near, far, at) = match cell.role {
            Role::Listener => ((any(), Some(SocketAddr::new(ip, listener))), (any(), None), None),
            Role::Caller => {
                let at = Some(SocketAddr::new(ip, free_ports::<1>()[0]));
                ((any(), None), (any(), at), at)
            }
            Role::Rendezvous => {
                let [own, near, far, at] = meeting_places(ip);
                let near = (bind(near), Some(own));
                match cable {
                    None => (near, (bind(far), Some(at)), Some(at)),
                    Some(cable) => {
                        let twin = TWINS[usize::from(cell.is_ipv6())].split('/').next().expect("an address");
                        let both = SocketAddr::new(twin.parse().expect("an address"), at.port());
                        (near, (cable.on(Host::Near, || bind(both)), Some(both)), Some(both))
                    }
                }
            }
        };
        let own = near.1;
        let wire = Wire::start(near, far, cell.road());
        let mut settings = Vec::new();
        let mut set = |key: &str, value: &dyn fmt::Display| {
            settings.push(format!("streams.{}.{key}={value}", cell.stream()));
        };
        if cell.key_length.is_some() {
            set("passphrase", &cell.passphrase());
        }
        if let (Some(length), Role::Caller | Role::Rendezvous) = (cell.key_length, cell.role) {
            set("srt.key_length", &length);
        }
        match (cell.role, own) {
            (Role::Caller, _) => {
                // A name where it is the right address.
                let name = if cell.is_ipv6() { "[::1]" } else { "localhost" };
                set("srt.address", &format!("{name}:{}", wire.near.port()));
                set("srt.stream_id", &format!("#!::r={},m=request", cell.stream()));
            }
            (Role::Rendezvous, Some(own)) => {
                set("srt.mode", &"rendezvous");
                set("srt.address", &wire.near);
                set("srt.local_address", &own.ip());
                if own.port() != wire.near.port() {
                    set("srt.local_port", &own.port());
                }
            }
            _ => {}
        }
        Self { cell, wire, at, settings }
    }

    fn start_peer(&self, cable: Option<&Cable>, clip: &Clip) -> Peer {
        let command = Peer::command(&self.cell, self.wire.far, self.at, clip);
        match cable {
            None => Peer::start(&self.cell, command),
            Some(cable) => cable.on(Host::Far, || Peer::start(&self.cell, command)),
        }
    }

    /// Sends the clip and compares everything; panics at the first that is not as it should be.
    fn judge(&self, appliance: &Appliance, peer: &mut Peer, clip: &Clip) {
        let tap = appliance.tap(&self.cell.stream());
        peer.send(clip);
        tap.wait_until("a frame", |frames| !frames.is_empty());
        let least = clip.reference.packet_count() - peer.held_back();
        tap.wait_for(least * 2 / 3);
        let midway = self.told(appliance);
        tap.wait_for(least);
        self.wire.calm();
        std::thread::sleep(SETTLED);
        let (ours, tally) = self.settled_statistics(appliance);
        let theirs = peer.statistics();
        let frames = match peer.held_back() {
            0 => tap.frames(),
            // What is open when nothing comes any more is cut.
            _ => without_the_end(tap.frames()),
        };
        assert!(frames.len() >= least, "{} frames of {least}", frames.len());
        clip.reference.first(&frames).compare("the frames", &frames);
        self.judge_what_is_told(&ours);
        // A machine that halts for a moment spoils one of them.
        let round_trips = [&midway, &ours].map(|told| number(told, "/stats/srt/msRTT"));
        self.judge_round_trip("ours", round_trips[0].min(round_trips[1]));
        self.judge_statistics(&ours["stats"]["srt"], &tally, theirs);
    }

    /// What the API says of the stream.
    fn told(&self, appliance: &Appliance) -> Value {
        let page = appliance.get(&format!("/api/v1/streams/{}", self.cell.stream()));
        serde_json::from_str(&page).unwrap_or_else(|error| panic!("{error}: {page}"))
    }

    /// What the API says once it has counted all that has come through, and the count of that.
    fn settled_statistics(&self, appliance: &Appliance) -> (Value, Tally) {
        let began = Instant::now();
        loop {
            let ours = self.told(appliance);
            let tally = self.wire.tally();
            // It may be some hundred milliseconds old.
            let is_settled = [
                ("pktRecvTotal", tally.data_passed().packets),
                ("pktSentACKTotal", tally.sent(Kind::Acknowledgement).packets),
                ("pktSentNAKTotal", tally.sent(Kind::LossReport).packets),
            ]
            .into_iter()
            .all(|(name, witnessed)| number(&ours, &format!("/stats/srt/{name}")) >= witnessed as f64);
            if is_settled || began.elapsed() > PATIENCE {
                return (ours, tally);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn judge_what_is_told(&self, ours: &Value) {
        let state = if self.cell.key_length.is_some() { "SECURED" } else { "UNSECURED" };
        let mode = match self.cell.role {
            Role::Listener => Value::Null,
            Role::Caller => "caller".into(),
            Role::Rendezvous => "rendezvous".into(),
        };
        for (pointer, expected) in [
            ("/type", "srt".into()),
            ("/source_addr", self.wire.near.to_string().into()),
            ("/sessions", 1.into()),
            ("/cipher", self.cell.cipher()),
            ("/peer_version", "1.5.1".into()),
            ("/stats/km_state", state.into()),
            ("/stats/latency_ms", LATENCY_MS.into()),
        ] {
            assert_eq!(ours.pointer(pointer), Some(&expected), "{pointer}: {ours}");
        }
        assert_eq!(ours["call"]["mode"], mode, "{ours}");
    }

    fn judge_statistics(&self, ours: &Value, tally: &Tally, theirs: Option<Sent>) {
        let (sent, passed, lost) = (tally.data_sent(), tally.data_passed(), tally.data_lost());
        let is_lossy = self.cell.is_lossy;
        assert!(sent.packets > 600, "so few packets show nothing: {tally:?}");
        assert_eq!(tally.encrypted, if self.cell.key_length.is_some() { sent.packets } else { 0 }, "{tally:?}");
        assert_eq!(tally.lost(Kind::First).packets > 0, is_lossy, "{tally:?}");
        assert_eq!(tally.passed(Kind::Again).packets > 0, is_lossy, "{tally:?}");
        for (name, witnessed) in [
            ("pktRecvTotal", passed.packets),
            ("byteRecvTotal", passed.bytes),
            ("pktRecvUniqueTotal", tally.sent(Kind::First).packets),
            ("byteRecvUniqueTotal", tally.sent(Kind::First).bytes),
            ("pktRcvRetrans", tally.passed(Kind::Again).packets),
            ("pktRcvLossTotal", tally.lost(Kind::First).packets),
            ("pktSentACKTotal", tally.sent(Kind::Acknowledgement).packets),
            ("pktSentNAKTotal", tally.sent(Kind::LossReport).packets),
            ("pktRcvDropTotal", 0),
            ("pktRcvUndecryptTotal", 0),
            ("msRcvTsbPdDelay", u64::from(LATENCY_MS)),
        ] {
            agree(name, witnessed as f64, number(ours, &format!("/{name}")), 0.01);
        }
        let Some(theirs) = theirs else { return };
        for (what, there, here, lost) in [
            ("packets", theirs.packets, "/pktRecvTotal", lost.packets),
            ("bytes", theirs.bytes, "/byteRecvTotal", lost.bytes),
            ("retransmitted", theirs.retransmitted, "/pktRcvRetrans", tally.lost(Kind::Again).packets),
        ] {
            agree(what, there as f64, number(ours, here) + lost as f64, 0.01);
        }
        self.judge_round_trip("theirs", theirs.rtt_ms);
        // Acknowledgements are not compared: libsrt leaves out those that repeat what it knows.
        if let Some(loss_reports) = theirs.loss_reports {
            let passed = tally.passed(Kind::LossReport).packets;
            agree("loss reports", loss_reports as f64, passed as f64, 0.01);
        }
    }

    /// It may be longer by what a busy machine adds, and is 100 ms before anything has been measured.
    fn judge_round_trip(&self, whose: &str, ms: f64) {
        let least = 2.0 * self.cell.road().delay.as_secs_f64() * 1e3;
        assert!((least..least + 35.0).contains(&ms), "{whose}: {ms} ms of round trip where {least} are made");
    }
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

/// Panics unless they differ by such a share at most.
fn agree(what: &str, theirs: f64, ours: f64, share: f64) {
    assert!((theirs - ours).abs() <= theirs.abs().max(ours.abs()) * share, "{what}: {theirs} there, {ours} here");
}

/// Where the appliance, both sides of the wire and the peer meet: on IPv4 at one port of four addresses, as libsrt has it unless it is told
/// otherwise; of IPv6 this host has one address.
pub fn meeting_places(ip: IpAddr) -> [SocketAddr; 4] {
    if ip.is_ipv6() {
        return free_ports().map(|port| SocketAddr::new(ip, port));
    }
    let [port] = free_ports();
    [1, 2, 3, 4].map(|host| SocketAddr::from(([127, 0, 0, host], port)))
}

/// All cells of a role and a tool at once.
fn every_cell(role: Role, tool: Tool, cable: Option<&Cable>) {
    let clip = usual_clip();
    peer::prepare(tool);
    let ports = Ports::free();
    let meetings: Vec<Meeting> = Cell::of(role, tool).map(|cell| Meeting::new(cell, ports.srt, cable)).collect();
    let mut settings = vec!["ingestion.srt.address=::", "ingestion.reconnect_interval=300ms"];
    // Sockets of callers can be had in two ways.
    settings.extend(match tool {
        Tool::SrtLiveTransmit => Some("shards.packet_io=uring"),
        Tool::GStreamer => Some("shards.packet_io=mmsg"),
        Tool::Ffmpeg => None,
    });
    settings.extend(meetings.iter().flat_map(|meeting| &meeting.settings).map(String::as_str));
    let appliance = Appliance::start_in(Arc::new(Root::new()), ports, &settings);
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for meeting in &meetings {
            let (appliance, clip, faults) = (&appliance, &clip, &faults);
            scope.spawn(move || {
                let mut peer = meeting.start_peer(cable, clip);
                let outcome = catch_unwind(AssertUnwindSafe(|| meeting.judge(appliance, &mut peer, clip)));
                if let Err(panic) = outcome {
                    let (cell, fault, words) = (meeting.cell, said(&*panic), peer.last_words());
                    faults.lock().unwrap().push(format!("{cell}: {fault}\n-- the peer's last words:\n{words}\n--"));
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} of {} cells failed\n{}", faults.len(), meetings.len(), faults.join("\n"));
}

#[test]
fn srt_live_transmit_calls_under_every_key_and_over_either_road() {
    every_cell(Role::Listener, Tool::SrtLiveTransmit, None);
}

#[test]
fn srt_live_transmit_is_called_under_every_key_and_over_either_road() {
    every_cell(Role::Caller, Tool::SrtLiveTransmit, None);
}

#[test]
fn srt_live_transmit_is_met_under_every_key_and_over_either_road() {
    every_cell(Role::Rendezvous, Tool::SrtLiveTransmit, None);
}

#[test]
fn ffmpeg_calls_under_every_key_and_over_either_road() {
    every_cell(Role::Listener, Tool::Ffmpeg, None);
}

#[test]
fn ffmpeg_is_called_under_every_key_and_over_either_road() {
    every_cell(Role::Caller, Tool::Ffmpeg, None);
}

/// In rendezvous ffmpeg binds the very address that it calls, so both ends have to have the same.
#[test]
fn ffmpeg_is_met_under_every_key_and_over_either_road() {
    let cable = Cable::of_twins(&TWINS).expect("these tests run as root");
    every_cell(Role::Rendezvous, Tool::Ffmpeg, Some(&cable));
}

#[test]
fn gstreamer_calls_under_every_key_and_over_either_road() {
    every_cell(Role::Listener, Tool::GStreamer, None);
}

#[test]
fn gstreamer_is_called_under_every_key_and_over_either_road() {
    every_cell(Role::Caller, Tool::GStreamer, None);
}

#[test]
fn gstreamer_is_met_under_every_key_and_over_either_road() {
    every_cell(Role::Rendezvous, Tool::GStreamer, None);
}
