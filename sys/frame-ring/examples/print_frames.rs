//! Prints the frames of a stream as they come: `print_frames /dev/shm/headworks/cam1`.

use std::time::Duration;

use headworks_frame_ring::reader::Start;
use headworks_frame_ring::stream_reader::{StreamEvent, StreamNext, StreamReader};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stream = std::env::args().nth(1).unwrap_or_else(|| "/dev/shm/headworks/cam1".to_owned());
    let mut reader = StreamReader::open(stream.as_ref(), Start::Key, None)?;
    loop {
        match reader.next(Duration::from_secs(1)) {
            StreamNext::Frame { track, frame } => {
                println!("track {track}: {:?} {} bytes", frame.descriptor.pts, frame.payload.len());
            }
            StreamNext::Event(event) => {
                println!("{event:?}");
                if matches!(event, StreamEvent::Ended | StreamEvent::WriterDead) {
                    return Ok(());
                }
            }
        }
    }
}
