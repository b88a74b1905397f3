//! Clips made by ffmpeg at test time, once each per run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use tempfile::TempDir;

use crate::reference::Reference;

/// A transport stream and what ffprobe finds in it.
pub struct Clip {
    pub name: String,
    pub bytes: Vec<u8>,
    pub reference: Reference,
}

pub const VIDEO: &str = "testsrc2=size=640x360:rate=25:duration=4,noise=alls=6:allf=t";
pub const INTERLACED: &str = "testsrc2=size=720x576:rate=50:duration=4,noise=alls=6:allf=t,interlace=lowpass=0";
pub const TONE_48K: &str = "sine=frequency=997:sample_rate=48000:duration=4";
pub const TONE_44K: &str = "sine=frequency=997:sample_rate=44100:duration=4";

/// The directory of this run's clips.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    DIRECTORY.get_or_init(|| TempDir::new().expect("a directory")).path()
}

/// What is sent where it does not matter what: H.264 with B pictures, and AAC.
pub fn usual_clip() -> Arc<Clip> {
    clip("usual", &[VIDEO, TONE_48K], "-c:v libx264 -preset veryfast -b:v 2M -g 25 -bf 2 -c:a aac -b:a 128k")
}

/// A clip of these lavfi inputs, coded as `arguments` say; made when it is first asked for.
pub fn clip(name: &str, inputs: &[&str], arguments: &str) -> Arc<Clip> {
    static CLIPS: Mutex<Option<HashMap<String, Arc<Clip>>>> = Mutex::new(None);
    let mut clips = CLIPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let clips = clips.get_or_insert_default();
    if let Some(clip) = clips.get(name) {
        return Arc::clone(clip);
    }
    let path = directory().join(format!("{name}.ts"));
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    for input in inputs {
        command.args(["-f", "lavfi", "-i", input]);
    }
    if inputs.len() > 1 && !arguments.contains("-map") {
        for index in 0..inputs.len() {
            command.args(["-map", &index.to_string()]);
        }
    }
    command.args(arguments.split_whitespace()).args(["-f", "mpegts"]).arg(&path);
    run(&mut command);
    let clip = Arc::new(from_file(name, &path));
    clips.insert(name.to_owned(), Arc::clone(&clip));
    clip
}

/// A transport stream that is there already.
pub fn from_file(name: &str, path: &PathBuf) -> Clip {
    let bytes = std::fs::read(path).expect("the clip is there");
    Clip { name: name.to_owned(), reference: Reference::of(path, &bytes), bytes }
}

/// A transport stream that a test has made itself.
pub fn from_bytes(name: &str, bytes: &[u8]) -> Clip {
    let path = directory().join(format!("{name}.ts"));
    std::fs::write(&path, bytes).expect("written");
    from_file(name, &path)
}

/// Runs a tool to its end; gives what it wrote.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
