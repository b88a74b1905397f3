//! Prints what `headworkssrc` gives, a line of JSON for each buffer, until it ends: `print_buffers PROPERTY=VALUE …`
#![allow(missing_docs)]

use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gst::init()?;
    gstheadworks::plugin_register_static()?;
    let source = gst::ElementFactory::make("headworkssrc").build()?;
    for argument in std::env::args().skip(1) {
        let (property, value) = argument.split_once('=').ok_or("usage: print_buffers PROPERTY=VALUE …")?;
        source.set_property_from_str(property, value);
    }
    let pipeline = gst::Pipeline::new();
    pipeline.add(&source)?;
    let weak = pipeline.downgrade();
    source.connect_pad_added(move |_, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        let properties = gst::ElementFactory::make("fakesink").property("sync", false).property("async", false);
        let sink = properties.build().expect("GStreamer's own");
        pipeline.add(&sink).expect("a new element");
        pad.link(&sink.static_pad("sink").expect("it has one")).expect("it takes anything");
        pad.add_probe(gst::PadProbeType::BUFFER, |pad, info| {
            if let Some(buffer) = info.buffer() {
                println!("{}", line(pad, buffer));
            }
            gst::PadProbeReturn::Ok
        });
        sink.sync_state_with_parent().expect("it goes along");
    });
    let bus = pipeline.bus().expect("a pipeline has one");
    pipeline.set_state(gst::State::Playing)?;
    let mut result = Ok(());
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Eos(_) => break,
            gst::MessageView::Error(error) => {
                result = Err(format!("{} ({})", error.error(), error.debug().unwrap_or_default()).into());
                break;
            }
            gst::MessageView::Warning(warning) => eprintln!("{}", warning.debug().unwrap_or_default()),
            _ => {}
        }
    }
    pipeline.set_state(gst::State::Null)?;
    result
}

fn line(pad: &gst::Pad, buffer: &gst::BufferRef) -> serde_json::Value {
    let map = buffer.map_readable().expect("system memory");
    let flags = buffer.flags();
    serde_json::json!({
        "pad": pad.name().as_str(),
        "caps": pad.current_caps().map(|caps| caps.to_string()),
        "pts_ns": buffer.pts().map(gst::ClockTime::nseconds),
        "dts_ns": buffer.dts().map(gst::ClockTime::nseconds),
        "duration_ns": buffer.duration().map(gst::ClockTime::nseconds),
        "delta_unit": flags.contains(gst::BufferFlags::DELTA_UNIT),
        "discont": flags.contains(gst::BufferFlags::DISCONT),
        "corrupted": flags.contains(gst::BufferFlags::CORRUPTED),
        "len": map.len(),
        "sha256": glib::compute_checksum_for_data(glib::ChecksumType::Sha256, &map).map(|sum| sum.to_string()),
    })
}
