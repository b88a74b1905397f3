//! `headworkssrc`: the tracks of a Headworks stream as pads of a GStreamer pipeline.
//!
//! - `element`: properties, states, queries;
//! - `reading`: the thread that waits for the stream, reads it and pushes;
//! - `output`: a pad and what was last said on it;
//! - `caps`: what a codec is called in GStreamer;
//! - `gate`: how the states tell the thread to go, wait or leave.

mod caps;
mod element;
mod gate;
mod output;
mod reading;

use gstreamer::glib;

fn plugin_init(plugin: &gstreamer::Plugin) -> Result<(), glib::BoolError> {
    element::register(plugin)
}

gstreamer::plugin_define!(
    headworks,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    env!("CARGO_PKG_VERSION"),
    // GStreamer knows a fixed list of licences and calls every other one proprietary; this name is on it since 1.20.
    "Apache 2.0",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "headworks"
);
