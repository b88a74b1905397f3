//! What became of a transfer, and how it goes meanwhile.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::Denial;
use crate::base::{Allowance, Instant};
use crate::protocol::srt::connection::Connection;

/// Callers that are refused, on standard error unless there are too many: who is refused can come again at once, and as anybody.
pub struct Refusals {
    allowance: Allowance,
}

impl Refusals {
    /// None so far.
    pub const fn new(now: Instant) -> Self {
        Self { allowance: Allowance::new(now) }
    }

    /// Tells of one.
    pub fn tell(&mut self, now: Instant, peer: SocketAddr, denial: &Denial) {
        if let Some(line) = self.line(now, peer, denial) {
            eprintln!("{line}");
        }
    }

    fn line(&mut self, now: Instant, peer: SocketAddr, (reason, why): &Denial) -> Option<String> {
        Some(match self.allowance.take(now)? {
            0 => format!("{peer} refused: {reason}: {why}"),
            withheld => format!("{peer} refused: {reason}: {why} ({withheld} refusals before this one are not told)"),
        })
    }
}

/// One transfer, over.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TransferReport {
    /// The file: its name, or where it lies.
    pub file: String,
    /// The other end.
    pub peer: String,
    /// Bytes of it that went through.
    pub bytes: u64,
    /// Bytes that it has, where they were told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// From the first to the last.
    pub seconds: f64,
    /// Megabits of the file per second.
    pub mbps: f64,
    /// Smoothed round trip time.
    pub rtt_ms: f64,
    /// Data packets sent or received, each time.
    pub packets: u64,
    /// Of them, those that were not for the first time.
    pub retransmitted: u64,
    /// Packets that the receiver has missed at first.
    pub lost: u64,
    /// How it was encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Of the whole file: both ends have come to the same if they have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Why it did not end well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl TransferReport {
    /// What can be told of a transfer's connection and time.
    pub fn new(
        file: String,
        connection: &mut Connection,
        sends: bool,
        (begun, now): (Instant, Instant),
        bytes: u64,
    ) -> Self {
        connection.gauge();
        let statistics = connection.statistics();
        let seconds = now.saturating_since(begun).as_secs_f64();
        Self {
            file,
            peer: connection.parameters().peer.to_string(),
            bytes,
            size: None,
            seconds,
            mbps: if seconds > 0.0 { bytes as f64 * 8.0 / seconds / 1e6 } else { 0.0 },
            rtt_ms: statistics.ms_rtt,
            packets: if sends { statistics.pkt_sent } else { statistics.pkt_recv },
            retransmitted: if sends { statistics.pkt_retrans } else { statistics.pkt_rcv_retrans },
            lost: if sends { statistics.pkt_snd_loss } else { statistics.pkt_rcv_loss },
            encryption: connection.parameters().encryption.as_ref().map(|encryption| encryption.name()),
            sha256: None,
            error: None,
        }
    }

    /// Prints it: a line for people, or one of JSON.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn print(&self, json: bool) -> std::io::Result<()> {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        match json {
            true => writeln!(out, "{}", serde_json::to_string(self).map_err(std::io::Error::from)?)?,
            false => writeln!(out, "{self}")?,
        }
        out.flush()
    }
}

impl fmt::Display for TransferReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, peer, bytes, seconds, mbps, rtt_ms, packets, retransmitted, lost, .. } = self;
        match &self.error {
            None => write!(f, "ok      {file}")?,
            Some(error) => write!(f, "failed  {file}: {error}")?,
        }
        write!(f, "; {peer}, {bytes}")?;
        if let Some(size) = self.size {
            write!(f, " of {size}")?;
        }
        write!(f, " bytes in {seconds:.2} s, {mbps:.2} Mbit/s, RTT {rtt_ms:.1} ms")?;
        write!(f, ", {packets} packets, {retransmitted} retransmitted, {lost} lost")?;
        if let Some(encryption) = &self.encryption {
            write!(f, ", {encryption}")?;
        }
        if let Some(sha256) = &self.sha256 {
            write!(f, ", sha256 {sha256}")?;
        }
        Ok(())
    }
}

/// A line about a transfer each second, on standard error.
#[derive(Debug)]
pub struct Progress {
    told_at: Instant,
    told_bytes: u64,
}

const TELL_EVERY: Duration = Duration::from_secs(1);

impl Progress {
    /// Begins now.
    pub const fn new(now: Instant) -> Self {
        Self { told_at: now, told_bytes: 0 }
    }

    /// A line when a second has passed since the last.
    pub fn tell(
        &mut self,
        now: Instant,
        file: &str,
        sends: bool,
        bytes: u64,
        size: Option<u64>,
        connection: &mut Connection,
    ) {
        let elapsed = now.saturating_since(self.told_at);
        if elapsed < TELL_EVERY {
            return;
        }
        connection.gauge();
        let statistics = connection.statistics();
        let rate = (bytes - self.told_bytes) as f64 * 8.0 / elapsed.as_secs_f64() / 1e6;
        let share = size
            .filter(|&size| size > 0)
            .map_or(String::new(), |size| format!(" ({:.0} % of {size})", bytes as f64 * 100.0 / size as f64));
        let again = if sends { statistics.pkt_retrans } else { statistics.pkt_rcv_retrans };
        eprintln!(
            "{file}: {bytes} bytes{share}, {rate:.2} Mbit/s, RTT {:.1} ms, {again} retransmitted",
            statistics.ms_rtt
        );
        (self.told_at, self.told_bytes) = (now, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::srt::handshake::RejectReason;

    #[test]
    fn refusals_are_told_so_often_and_those_that_were_not_are_counted() {
        let start = Instant::from_millis(5_000);
        let mut refusals = Refusals::new(start);
        let peer = SocketAddr::from(([192, 0, 2, 1], 4_000));
        let denial = (RejectReason::Conflict, "so".to_owned());
        let told: Vec<_> = (0..1_000).filter_map(|_| refusals.line(start, peer, &denial)).collect();
        assert!(told.len() < 100, "{} lines", told.len());
        assert!(told.iter().all(|line| line == &format!("192.0.2.1:4000 refused: {}: so", RejectReason::Conflict)));
        let later = refusals.line(start + Duration::from_secs(1), peer, &denial).unwrap();
        let withheld = 1_000 - told.len();
        assert!(later.ends_with(&format!(": so ({withheld} refusals before this one are not told)")), "{later}");
    }

    #[test]
    fn a_report_is_one_line_that_says_what_became_of_it() {
        let report = TransferReport {
            file: "clip.ts".to_owned(),
            peer: "192.0.2.1:4000".to_owned(),
            bytes: 10,
            size: Some(20),
            seconds: 2.0,
            error: Some("nothing was heard from the peer any more".to_owned()),
            ..TransferReport::default()
        };
        assert_eq!(
            report.to_string(),
            "failed  clip.ts: nothing was heard from the peer any more; 192.0.2.1:4000, 10 of 20 bytes in 2.00 s, 0.00 Mbit/s, \
             RTT 0.0 ms, 0 packets, 0 retransmitted, 0 lost"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["error"], "nothing was heard from the peer any more");
        assert!(json.get("sha256").is_none());
    }
}
