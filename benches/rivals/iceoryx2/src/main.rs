//! iceoryx2 under the load of `benches/frame_ring`: slices published and subscribed, blocking by its event service.
//!
//! As fast as it is configured: single-threaded services of its own configuration, buckets of the frame's size made ahead, a
//! buffer of 64 frames that overflows, no history, no deadlines, as many readers as there are.

use std::error::Error;
use std::time::Duration;

use iceoryx2::config::Config;
use iceoryx2::node::{Node, NodeBuilder};
use iceoryx2::port::event_id::EventId;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::*;
use iceoryx2::sample_mut::SampleMut;

#[path = "../../../frame_ring/load.rs"]
mod load;

use load::{Heard, Input, Load, Output, READER_CORE, WRITER_CORE, settle, sum};

const BUFFER_FRAMES: usize = 64;
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What travels beside a payload.
#[derive(Clone, Copy, Debug, Default, ZeroCopySend)]
#[repr(C)]
struct Beside {
    number: u64,
    stamp_ns: u64,
}

type Frames = Publisher<ipc::Service, [u8], Beside>;

fn main() -> Result<(), Box<dyn Error>> {
    set_log_level(LogLevel::Error);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let role = arguments.first().cloned().unwrap_or_default();
    match role.as_str() {
        "writer" => {
            let load = Load::parse(&arguments)?;
            settle(WRITER_CORE);
            load::write(&load, Publishers::create(&load)?)
        }
        "reader" => {
            let load = Load::parse(&arguments)?;
            settle(READER_CORE);
            load::read(&load, |ring| Reader::open(&load, ring).expect("the service is there"))
        }
        "memory" => memory(&arguments[1..]),
        _ => Err("usage: headworks-rival-iceoryx2 writer|reader|memory KEY=VALUE …".into()),
    }
}

/// A node whose files nobody else's are mixed with.
fn node(place: &str) -> Result<Node<ipc::Service>, Box<dyn Error>> {
    let mut config = Config::default();
    config.global.prefix = FileName::new(place.as_bytes()).map_err(|error| format!("{place}: {error:?}"))?;
    let root = Path::new(format!("/tmp/{place}").as_bytes()).map_err(|error| format!("{place}: {error:?}"))?;
    config.global.set_root_path(&root);
    // Looking for the dead among hundreds of nodes takes longer than the bench.
    config.global.node.cleanup_dead_nodes_on_creation = false;
    config.global.node.cleanup_dead_nodes_on_destruction = false;
    config.global.service.cleanup_dead_nodes_on_open = false;
    Ok(NodeBuilder::new().config(&config).create::<ipc::Service>()?)
}

struct Ring {
    publisher: Frames,
    notifier: Option<Notifier<ipc::Service>>,
    open: Option<SampleMut<ipc::Service, [u8], Beside>>,
}

struct Publishers {
    rings: Vec<Ring>,
    linked: bool,
    _node: Node<ipc::Service>,
}

impl Publishers {
    fn create(load: &Load) -> Result<Self, Box<dyn Error>> {
        let node = node(&load.place)?;
        let mut rings = Vec::new();
        for ring in 0..load.rings {
            let frames = node
                .service_builder(&format!("frames{ring}").as_str().try_into()?)
                .publish_subscribe::<[u8]>()
                .user_header::<Beside>()
                .payload_alignment(Alignment::new(64).expect("a power of two"))
                .max_publishers(1)
                .max_subscribers(load.readers)
                .max_nodes(load.readers + 1)
                .history_size(0)
                .subscriber_max_buffer_size(BUFFER_FRAMES)
                .subscriber_max_borrowed_samples(1)
                .enable_safe_overflow(true)
                .create()?;
            let publisher =
                frames.publisher_builder().initial_max_slice_len(load.size).max_loaned_samples(1).create()?;
            let notifier = if load.spinning {
                None
            } else {
                let event = node
                    .service_builder(&format!("event{ring}").as_str().try_into()?)
                    .event()
                    .max_notifiers(1)
                    .max_listeners(load.readers)
                    .max_nodes(load.readers + 1)
                    .event_id_max_value(1)
                    .create()?;
                Some(event.notifier_builder().default_event_id(EventId::new(1)).create()?)
            };
            rings.push(Ring { publisher, notifier, open: None });
        }
        Ok(Self { rings, linked: false, _node: node })
    }
}

