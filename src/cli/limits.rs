//! What there may be at most, of everything: for the start, beside the memory plan.

use std::fmt;

use crate::config::{Config, duration};
use crate::control::server::CONNECTIONS_MAX;
use crate::output::frame_ring::TRACKS_MAX;
use crate::protocol::srt::group::LEGS_MAX;
use crate::protocol::srt::listener::ListenerSettings;

/// The limits of a configuration, in lines.
pub struct Limits {
    lines: Vec<(&'static str, String)>,
}

impl Limits {
    /// Those of what is switched on.
    pub fn of(config: &Config) -> Self {
        let ingestion = &config.ingestion;
        let mut lines = Vec::new();
        let calls = config.streams.values().filter(|stream| stream.srt.is_some()).count();
        if ingestion.srt.enabled || calls > 0 {
            let srt = &ingestion.srt;
            let fetched = if calls > 0 { format!(", {calls} of them fetched") } else { String::new() };
            let legs = if srt.bonding { format!("{LEGS_MAX} legs each") } else { "no bonding".to_owned() };
            lines.push((
                "SRT",
                format!(
                    "{} sessions{fetched}, {legs}; {} bit/s each; latency {} to {}; a loss is asked for after {} packets at most; silent for {} at most",
                    ingestion.max_connections,
                    srt.max_bandwidth,
                    duration::format(srt.latency),
                    duration::format(srt.latency_max),
                    srt.reorder_tolerance,
                    duration::format(srt.peer_idle_timeout)
                ),
            ));
        }
        if ingestion.srt.enabled {
            let access = &ingestion.srt.access;
            lines.push((
                "callers",
                format!(
                    "of one address {} sessions, and in a second {} inductions, {} conclusions, {} passphrases; of all strangers {} passphrases; {} waiting, on each shard",
                    any(access.max_per_source),
                    any(access.inductions_per_second),
                    any(access.conclusions_per_second),
                    any(access.derivations_per_second),
                    any(access.derivations_per_second_total),
                    ListenerSettings::default().pending_max
                ),
            ));
        }
        if ingestion.rtp.enabled || config.streams.values().any(|stream| stream.rtp.is_some()) {
            let rtp = &ingestion.rtp;
            lines.push((
                "RTP",
                format!(
                    "{} sources; {} packets out of order; silent for {} at most",
                    rtp.max_sessions,
                    ingestion.frame.reorder_buffer,
                    duration::format(rtp.session_timeout)
                ),
            ));
        }
        lines.push((
            "streams",
            format!(
                "{TRACKS_MAX} tracks each; frames of {} bytes; rings of {} bytes each, all memory {} bytes; without a source for {}",
                ingestion.frame.max_frame_size,
                ingestion.memory.per_stream_limit,
                ingestion.memory.global_limit,
                duration::format(ingestion.stream_timeout)
            ),
        ));
        if calls > 0 {
            lines.push((
                "calls",
                format!(
                    "again after {} to {}",
                    duration::format(ingestion.reconnect_interval),
                    duration::format(ingestion.reconnect_interval_max)
                ),
            ));
        }
        if config.control.enabled {
            lines.push(("control", format!("{CONNECTIONS_MAX} connections")));
        }
        if config.output.broker.socket.is_some() {
            lines.push(("broker", format!("{} connections", config.output.broker.max_connections)));
        }
        Self { lines }
    }
}

/// A number of which 0 is no limit.
fn any(number: u32) -> String {
    if number == 0 { "any number of".to_owned() } else { number.to_string() }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limits")?;
        self.lines.iter().try_for_each(|(what, line)| write!(f, "\n  {what:<8} {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn limits(settings: &[&str]) -> String {
        let settings: Vec<String> = settings.iter().map(|&it| it.to_owned()).collect();
        Limits::of(&config::load(None, std::iter::empty(), &settings).unwrap().config).to_string()
    }

    #[test]
    fn the_limits_of_what_is_switched_on_are_listed() {
        assert_eq!(
            limits(&[]),
            "limits\n  \
             SRT      25 sessions, 8 legs each; 60000000 bit/s each; latency 120ms to 8s; a loss is asked for after 0 packets at most; \
             silent for 30s at most\n  \
             callers  of one address any number of sessions, and in a second 100 inductions, 50 conclusions, 50 passphrases; \
             of all strangers 400 passphrases; 256 waiting, on each shard\n  \
             RTP      30 sources; 100 packets out of order; silent for 30s at most\n  \
             streams  256 tracks each; frames of 10485760 bytes; rings of 419430400 bytes each, all memory 8589934592 bytes; \
             without a source for 30s\n  \
             control  64 connections"
        );
        let fetched = limits(&[
            "ingestion.srt.enabled=false",
            "ingestion.rtp.enabled=false",
            "ingestion.srt.bonding=false",
            "control.enabled=false",
            "output.broker.socket=/run/headworks/broker",
            "streams.a.srt.address=a:1",
        ]);
        let heads: Vec<&str> = fetched.lines().skip(1).map(|line| line.split_whitespace().next().unwrap()).collect();
        assert_eq!(heads, ["SRT", "streams", "calls", "broker"]);
        assert!(fetched.contains("25 sessions, 1 of them fetched, no bonding"), "{fetched}");
        assert!(fetched.contains("again after 5s to 1m"), "{fetched}");
    }
}
