//! Peers that speak version 4 of the handshake. libsrt has not been one of them since 1.3, so these are made of our own parts: UDT's
//! handshake, as a caller or as a listener, then HSREQ and KMREQ until they are answered, then media with real retransmissions, behind a
//! network that loses some of it all.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Moment};

use headworks::base::{Datagram, Instant, PacketPool, PoolOptions};
use headworks::protocol::srt::connection::{Connection, Limits};
use headworks::protocol::srt::control::{Control, ControlWriter, extension};
use headworks::protocol::srt::encryption::{
    Cipher, Encryption, KeyLength, KeyMaterial, KeyMaterialState, KeyRefresh, derive_key_encrypting_key,
};
use headworks::protocol::srt::handshake::{
    Handshake, HandshakeExtension, HandshakeFields, MAGIC, Request, SOCKET_TYPE_DATAGRAM, VERSION_4, VERSION_5, flags,
};
use headworks::protocol::srt::packet::{self, HEADER_LEN, Header, SequenceNumber};
use headworks::protocol::srt::parameters::{ConnectionParameters, Features, Role};

use crate::appliance::Appliance;
use crate::clips::usual_clip;
use crate::relay::Relay;
use crate::senders::DATAGRAM;

const PASSPHRASE: &str = "known to everybody";
const LATENCY_MS: u16 = 700;
const OUR_ID: u32 = 4_444;
const PATIENCE: Duration = Duration::from_secs(10);
const REPEAT_EVERY: Duration = Duration::from_millis(50);
/// Of a feed of 8 Mbit/s.
const PACKET_EVERY: Duration = Duration::from_micros(1_316);

/// A peer of version 4 on its socket, after its handshake.
struct Peer {
    socket: UdpSocket,
    began: Moment,
    peer_id: u32,
    initial_sequence: SequenceNumber,
}

impl Peer {
    /// Calls, and goes through UDT's handshake.
    fn call(listener: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(listener).unwrap();
        socket.set_read_timeout(Some(REPEAT_EVERY)).unwrap();
        let initial_sequence = SequenceNumber::new(1_000);
        let mut caller = Self { socket, began: Moment::now(), peer_id: 0, initial_sequence };
        let fields = |request, cookie| HandshakeFields {
            version: VERSION_4,
            encryption: 0,
            extension: SOCKET_TYPE_DATAGRAM,
            initial_sequence,
            mtu: 1_500,
            flow_window: 8_192,
            request,
            socket_id: OUR_ID,
            cookie,
            peer_address: listener.ip(),
        };
        let induction = caller.ask(&fields(Request::Induction, 0));
        // It takes no notice of these.
        assert_eq!((induction.version, induction.extension), (VERSION_5, MAGIC));
        let conclusion = caller.ask(&fields(Request::Conclusion, induction.cookie));
        assert_eq!(
            (conclusion.version, conclusion.extension, conclusion.request),
            (VERSION_4, SOCKET_TYPE_DATAGRAM, Request::Conclusion)
        );
        caller.peer_id = conclusion.socket_id;
        caller
    }