impl Output for Publishers {
    fn put(&mut self, ring: usize, payload: &[u8]) {
        if !self.linked {
            self.linked = true;
            self.rings.iter().for_each(|ring| ring.publisher.update_connections().expect("readers can be reached"));
        }
        let ring = &mut self.rings[ring];
        let sample = ring.publisher.loan_slice_uninit(payload.len()).expect("there is a bucket");
        ring.open = Some(sample.write_from_slice(payload));
    }

    fn commit(&mut self, ring: usize, number: u64, stamp_ns: u64) {
        let ring = &mut self.rings[ring];
        let mut sample = ring.open.take().expect("put comes first");
        *sample.user_header_mut() = Beside { number, stamp_ns };
        sample.send().expect("sent");
        if let Some(notifier) = &ring.notifier {
            notifier.notify().expect("notified");
        }
    }
}

struct Reader {
    subscriber: Subscriber<ipc::Service, [u8], Beside>,
    listener: Option<Listener<ipc::Service>>,
    _node: Node<ipc::Service>,
}

impl Reader {
    fn open(load: &Load, ring: usize) -> Result<Self, Box<dyn Error>> {
        let node = node(&load.place)?;
        let frames = node
            .service_builder(&format!("frames{ring}").as_str().try_into()?)
            .publish_subscribe::<[u8]>()
            .user_header::<Beside>()
            .payload_alignment(Alignment::new(64).expect("a power of two"))
            .open()?;
        let subscriber = frames.subscriber_builder().buffer_size(BUFFER_FRAMES).create()?;
        let listener = if load.spinning {
            None
        } else {
            let event = node.service_builder(&format!("event{ring}").as_str().try_into()?).event().open()?;
            Some(event.listener_builder().create()?)
        };
        Ok(Self { subscriber, listener, _node: node })
    }
}

impl Input for Reader {
    fn next(&mut self, _spinning: bool, awake: impl FnOnce(u64)) -> Option<Heard> {
        let mut received = self.subscriber.receive().expect("received");
        if let (None, Some(listener)) = (&received, &self.listener) {
            listener.timed_wait(|_| {}, WAIT_MAX).expect("waited");
            received = self.subscriber.receive().expect("received");
        }
        let sample = received?;
        let beside = *sample.user_header();
        awake(beside.stamp_ns);
        Some(Heard { number: beside.number, sum: sum(sample.payload()) })
    }
}

/// Shared memory of a stream whose `readers` may each be `buffer` frames behind, of which any may have `frame` bytes.
fn memory(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let value = |key: &str| -> Result<&str, Box<dyn Error>> {
        let found = arguments.iter().find_map(|argument| argument.strip_prefix(key)?.strip_prefix('='));
        found.ok_or_else(|| format!("{key}= is missing").into())
    };
    let place = value("place")?;
    let readers: usize = value("readers")?.parse()?;
    let node = node(place)?;
    let frames = node
        .service_builder(&"frames".try_into()?)
        .publish_subscribe::<[u8]>()
        .user_header::<Beside>()
        .max_publishers(1)
        .max_subscribers(readers)
        .history_size(0)
        .subscriber_max_buffer_size(value("buffer")?.parse()?)
        .subscriber_max_borrowed_samples(1)
        .enable_safe_overflow(true)
        .create()?;
    let _publisher = frames.publisher_builder().initial_max_slice_len(value("frame")?.parse()?).create()?;
    let _subscribers: Vec<_> = (0..readers).map(|_| frames.subscriber_builder().create()).collect::<Result<_, _>>()?;
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
