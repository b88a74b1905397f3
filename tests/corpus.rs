//! Replays what fuzzing has found, and what it started from, on the stable compiler.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files of a target's corpus, and bytes of each, at most: enough to reach what matters, little enough to be kept here.
const FILES_MAX: usize = 40;
const FILE_LEN_MAX: usize = 4_096;

/// What a target runs.
type Body = fn(&[u8]);

/// Every target of `tests/fuzz` and its body.
const TARGETS: &[(&str, Body)] = &[
    ("aac_adts", headworks::codec::fuzzing_audio::fuzz_adts),
    ("aac_config", headworks::codec::fuzzing_audio::fuzz_audio_specific_config),
    ("aac_latm", headworks::codec::fuzzing_audio::fuzz_latm),
    ("ac3", headworks::codec::fuzzing_audio::fuzz_ac3),
    ("audio_any", headworks::codec::fuzzing_audio::fuzz_audio),
    ("broker_request", headworks_frame_ring::fuzzing::fuzz_broker_request),
    ("configuration", headworks::config::fuzzing::fuzz_configuration),
    ("ethernet_edge", headworks_ethernet::fuzzing::fuzz_edge),
    ("h264", headworks::codec::h264::fuzzing::fuzz_h264),
    ("h264_depacketizer", headworks::codec::rtp_payload::fuzzing::fuzz_h264_depacketizer),
    ("hevc", headworks::codec::hevc::fuzzing::fuzz_hevc),
    ("hevc_depacketizer", headworks::codec::rtp_payload::fuzzing::fuzz_hevc_depacketizer),
    ("ingest", headworks::pipeline::fuzzing::fuzz_ingest),
    ("klv", headworks::codec::fuzzing_audio::fuzz_klv),
    ("mp2", headworks::codec::fuzzing_audio::fuzz_mp2),
    ("mpeg2video", headworks::codec::mpeg2video::fuzzing::fuzz_mpeg2),
    ("opus", headworks::codec::fuzzing_audio::fuzz_opus),
    ("ring_reader", headworks_frame_ring::fuzzing::fuzz_changed_ring),
    ("rtp_access_unit", headworks::codec::rtp_payload::fuzzing::fuzz_rtp_access_unit),
    ("rtp_packet", headworks::protocol::rtp::fuzzing::fuzz_packet),
    ("rtp_rtcp", headworks::protocol::rtp::fuzzing::fuzz_rtcp),
    ("rtp_sdp", headworks::protocol::rtp::fuzzing::fuzz_sdp),
    ("rtp_source", headworks::protocol::rtp::fuzzing::fuzz_source),
    ("send_material", headworks::cli::send::material::fuzzing::fuzz_material),
    ("srt_buffer_mode", headworks::protocol::srt::connection::fuzzing::fuzz_buffer_mode),
    ("srt_caller", headworks::protocol::srt::fuzzing::fuzz_caller),
    ("srt_connection", headworks::protocol::srt::connection::fuzzing::fuzz_connection),
    ("srt_fec", headworks::protocol::srt::fec::fuzzing::fuzz_fec),
    ("srt_handshake", headworks::protocol::srt::fuzzing::fuzz_handshake),
    ("srt_key_material", headworks::protocol::srt::fuzzing::fuzz_key_material),
    ("srt_listener", headworks::protocol::srt::fuzzing::fuzz_listener),
    ("srt_packet", headworks::protocol::srt::fuzzing::fuzz_packet),
    ("srt_rendezvous", headworks::protocol::srt::fuzzing::fuzz_rendezvous),
    ("srt_restore", headworks::protocol::srt::fuzzing::restore::fuzz_restore),
    ("srt_stream_id", headworks::protocol::srt::fuzzing::fuzz_stream_id),
    ("stream_descriptor", headworks_frame_ring::fuzzing::fuzz_stream_descriptor),
    ("stream_reader", headworks_frame_ring::fuzzing::fuzz_changed_stream),
    ("ts_demux", headworks::container::mpegts::fuzzing::fuzz_demux),
];

#[test]
fn everything_that_fuzzing_found_is_survived() {
    for (target, body) in TARGETS {
        for file in [files("corpus", target), files("regressions", target)].concat() {
            let bytes = fs::read(&file).unwrap();
            // Shown only when the body panics.
            println!("{}", file.display());
            body(&bytes);
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_it_stays_small() {
    for (target, _) in TARGETS {
        let corpus = files("corpus", target);
        assert!(!corpus.is_empty() && corpus.len() <= FILES_MAX, "{target} has {} files", corpus.len());
        for file in corpus {
            let len = fs::metadata(&file).unwrap().len();
            assert!(len <= FILE_LEN_MAX as u64, "{} has {len} bytes", file.display());
        }
    }
}

#[test]
fn what_is_fuzzed_is_what_is_replayed() {
    let replayed: BTreeSet<String> = TARGETS.iter().map(|(target, _)| (*target).to_owned()).collect();
    assert_eq!(replayed, names("tests/fuzz/fuzz_targets"));
    assert_eq!(replayed, names("tests/fuzz/corpus"));
    assert!(names("tests/fuzz/regressions").is_subset(&replayed));
    let manifest = fs::read_to_string("tests/fuzz/Cargo.toml").unwrap();
    for target in replayed {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target} is not in the manifest");
    }
}

fn files(kind: &str, target: &str) -> Vec<PathBuf> {
    let mut files = entries(&Path::new("tests/fuzz").join(kind).join(target));
    files.sort();
    files
}

fn names(directory: &str) -> BTreeSet<String> {
    entries(Path::new(directory)).iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect())
}