    /// Is called, and answers each handshake with what it was asked, as libsrt 1.2 does, until a conclusion has come.
    fn listen(socket: UdpSocket) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = [0; 2_048];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).expect("a call");
            let mut fields = Handshake::parse(&buffer[HEADER_LEN..length]).expect("a handshake").fields;
            assert_eq!((fields.version, fields.extension, length), (VERSION_4, SOCKET_TYPE_DATAGRAM, HEADER_LEN + 48));
            let (peer_id, is_concluded) = (fields.socket_id, fields.request == Request::Conclusion);
            match is_concluded {
                true => fields.socket_id = OUR_ID,
                false => fields.cookie = 0x0bad_cafe,
            }
            let mut answer = Vec::new();
            ControlWriter { timestamp_us: 0, socket_id: peer_id }.handshake(&mut answer, &[]);
            fields.encode(&mut answer);
            socket.send_to(&answer, from).unwrap();
            if is_concluded {
                assert_eq!(fields.cookie, 0x0bad_cafe);
                socket.connect(from).unwrap();
                socket.set_read_timeout(Some(REPEAT_EVERY)).unwrap();
                return Self { socket, began: Moment::now(), peer_id, initial_sequence: fields.initial_sequence };
            }
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.began.elapsed().as_nanos() as u64)
    }

    fn writer(&self) -> ControlWriter {
        ControlWriter { timestamp_us: self.began.elapsed().as_micros() as u32, socket_id: self.peer_id }
    }

    /// Sends until something comes that `read` makes sense of.
    fn repeat<T>(&self, write: impl Fn(ControlWriter, &mut Vec<u8>), read: impl Fn(&[u8]) -> Option<T>) -> T {
        let began = Moment::now();
        let mut buffer = [0; 2_048];
        while began.elapsed() < PATIENCE {
            let mut bytes = Vec::new();
            write(self.writer(), &mut bytes);
            self.socket.send(&bytes).unwrap();
            if let Ok(length) = self.socket.recv(&mut buffer)
                && let Some(answer) = read(&buffer[..length])
            {
                return answer;
            }
        }
        panic!("no answer");
    }

    fn ask(&self, fields: &HandshakeFields) -> HandshakeFields {
        let write = |writer: ControlWriter, bytes: &mut Vec<u8>| {
            writer.handshake(bytes, &[]);
            fields.encode(bytes);
        };
        self.repeat(write, |bytes| {
            let answer = Handshake::parse(bytes.get(HEADER_LEN..)?).ok()?.fields;
            (answer.request == fields.request).then_some(answer)
        })
    }

    /// HSREQ; gives what is agreed on.
    fn introduce(&self) -> HandshakeExtension {
        let asked = HandshakeExtension {
            version: 0x0001_0203,
            flags: flags::TSBPD_SENDER | flags::CRYPT | flags::RETRANSMISSION,
            receive_latency_ms: 0,
            send_latency_ms: LATENCY_MS,
        };
        let mut body = Vec::new();
        asked.encode(&mut body);
        let write = |writer: ControlWriter, bytes: &mut Vec<u8>| extend(writer, bytes, extension::HSREQ, &body);
        self.repeat(write, |bytes| match control(bytes)? {
            (Control::HandshakeResponse(body), _) => HandshakeExtension::parse(body),
            _ => None,
        })
    }

    /// KMREQ, until this is the answer; there may be others to earlier ones.
    fn secure(&self, message: &KeyMaterial, expected: &[u8]) {
        let write = |writer: ControlWriter, bytes: &mut Vec<u8>| writer.key_material_request(bytes, message.as_bytes());
        self.repeat(write, |bytes| match control(bytes)? {
            (Control::KeyMaterialResponse(answer), _) => (answer == expected).then_some(()),
            _ => None,
        });
    }

    /// Sends media at its pace, and what is asked for again, until all of it has been acknowledged.
    fn send(&self, media: &[u8], encryption: Option<Encryption>) {
        let peer = self.socket.peer_addr().unwrap();
        let features = Features { receive_by_timestamp: false, ..Features::default() };
        let parameters = ConnectionParameters {
            socket_id: OUR_ID,
            peer_socket_id: self.peer_id,
            initial_sequence: self.initial_sequence,
            send_latency_ms: LATENCY_MS,
            features,
            encryption,
            ..ConnectionParameters::plain(Role::Sender, peer, Instant::from_nanos(0))
        };
        let limits = Limits { send_buffer_packets: 8_192, receive_buffer_packets: 64, ..Limits::default() };
        let mut connection = Connection::new(self.now(), parameters, limits);
        let pool = PacketPool::new(PoolOptions { slots: 64, ..PoolOptions::default() }).unwrap();
        self.socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut pieces = media.chunks(DATAGRAM);
        let mut due = Moment::now();
        let (mut buffer, mut out) = ([0; 2_048], Vec::new());
        let ends_at = Moment::now() + PACKET_EVERY * (media.len() / DATAGRAM) as u32 + PATIENCE;
        loop {
            let now = self.now();
            while due <= Moment::now()
                && let Some(piece) = pieces.next()
            {
                connection.send(now, piece).expect("there is room");
                due += PACKET_EVERY;
            }
            connection.handle_timeout(now);
            while connection.poll_transmit(now, &mut out).is_some() {
                self.socket.send(&out).unwrap();
                out.clear();
            }
            if let Ok(length) = self.socket.recv(&mut buffer) {
                let packet = pool.copy_from(&buffer[..length]).expect("a slot");
                let arrival = self.now();
                connection.receive(arrival, Datagram { packet, peer, local: None, interface: 0, path: 0, arrival });
            }
            connection.gauge();
            let statistics = connection.statistics();
            if pieces.len() == 0 && statistics.pkt_snd_buf == 0 {
                assert!(statistics.pkt_retrans > 0, "nothing was lost: {statistics:?}");
                break;
            }
            assert!(Moment::now() < ends_at, "never acknowledged: {statistics:?}");
        }
        // What is held there is still delivered.
        connection.shut_down();
        while connection.poll_transmit(self.now(), &mut out).is_some() {
            self.socket.send(&out).unwrap();
            out.clear();
        }
    }
}

