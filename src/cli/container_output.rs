//! What `headworks tap --format` writes: the frames of its reader, put into a container.

use std::io::{self, Write};

use super::table::printable;
use crate::egress::remux::{Container, Remux, SourceTrack};
use crate::output::reader::descriptor::FrameDescriptor;
use crate::output::reader::reader::Frame;
use crate::output::reader::stream_descriptor::StreamDescriptor;
use crate::output::reader::stream_reader::{StreamReader, TrackReader};

/// A container that is being written.
pub(super) struct ContainerOutput {
    remux: Remux,
    /// Of each track of the reader: its number in the container, and the configuration it had last.
    tracks: Vec<(usize, u32)>,
    /// The frame that was read last.
    descriptor: FrameDescriptor,
    payload: Vec<u8>,
    bytes: Vec<u8>,
}

impl ContainerOutput {
    pub(super) fn new(container: Container) -> Self {
        Self {
            remux: Remux::new(container),
            tracks: Vec::new(),
            descriptor: FrameDescriptor::default(),
            payload: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// The next track of the reader, by its index.
    pub(super) fn add_track(&mut self, index: usize, track: &TrackReader, description: Option<&StreamDescriptor>) {
        let header = track.ring().header();
        let described = description.and_then(|it| it.tracks.iter().find(|known| known.name == track.name()));
        let number = self.remux.add_track(SourceTrack {
            name: printable(track.name()),
            codec: header.codec.to_le_bytes(),
            clock_rate: header.clock_rate,
            language: described.and_then(|track| track.language.as_bytes().try_into().ok()),
        });
        match self.tracks.get_mut(index) {
            Some(place) => *place = (number, 0),
            None => self.tracks.push((number, 0)),
        }
        self.configure(index, track, track.ring().configuration_generation());
    }

    /// No frame of the track will come.
    pub(super) fn end_track(&mut self, index: usize) {
        self.remux.end_track(self.tracks[index].0);
    }

    /// Frames of the track are missing before its next one.
    pub(super) fn lose(&mut self, index: usize) {
        self.remux.lose(self.tracks[index].0);
    }

    /// Keeps a frame: while it is borrowed, its reader cannot be asked for the configuration.
    pub(super) fn hold(&mut self, frame: &Frame<'_>) {
        self.descriptor = frame.descriptor;
        self.payload.clear();
        self.payload.extend_from_slice(frame.payload);
    }

    /// Writes the frame held, which is of this track.
    pub(super) fn write(&mut self, reader: &StreamReader, index: usize, to: &mut dyn Write) -> io::Result<()> {
        if let Some(track) = reader.track(index) {
            self.configure(index, track, self.descriptor.config_generation);
        }
        self.remux.frame(self.tracks[index].0, &self.descriptor, &self.payload, &mut self.bytes);
        self.flush(to)
    }

    pub(super) fn finish(&mut self, to: &mut dyn Write) -> io::Result<()> {
        self.remux.finish(&mut self.bytes);
        self.flush(to)
    }

    fn configure(&mut self, index: usize, track: &TrackReader, generation: u32) {
        let (number, known) = &mut self.tracks[index];
        if generation == *known || generation == 0 {
            return;
        }
        // One that is gone already is followed by another.
        if let Ok(configuration) = track.ring().configuration(generation) {
            *known = generation;
            self.remux.configure(*number, configuration);
        }
    }

    fn flush(&mut self, to: &mut dyn Write) -> io::Result<()> {
        for notice in self.remux.take_notices() {
            eprintln!("{notice}");
        }
        if !self.bytes.is_empty() {
            to.write_all(&self.bytes)?;
            to.flush()?;
            self.bytes.clear();
        }
        Ok(())
    }
}
