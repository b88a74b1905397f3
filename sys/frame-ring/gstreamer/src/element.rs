//! The element: properties, states, queries.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer::subclass::prelude::*;
use headworks_frame_ring::layout::TrackKind;
use headworks_frame_ring::reader;

use crate::gate::Gate;
use crate::{caps, reading};

/// Where a reader begins; as `headworks tap --from`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "HeadworksSrcStart")]
pub enum Start {
    /// At the next frame published.
    #[enum_value(name = "The next frame published", nick = "live")]
    Live,
    /// At the newest that decoding can start at, else at the next such one.
    #[default]
    #[enum_value(name = "The newest that decoding can start at, else the next such one", nick = "key")]
    Key,
    /// At the oldest still in the ring.
    #[enum_value(name = "The oldest still there", nick = "oldest")]
    Oldest,
}

impl From<Start> for reader::Start {
    fn from(start: Start) -> Self {
        match start {
            Start::Live => Self::Live,
            Start::Key => Self::Key,
            Start::Oldest => Self::Oldest,
        }
    }
}

/// What the properties say.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub root: String,
    /// Empty: the files are opened here.
    pub broker: String,
    pub stream: String,
    /// Empty: all.
    pub track: String,
    pub start: Start,
    /// The longest without a frame; zero: for ever.
    pub timeout: Duration,
    pub latency: gst::ClockTime,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: "/dev/shm/headworks".to_owned(),
            broker: String::new(),
            stream: String::new(),
            track: String::new(),
            start: Start::default(),
            timeout: Duration::ZERO,
            latency: gst::ClockTime::from_mseconds(300),
        }
    }
}

glib::wrapper! {
    /// `headworkssrc`.
    pub struct HeadworksSrc(ObjectSubclass<Element>) @extends gst::Element, gst::Object;
}

/// Makes the element known.
///
/// # Errors
/// As GStreamer says.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "headworkssrc", gst::Rank::NONE, HeadworksSrc::static_type())
}

/// The private half of [`HeadworksSrc`].
#[derive(Debug, Default)]
pub struct Element {
    settings: Mutex<Settings>,
    running: Mutex<Option<Running>>,
}

/// From READY on.
#[derive(Debug)]
struct Running {
    gate: Arc<Gate>,
    thread: JoinHandle<()>,
}

#[glib::object_subclass]
impl ObjectSubclass for Element {
    const NAME: &'static str = "HeadworksSrc";
    type Type = HeadworksSrc;
    type ParentType = gst::Element;
}

impl Element {
    fn settings(&self) -> std::sync::MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_gate(&self, act: impl FnOnce(&Gate)) {
        if let Some(running) = &*self.running.lock().unwrap_or_else(PoisonError::into_inner) {
            act(&running.gate);
        }
    }

    fn start(&self) -> Result<(), gst::StateChangeError> {
        let settings = self.settings().clone();
        if settings.stream.is_empty() {
            gst::element_imp_error!(self, gst::ResourceError::Settings, ["no stream is named (property stream)"]);
            return Err(gst::StateChangeError);
        }
        let gate = Arc::new(Gate::new());
        let (element, passed) = (self.obj().clone(), Arc::clone(&gate));
        let thread = std::thread::Builder::new()
            .name("headworkssrc".to_owned())
            .spawn(move || reading::run(element, settings, &passed))
            .map_err(|error| {
                gst::element_imp_error!(self, gst::ResourceError::Failed, ["no thread: {error}"]);
                gst::StateChangeError
            })?;
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running { gate, thread });
        Ok(())
    }

    /// After the pads were deactivated: whoever the thread was pushing to has let it go.
    fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if running.is_some_and(|running| running.thread.join().is_err()) {
            gst::element_imp_error!(self, gst::LibraryError::Failed, ["the reading thread has failed"]);
        }
        for pad in self.obj().pads() {
            let _ = self.obj().remove_pad(&pad);
        }
    }

    /// A query on one of the pads.
    pub(crate) fn answer(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
            latency.set(true, self.settings().latency, gst::ClockTime::NONE);
            return true;
        }
        gst::Pad::query_default(pad, Some(&*self.obj()), query)
    }
}