fn control(bytes: &[u8]) -> Option<(Control<'_>, &[u8])> {
    let Header::Control(header) = packet::parse(bytes).ok()? else { return None };
    let body = &bytes[HEADER_LEN..];
    Some((Control::parse(&header, body).ok()?, body))
}

/// An extension message of any kind: nobody but such a caller writes HSREQ.
fn extend(writer: ControlWriter, bytes: &mut Vec<u8>, subtype: u16, body: &[u8]) {
    writer.key_material_request(bytes, body);
    bytes[2..4].copy_from_slice(&subtype.to_be_bytes());
}

/// The one stream there is, named after its caller's address.
fn stream(appliance: &Appliance) -> String {
    let began = Moment::now();
    loop {
        let page: serde_json::Value = serde_json::from_str(&appliance.get("/api/v1/streams")).expect("JSON");
        if let Some(id) = page["streams"][0]["id"].as_str() {
            assert!(id.starts_with("srt-127.0.0.1-"), "{id}");
            return id.to_owned();
        }
        assert!(began.elapsed() < PATIENCE, "no stream: {page}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_caller_of_version_4_delivers_every_frame() {
    let appliance = Appliance::start(&[]);
    let relay = Relay::start(appliance.ports.srt, "--delay 5ms --loss 2% --seed 4");
    let clip = usual_clip();
    let caller = Peer::call(SocketAddr::from(([127, 0, 0, 1], relay.port)));
    let stream = stream(&appliance);
    let agreed = caller.introduce();
    assert_eq!((agreed.send_latency_ms, agreed.flags & flags::TSBPD_RECEIVER), (LATENCY_MS, flags::TSBPD_RECEIVER));
    let tap = appliance.tap(&stream);
    caller.send(&clip.bytes, None);
    let frames = tap.wait_for(clip.reference.packet_count());
    clip.reference.compare("a caller of version 4", &frames);
    appliance.wait_for_log("the peer has version 1.2.3 and latency 700 ms", PATIENCE);
}

/// An appliance that fetches `cam1` from a listener of version 4 behind a network that loses some of it all.
fn fetched(settings: &[&str]) -> (Appliance, Relay, Peer) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let relay = Relay::start(socket.local_addr().unwrap().port(), "--delay 5ms --loss 2% --seed 6");
    let mut all = vec![format!("streams.cam1.srt.address=127.0.0.1:{}", relay.port)];
    all.extend(settings.iter().map(|setting| format!("streams.cam1.srt.{setting}")));
    let appliance = Appliance::start(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let peer = Peer::listen(socket);
    (appliance, relay, peer)
}

#[test]
fn a_listener_of_version_4_is_called_every_frame_arrives_and_a_stream_id_is_said_not_to_have_been_sent() {
    let (appliance, _relay, listener) = fetched(&["stream_id=#!::r=cam1,m=request"]);
    let clip = usual_clip();
    let agreed = listener.introduce();
    assert_eq!((agreed.send_latency_ms, agreed.flags & flags::TSBPD_RECEIVER), (LATENCY_MS, flags::TSBPD_RECEIVER));
    let tap = appliance.tap("cam1");
    listener.send(&clip.bytes, None);
    let frames = tap.wait_for(clip.reference.packet_count());
    clip.reference.compare("a listener of version 4", &frames);
    appliance.wait_for_log("the peer has version 1.2.3 and latency 700 ms", PATIENCE);
    appliance.wait_for_log("streams.cam1.srt.stream_id was not sent", PATIENCE);
    let body: serde_json::Value = serde_json::from_str(&appliance.get("/api/v1/streams/cam1")).unwrap();
    assert_eq!(body["peer_version"], "1.2.3", "{body}");
}

#[test]
fn a_listener_of_version_4_that_encrypts_is_called_and_every_frame_arrives() {
    let (appliance, _relay, listener) = fetched(&[&format!("passphrase={PASSPHRASE}")]);
    let clip = usual_clip();
    listener.introduce();
    let salt = [9; 16];
    let keys = |passphrase: &str| {
        let key = derive_key_encrypting_key(passphrase.as_bytes(), &salt, KeyLength::Aes192);
        Encryption::initiate(key, Cipher::AesCtr, salt, [7; 32], KeyRefresh::default())
    };
    listener.secure(&keys("known to nobody").1, &KeyMaterialState::BadSecret.to_wire());
    let (encryption, message) = keys(PASSPHRASE);
    listener.secure(&message, message.as_bytes());
    let tap = appliance.tap("cam1");
    listener.send(&clip.bytes, Some(encryption));
    let frames = tap.wait_for(clip.reference.packet_count());
    clip.reference.compare("a listener of version 4 that encrypts", &frames);
    appliance.wait_for_log("the peer encrypts with AES-192-CTR", PATIENCE);
}

#[test]
fn a_caller_of_version_4_that_encrypts_delivers_every_frame_and_none_with_another_passphrase() {
    let passphrase = format!("ingestion.srt.passphrase={PASSPHRASE}");
    for (cipher, key_length) in [("AES-128-CTR", KeyLength::Aes128), ("AES-256-CTR", KeyLength::Aes256)] {
        let appliance = Appliance::start(&[&passphrase]);
        let relay = Relay::start(appliance.ports.srt, "--delay 5ms --loss 2% --seed 5");
        let clip = usual_clip();
        let caller = Peer::call(SocketAddr::from(([127, 0, 0, 1], relay.port)));
        let stream = stream(&appliance);
        caller.introduce();
        let salt = [9; 16];
        let keys = |passphrase: &str| {
            let key = derive_key_encrypting_key(passphrase.as_bytes(), &salt, key_length);
            Encryption::initiate(key, Cipher::AesCtr, salt, [7; 32], KeyRefresh::default())
        };
        caller.secure(&keys("known to nobody").1, &KeyMaterialState::BadSecret.to_wire());
        let (encryption, message) = keys(PASSPHRASE);
        caller.secure(&message, message.as_bytes());
        let tap = appliance.tap(&stream);
        caller.send(&clip.bytes, Some(encryption));
        let frames = tap.wait_for(clip.reference.packet_count());
        clip.reference.compare("a caller of version 4 that encrypts", &frames);
        appliance.wait_for_log(&format!("the peer encrypts with {cipher}"), PATIENCE);
    }
}
