//! The element in a pipeline whose sinks show each frame at its time.
#![allow(missing_docs)]
mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{LONG, MS, Rings, element, key};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_base::BaseSink;
use gstreamer_base::prelude::*;
use headworks_frame_ring::descriptor::FrameDescriptor;
use headworks_frame_ring::layout::TrackKind;

/// How much later than its time a frame may be shown on a busy machine, ms.
const LATE_MAX: i64 = 100;
/// Sinks that show frames at their time on the clock of the pipeline, and throw away what comes later.
struct Screen {
    pipeline: gst::Pipeline,
    sinks: Arc<Mutex<Vec<gst::Element>>>,
    /// By how much later than it was decoded each frame was shown, ms.
    delays: Arc<Mutex<Vec<i64>>>,
}

impl Screen {
    fn start(properties: &[(&str, &str)]) -> Self {
        let source = element(properties);
        let pipeline = gst::Pipeline::new();
        pipeline.add(&source).unwrap();
        // As every application does.
        let of_messages = pipeline.downgrade();
        pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            if let (gst::MessageView::Latency(_), Some(pipeline)) = (message.view(), of_messages.upgrade()) {
                pipeline.call_async(|pipeline| drop(pipeline.recalculate_latency()));
            }
            gst::BusSyncReply::Pass
        });
        let (sinks, delays) = (Arc::default(), Arc::default());
        let screen = Self { pipeline, sinks, delays };
        let (weak, sinks, delays) =
            (screen.pipeline.downgrade(), Arc::clone(&screen.sinks), Arc::clone(&screen.delays));
        source.connect_pad_added(move |_, pad| {
            // One thread pushes to all pads.
            let queue = gst::ElementFactory::make("queue").build().unwrap();
            let sink = Self::sink(&delays);
            weak.upgrade().unwrap().add_many([&queue, &sink]).unwrap();
            queue.link(&sink).unwrap();
            pad.link(&queue.static_pad("sink").unwrap()).unwrap();
            for element in [&sink, &queue] {
                element.sync_state_with_parent().unwrap();
            }
            sinks.lock().unwrap().push(sink);
        });
        screen.pipeline.set_state(gst::State::Playing).unwrap();
        screen
    }

    fn sink(delays: &Arc<Mutex<Vec<i64>>>) -> gst::Element {
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", true)
            .property("async", false)
            .property("qos", true)
            .property("max-lateness", LATE_MAX * MS)
            .property("signal-handoffs", true)
            .build()
            .unwrap();
        let delays = Arc::clone(delays);
        sink.connect("handoff", false, move |values| {
            let (sink, buffer, pad): (gst::Element, gst::Buffer, gst::Pad) =
                (values[0].get().unwrap(), values[1].get().unwrap(), values[2].get().unwrap());
            let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
            let due = segment.segment().downcast_ref::<gst::ClockTime>().unwrap().to_running_time(buffer.dts());
            let delay = sink.current_running_time().unwrap().mseconds() as i64 - due.unwrap().mseconds() as i64;
            delays.lock().unwrap().push(delay);
            None
        });
        sink
    }

    fn wait_for_latency(&self, count: usize, latency: gst::ClockTime) {
        let began = Instant::now();
        let is_told = |sink: &gst::Element| sink.downcast_ref::<BaseSink>().unwrap().latency() >= latency;
        while self.sinks.lock().unwrap().iter().filter(|sink| is_told(sink)).count() < count {
            assert!(began.elapsed() < LONG, "no latency is told");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

#[test]
fn on_a_live_clock_every_frame_is_shown_at_its_time() {
    const FRAMES: i64 = 40;
    const LATENCY: u64 = 300;
    let mut rings = Rings::new();
    let mut tracks = [rings.video(), rings.track("audio0", TrackKind::Audio, b"ac-3")];
    let root = rings.root.path().to_str().unwrap();
    let screen = Screen::start(&[("root", root), ("stream", "cam1"), ("start", "live")]);
    screen.wait_for_latency(2, gst::ClockTime::from_mseconds(LATENCY));
    let began = Instant::now();
    for n in 0..FRAMES {
        std::thread::sleep(Duration::from_millis(40 * n as u64).saturating_sub(began.elapsed()));
        for track in &mut tracks {
            let commit_ns = gst::glib::monotonic_time() as u64 * 1_000;
            rings.write(track, "frame", FrameDescriptor { commit_ns, ..key(1_000 + 40 * n) });
        }
    }
    let [video, audio] = &mut tracks;
    rings.end(&mut [video, audio]);
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error, gst::MessageType::Qos];
    let limit = gst::ClockTime::from_seconds(LONG.as_secs());
    let last = screen.pipeline.bus().unwrap().timed_pop_filtered(limit, &kinds).expect("an end");
    assert_eq!(last.type_(), gst::MessageType::Eos, "{last:?}");
    for sink in &*screen.sinks.lock().unwrap() {
        let statistics = sink.property::<gst::Structure>("stats");
        let count = |name: &str| statistics.get::<u64>(name).unwrap();
        assert_eq!((count("rendered"), count("dropped")), (FRAMES as u64, 0));
    }
    let delays = screen.delays.lock().unwrap();
    // What a sink takes for itself, 20 ms, is added.
    let expected = LATENCY as i64..LATENCY as i64 + 20 + LATE_MAX;
    assert!(delays.iter().all(|delay| expected.contains(delay)), "{delays:?}");
}
