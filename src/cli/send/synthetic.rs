//! A feed that is made up: a picture in H.264 and silence in AAC, multiplexed at a constant rate, to be sent in rounds.
//!
//! Everything is valid, and the pictures can be decoded: an upper part of noise, in macroblocks that carry their samples as they
//! are (I_PCM), as many as the rate wants; below, grey. A round holds whole pictures, whole audio frames and
//! whole transport packets, so that one can follow another without a seam; what is left of the rate is null packets (1 %).

use super::material::{DATAGRAM_LEN, Material, PACKETS_PER_DATAGRAM, Pace};
use crate::container::mpegts::{AccessUnit, Mux, MuxConfiguration, MuxTrack, NULL_PID, PACKET_LEN, SYNC_BYTE};
use crate::media::Codec;
use crate::shard::net::random::Random;

mod aac;
mod bit_writer;
mod h264;

/// Pictures per second.
const FRAME_RATE: u64 = 25;
/// Pictures between two IDR pictures, with the first.
const GOP: u64 = 24;
/// Ticks of 90 kHz in which whole pictures and whole AAC frames at 48 kHz end together: 0.32 s. Six of them are two GOPs.
const UNIT_90KHZ: u64 = 28_800;
/// Rates below this are sent in rounds five times as long, and with smaller pictures.
const LOW_RATE_BPS: u64 = 4_000_000;
/// What a made up feed can be.
const RATE_MIN_BPS: u64 = 500_000;
const RATE_MAX_BPS: u64 = 400_000_000;
/// Share of the rate that pictures, sound and tables fill; the rest is null packets.
const FILLED: f64 = 0.99;
/// How often a round is made until that is met.
const TRIES: usize = 8;
/// How many times as large as the others an IDR picture is.
const IDR_SIZE: f64 = 3.0;
const AUDIO_FRAME_90KHZ: u64 = 1_920;
const LEAD_MS: u32 = 700;

/// Why nothing can be made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntheticError {
    /// Too slow or too fast.
    #[error("--rate {0}: feeds that are made up have 500k to 400M")]
    Rate(u64),
}

/// A round of a feed of `rate_bps` bits per second, or the nearest rate that makes whole packets of a round.
///
/// # Errors
/// Rates that no picture fits.
pub fn material(rate_bps: u64) -> Result<Material, SyntheticError> {
    if !(RATE_MIN_BPS..=RATE_MAX_BPS).contains(&rate_bps) {
        return Err(SyntheticError::Rate(rate_bps));
    }
    let low = rate_bps < LOW_RATE_BPS;
    let period_90khz = UNIT_90KHZ * if low { 30 } else { 6 };
    // A multiple of 3 makes a whole number of bits per second, one of 7 whole datagrams.
    let per_round = rate_bps as f64 * period_90khz as f64 / 90_000.0 / (PACKET_LEN * 8) as f64;
    let step = 3 * PACKETS_PER_DATAGRAM;
    let packets = ((per_round / step as f64).round() as usize).max(1) * step;
    let rate = (packets * PACKET_LEN * 8) as u64 * 90_000 / period_90khz;
    // How much of it headers and tables take is seen when it is done.
    let audio = if low { 150 } else { 400 };
    let mut video = rate as f64 / 8.0 * period_90khz as f64 / 90_000.0 * FILLED;
    for _ in 0..TRIES {
        let bytes = round(rate, period_90khz, low, audio, video);
        let null = bytes.chunks(PACKET_LEN).filter(|packet| packet[1..3] == null_packet()[1..3]).count();
        let over = (bytes.len() / PACKET_LEN) as f64 - packets as f64;
        let wanted = packets as f64 * (1.0 - FILLED);
        let missed = null as f64 - over - wanted;
        if over == 0.0 && missed.abs() < wanted * 0.8 {
            return Ok(Material::new(bytes, Pace::Rate(rate)).expect("a rate is given"));
        }
        video += missed * (PACKET_LEN - 4) as f64;
    }
    Err(SyntheticError::Rate(rate_bps))
}

/// A round with frames of `audio` bytes, and pictures of `video` bytes all together.
fn round(rate_bps: u64, period_90khz: u64, low: bool, audio: usize, video: f64) -> Vec<u8> {
    let mut configuration =
        MuxConfiguration::new(vec![MuxTrack::new(0x100, Codec::H264), MuxTrack::new(0x101, Codec::AacAdts)]);
    configuration.rate_bps = Some(rate_bps);
    configuration.lead_ms = LEAD_MS;
    let mut mux = Mux::new(configuration).expect("a configuration without fault");
    let mut pictures = h264::Encoder::new(if low { h264::Size::SMALL } else { h264::Size::FULL });
    let mut sound = aac::Encoder::new();
    let mut random = Random::new(0x4865_6164);
    let count = period_90khz * FRAME_RATE / 90_000;
    let size = video / (count as f64 + (count / GOP) as f64 * (IDR_SIZE - 1.0));
    let mut out = Vec::with_capacity((rate_bps / 8 * period_90khz / 90_000) as usize + DATAGRAM_LEN);
    let (mut unit, mut owed) = (Vec::new(), 0.0);
    let mut sound_at = 0;
    for picture in 0..count {
        // The first picture is decoded after as much time as it is multiplexed ahead.
        let dts = start_90khz() + picture * 90_000 / FRAME_RATE;
        while sound_at < period_90khz && sound_at <= picture * 90_000 / FRAME_RATE {
            unit.clear();
            sound.frame(audio, &mut unit);
            let pts = start_90khz() + sound_at;
            mux.write(1, &AccessUnit { pts, dts: pts, random_access: false, data: &unit }, &mut out);
            sound_at += AUDIO_FRAME_90KHZ;
        }
        let is_idr = picture % GOP == 0;
        owed += if is_idr { size * IDR_SIZE } else { size };
        unit.clear();
        pictures.picture(is_idr, owed as usize, &mut random, &mut unit);
        owed -= unit.len() as f64;
        mux.write(0, &AccessUnit { pts: dts, dts, random_access: is_idr, data: &unit }, &mut out);
    }
    mux.advance_to(start_90khz() + period_90khz, &mut out);
    out
}

const fn start_90khz() -> u64 {
    LEAD_MS as u64 * 90 + 90_000
}

fn null_packet() -> [u8; PACKET_LEN] {
    let mut packet = [0xff; PACKET_LEN];
    packet[..4].copy_from_slice(&[SYNC_BYTE, (NULL_PID >> 8) as u8, NULL_PID as u8, 0x10]);
    packet
}

#[cfg(test)]
mod tests;
