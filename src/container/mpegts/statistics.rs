//! What the demultiplexer counts; every byte that is not delivered is in one of these.

/// Counters of a whole transport stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transport packets taken, of every kind.
    pub packets: u64,
    /// Null packets.
    pub null_packets: u64,
    /// Packets of PIDs that no table lists (service information, packets before the first PMT).
    pub unlisted_packets: u64,
    /// Bytes passed over while looking for sync bytes, or of a packet cut off by a gap.
    pub skipped_bytes: u64,
    /// How often synchronisation was lost after it had been found.
    pub synchronisation_losses: u64,
    /// Packets dropped because `transport_error_indicator` was set.
    pub transport_errors: u64,
    /// Packets whose payload was dropped because it is scrambled.
    pub scrambled_packets: u64,
    /// Packets dropped because header and adaptation field contradict each other.
    pub malformed_packets: u64,
    /// Packets dropped because they repeat the one before (H.222.0 §2.4.3.3 allows one repetition).
    pub duplicates: u64,
    /// Of the duplicates, those beyond the one repetition that is allowed.
    pub excess_duplicates: u64,
    /// Continuity counters that did not follow, without announcement and without a known gap.
    pub continuity_errors: u64,
    /// Continuity counters that did not follow and were announced by `discontinuity_indicator`.
    pub signalled_discontinuities: u64,
    /// Continuity counters that did not follow after a known gap.
    pub gap_discontinuities: u64,
    /// Continuity counters that followed after a gap so long that this proves nothing.
    pub unproven_gaps: u64,
    /// PCRs whose extension is 300 or more.
    pub pcr_errors: u64,
    /// Complete sections (tables and private) whose CRC was right, or that have none.
    pub sections: u64,
    /// Sections dropped because their CRC was wrong.
    pub section_crc_errors: u64,
    /// Sections dropped because they are longer than [`Limits::section_bytes`](super::Limits::section_bytes) or shorter
    /// than their own header.
    pub section_length_errors: u64,
    /// Sections dropped because their end did not come.
    pub truncated_sections: u64,
    /// Tables that are not in force yet (`current_next_indicator` 0).
    pub tables_not_current: u64,
    /// Tables refused because their lengths contradict each other, or of the wrong `table_id`.
    pub table_errors: u64,
    /// Table entries refused because another entry has their PID or programme number, or the PID is reserved.
    pub pid_conflicts: u64,
    /// Table entries refused because of [`Limits`](super::Limits).
    pub limit_refusals: u64,
    /// PES packets dropped because of their header.
    pub pes_header_errors: u64,
    /// PTS or DTS dropped because of wrong marker bits, or because the header has no room for them.
    pub time_stamp_errors: u64,
    /// PES packets that the next one cut short of their `PES_packet_length`.
    pub truncated_pes: u64,
    /// Bytes 0xff after the end of a PES packet, dropped: some multiplexers fill up the packet that way.
    pub pes_padding_bytes: u64,
    /// Other bytes after the end of a PES packet, delivered: some encoders write too small a `PES_packet_length`.
    pub pes_overrun_bytes: u64,
    /// Packets dropped because no PES packet had begun on their track, or its header was lost.
    pub packets_without_pes: u64,
}

/// Counters of one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackStatistics {
    /// Transport packets with payload, duplicates not counted.
    pub packets: u64,
    /// PES packets begun.
    pub pes_packets: u64,
    /// Private sections delivered.
    pub sections: u64,
    /// See [`Statistics::continuity_errors`].
    pub continuity_errors: u64,
    /// See [`Statistics::transport_errors`].
    pub transport_errors: u64,
    /// See [`Statistics::signalled_discontinuities`].
    pub signalled_discontinuities: u64,
    /// See [`Statistics::gap_discontinuities`].
    pub gap_discontinuities: u64,
    /// See [`Statistics::unproven_gaps`].
    pub unproven_gaps: u64,
    /// See [`Statistics::scrambled_packets`].
    pub scrambled_packets: u64,
    /// See [`Statistics::duplicates`].
    pub duplicates: u64,
    /// See [`Statistics::pes_header_errors`].
    pub pes_header_errors: u64,
    /// See [`Statistics::time_stamp_errors`].
    pub time_stamp_errors: u64,
    /// See [`Statistics::truncated_pes`].
    pub truncated_pes: u64,
    /// See [`Statistics::section_crc_errors`], [`Statistics::section_length_errors`] and
    /// [`Statistics::truncated_sections`].
    pub section_errors: u64,
    /// See [`Statistics::packets_without_pes`].
    pub packets_without_pes: u64,
}