impl ObjectImpl for Element {
    fn constructed(&self) {
        self.parent_constructed();
        self.obj().set_element_flags(gst::ElementFlags::SOURCE);
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: std::sync::LazyLock<Vec<glib::ParamSpec>> = std::sync::LazyLock::new(|| {
            let default = Settings::default();
            vec![
                glib::ParamSpecString::builder("stream")
                    .nick("Stream")
                    .blurb("Name of the stream; it is waited for")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("track")
                    .nick("Track")
                    .blurb("Name of the only track wanted, such as video0; empty: all, with a pad each")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecEnum::builder_with_default("start", Start::default())
                    .nick("Start")
                    .blurb("The frame to begin with")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("root")
                    .nick("Root")
                    .blurb("Directory of the rings (output.root of the configuration)")
                    .default_value(Some(default.root.as_str()))
                    .mutable_ready()
                    .build(),
                glib::ParamSpecString::builder("broker")
                    .nick("Broker")
                    .blurb("Socket of the broker to read through (output.broker.socket), where this user may not open the files")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("timeout")
                    .nick("Time-out")
                    .blurb("The longest without a stream or a frame before this is an error, ns; 0: for ever")
                    .mutable_ready()
                    .build(),
                glib::ParamSpecUInt64::builder("latency")
                    .nick("Latency")
                    .blurb("How much later than the first one a frame may come, as told to the pipeline, ns")
                    .default_value(default.latency.nseconds())
                    .mutable_ready()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, spec: &glib::ParamSpec) {
        let mut settings = self.settings();
        let text = || value.get::<Option<String>>().expect("a string").unwrap_or_default();
        let number = || value.get::<u64>().expect("a number");
        match spec.name() {
            "stream" => settings.stream = text(),
            "track" => settings.track = text(),
            "start" => settings.start = value.get().expect("a start"),
            "root" => settings.root = text(),
            "broker" => settings.broker = text(),
            "timeout" => settings.timeout = Duration::from_nanos(number()),
            "latency" => settings.latency = gst::ClockTime::from_nseconds(number().min(u64::MAX - 1)),
            other => unreachable!("no property {other}"),
        }
    }

    fn property(&self, _id: usize, spec: &glib::ParamSpec) -> glib::Value {
        let settings = self.settings();
        match spec.name() {
            "stream" => settings.stream.to_value(),
            "track" => settings.track.to_value(),
            "start" => settings.start.to_value(),
            "root" => settings.root.to_value(),
            "broker" => settings.broker.to_value(),
            "timeout" => u64::try_from(settings.timeout.as_nanos()).unwrap_or(u64::MAX).to_value(),
            "latency" => settings.latency.nseconds().to_value(),
            other => unreachable!("no property {other}"),
        }
    }
}

impl GstObjectImpl for Element {}

impl ElementImpl for Element {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: std::sync::LazyLock<gst::subclass::ElementMetadata> = std::sync::LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Headworks source",
                "Source/Demuxer",
                "Reads the frame rings of a Headworks stream, a pad per track",
                env!("CARGO_PKG_NAME"),
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> = std::sync::LazyLock::new(|| {
            [TrackKind::Video, TrackKind::Audio, TrackKind::Data, TrackKind::Transport]
                .map(|kind| {
                    let name = format!("{}_%u", kind_name(kind));
                    let (direction, presence) = (gst::PadDirection::Src, gst::PadPresence::Sometimes);
                    gst::PadTemplate::new(&name, direction, presence, &caps::template(kind)).expect("a good template")
                })
                .into()
        });
        &TEMPLATES
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.start()?,
            gst::StateChange::PlayingToPaused => self.with_gate(Gate::shut),
            gst::StateChange::PausedToReady => self.with_gate(Gate::leave),
            _ => {}
        }
        let success = match self.parent_change_state(transition) {
            Ok(success) => success,
            Err(error) => {
                if transition == gst::StateChange::ReadyToPaused {
                    self.with_gate(Gate::leave);
                    self.stop();
                }
                return Err(error);
            }
        };
        match transition {
            // Frames come when they come: nothing to preroll on.
            gst::StateChange::ReadyToPaused | gst::StateChange::PlayingToPaused => {
                return Ok(gst::StateChangeSuccess::NoPreroll);
            }
            gst::StateChange::PausedToPlaying => self.with_gate(Gate::open),
            gst::StateChange::PausedToReady => self.stop(),
            _ => {}
        }
        Ok(success)
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::Eos {
            self.with_gate(Gate::end);
            return true;
        }
        self.parent_send_event(event)
    }
}

/// The word that the names of a kind's pads start with.
pub(crate) fn kind_name(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Video => "video",
        TrackKind::Audio => "audio",
        TrackKind::Data | TrackKind::Unknown => "data",
        TrackKind::Transport => "transport",
    }
}
