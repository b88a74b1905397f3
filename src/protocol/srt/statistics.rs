//! What a connection counts. Names follow libsrt's `SRT_TRACEBSTATS` where the meaning does, in snake case and always as
//! totals since the connection was set up, so that `pktRcvLossTotal` there is `pkt_rcv_loss` here; [`super::trace_statistics`] has them by libsrt's
//! own names.

use super::snapshot::snapshot_fields;

/// Counters and gauges of one connection. Gauges are as of the last full acknowledgement or time-out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Statistics {
    // --- received data
    /// Data packets received, whatever became of them.
    pub pkt_recv: u64,
    /// Bytes of them, SRT header excluded.
    pub byte_recv: u64,
    /// Data packets taken into the receive buffer.
    pub pkt_recv_unique: u64,
    /// Payload bytes of them.
    pub byte_recv_unique: u64,
    /// Payloads handed up.
    pub pkt_delivered: u64,
    /// Packets found missing when a later one came.
    pub pkt_rcv_loss: u64,
    /// Packets given up: not there when the one after them was due, or the peer would not send them any more.
    pub pkt_rcv_drop: u64,
    /// Messages of several packets given up because one of these was not there; their packets are among the dropped ones.
    pub msg_rcv_drop: u64,
    /// Packets with the retransmission flag.
    pub pkt_rcv_retrans: u64,
    /// Packets that had been missing and came by retransmission.
    pub pkt_rcv_recovered: u64,
    /// Packets that had been missing and came late by themselves: reordered on the way.
    pub pkt_rcv_reordered: u64,
    /// The largest distance of a reordered packet from the newest.
    pub pkt_reorder_distance: u64,
    /// Packets that came after their time, had they been delivered before or given up. What a peer without TSBPD sends has no time: what was
    /// delivered is a duplicate when it comes again.
    pub pkt_rcv_belated: u64,
    /// Mean time that packets came after they were due, in milliseconds (weight of the newest 1/5).
    pub pkt_rcv_avg_belated_time: f64,
    /// Packets that are in the buffer already, or were handed up before their time.
    pub pkt_rcv_duplicate: u64,
    /// Packets that could not be decrypted: no such key, not authentic, or not encrypted on a secured connection.
    pub pkt_rcv_undecrypt: u64,
    /// Bytes of them.
    pub byte_rcv_undecrypt: u64,
    /// Of those: not encrypted though the connection is.
    pub pkt_rcv_unencrypted: u64,
    /// Of those: under AES-GCM, and not what the peer has sent.
    pub pkt_rcv_not_authentic: u64,
    /// Encrypted packets whose memory was shared with another packet, so that they could not be decrypted in place.
    pub pkt_rcv_not_writable: u64,
    /// Packets too far ahead for the receive buffer.
    pub pkt_rcv_no_room: u64,
    /// Control packets of the packet filter received; they are no data packets.
    pub pkt_rcv_filter_extra: u64,
    /// Packets that the packet filter has rebuilt.
    pub pkt_rcv_filter_supply: u64,
    /// Packets that the packet filter has given up: missing when the last group they are in was over, though one may still be rebuilt
    /// when others have come. (libsrt counts them with `arq:onreq` only.)
    pub pkt_rcv_filter_loss: u64,
    /// Control packets of the packet filter that did nothing: repeated, out of place, or the sum of what never came.
    pub pkt_rcv_filter_rejected: u64,
    /// Times that the receiver followed the sender over a gap wider than the receive buffer.
    pub sequence_jumps: u64,
    /// Time stamps not believed because they lay more than 10 s ahead.
    pub timestamps_disbelieved: u64,

    // --- received datagrams that were nothing for us
    /// Datagrams too short, or of an unknown control type.
    pub pkt_malformed: u64,
    /// Datagrams that came after the end.
    pub pkt_after_end: u64,
    /// Datagrams from another address than the peer's; only what AES-GCM shows to be the peer's is taken in.
    pub pkt_wrong_peer: u64,
    /// Acknowledgements sent to such addresses, whose answer would prove that the peer is there.
    pub pkt_sent_challenge: u64,
    /// Times that the peer has moved to another address.
    pub peer_changes: u64,
    /// Datagrams for another socket id.
    pub pkt_wrong_socket: u64,
    /// Control packets whose body was not one of their type.
    pub control_malformed: u64,
    /// Control packets ignored because they name what cannot be: acknowledgements and losses of packets never sent, drops
    /// outside of the window, answers to acknowledgements never sent.
    pub control_rejected: u64,
    /// Control packets that have no meaning on a running connection (handshakes, congestion warnings, unknown extensions).
    pub control_ignored: u64,
    /// Control packets received.
    pub pkt_recv_control: u64,

    // --- the receiver's control traffic
    /// Acknowledgements sent, full and small.
    pub pkt_sent_ack: u64,
    /// Light acknowledgements sent.
    pub pkt_sent_light_ack: u64,
    /// Loss reports sent.
    pub pkt_sent_nak: u64,
    /// Answers to acknowledgements received.
    pub pkt_recv_ackack: u64,
    /// Drop requests received and followed.
    pub pkt_recv_drop_request: u64,
    /// Stream encrypting keys installed after the handshake.
    pub key_refreshes: u64,
    /// Key material messages refused.
    pub key_refresh_failures: u64,

    // --- sent data
    /// Data packets sent, retransmissions included.
    pub pkt_sent: u64,
    /// Payload bytes of them.
    pub byte_sent: u64,
    /// Data packets sent for the first time.
    pub pkt_sent_unique: u64,
    /// Retransmissions.
    pub pkt_retrans: u64,
    /// Control packets of the packet filter sent; they are no data packets.
    pub pkt_snd_filter_extra: u64,
    /// Packets that the peer reported lost.
    pub pkt_snd_loss: u64,
    /// Packets given up because they were too late to be of use.
    pub pkt_snd_drop: u64,
    /// Payloads refused because the send buffer was full.
    pub pkt_snd_refused: u64,
    /// Acknowledgements received.
    pub pkt_recv_ack: u64,
    /// Loss reports received.
    pub pkt_recv_nak: u64,
    /// Answers to acknowledgements sent.
    pub pkt_sent_ackack: u64,
    /// Drop requests sent.
    pub pkt_sent_drop_request: u64,
    /// Events dropped because nobody polled them.
    pub events_lost: u64,

    // --- gauges
    /// Since the zero of our clock for the connection, in milliseconds.
    pub ms_time_stamp: u64,
    /// Largest packet on the wire, IP header included, in bytes.
    pub byte_mss: u64,
    /// Smoothed round trip time, in milliseconds.
    pub ms_rtt: f64,
    /// Packets in the receive buffer; those that were handed up before their time are not.
    pub pkt_rcv_buf: u64,
    /// Bytes of their payloads.
    pub byte_rcv_buf: u64,
    /// Until the newest packet is due that was received, in milliseconds: how long a silence would not be noticed.
    pub ms_rcv_buf: u64,
    /// Free slots of the receive buffer.
    pub pkt_avail_rcv_buf: u64,
    /// Packets missing now.
    pub pkt_rcv_missing: u64,
    /// Packets that may come after a missing one before it is reported.
    pub pkt_reorder_tolerance: u64,
    /// Negotiated latency as a receiver, in milliseconds.
    pub ms_rcv_tsb_pd_delay: u64,
    /// Negotiated latency of the peer as a receiver, in milliseconds.
    pub ms_snd_tsb_pd_delay: u64,
    /// Drift of the peer's clock against the time base, in microseconds.
    pub us_drift: i64,
    /// Received media rate, in megabits per second.
    pub mbps_recv_rate: f64,
    /// Estimated capacity of the path to us, in megabits per second.
    pub mbps_bandwidth: f64,
    /// Packets sent and not acknowledged.
    pub pkt_flight_size: u64,
    /// Packets that the peer says it has room for.
    pub pkt_flow_window: u64,
    /// Packets in the send buffer.
    pub pkt_snd_buf: u64,
    /// Packets that congestion control lets be under way; 0 in live mode, which has none.
    pub pkt_congestion_window: u64,
    /// Time between two packets that congestion control has come to, in microseconds; 0 in live mode.
    pub us_pkt_snd_period: f64,
}

impl Statistics {
    snapshot_fields! {
        count ms_time_stamp,
        count byte_mss,
        count pkt_recv,
        count byte_recv,
        count pkt_recv_unique,
        count byte_recv_unique,
        count pkt_delivered,
        count pkt_rcv_loss,
        count pkt_rcv_drop,
        count msg_rcv_drop,
        count pkt_rcv_retrans,
        count pkt_rcv_recovered,
        count pkt_rcv_reordered,
        count pkt_reorder_distance,
        count pkt_rcv_belated,
        float pkt_rcv_avg_belated_time,
        count pkt_rcv_duplicate,
        count pkt_rcv_undecrypt,
        count byte_rcv_undecrypt,
        count pkt_rcv_unencrypted,
        count pkt_rcv_not_authentic,
        count pkt_rcv_not_writable,
        count pkt_rcv_no_room,
        count pkt_rcv_filter_extra,
        count pkt_rcv_filter_supply,
        count pkt_rcv_filter_loss,
        count pkt_rcv_filter_rejected,
        count sequence_jumps,
        count timestamps_disbelieved,
        count pkt_malformed,
        count pkt_after_end,
        count pkt_wrong_peer,
        count pkt_sent_challenge,
        count peer_changes,
        count pkt_wrong_socket,
        count control_malformed,
        count control_rejected,
        count control_ignored,
        count pkt_recv_control,
        count pkt_sent_ack,
        count pkt_sent_light_ack,
        count pkt_sent_nak,
        count pkt_recv_ackack,
        count pkt_recv_drop_request,
        count key_refreshes,
        count key_refresh_failures,
        count pkt_sent,
        count byte_sent,
        count pkt_sent_unique,
        count pkt_retrans,
        count pkt_snd_loss,
        count pkt_snd_drop,
        count pkt_snd_refused,
        count pkt_recv_ack,
        count pkt_recv_nak,
        count pkt_sent_ackack,
        count pkt_sent_drop_request,
        count pkt_snd_filter_extra,
        count events_lost,
        float ms_rtt,
        count pkt_rcv_buf,
        count byte_rcv_buf,
        count ms_rcv_buf,
        count pkt_avail_rcv_buf,
        count pkt_rcv_missing,
        count pkt_reorder_tolerance,
        count ms_rcv_tsb_pd_delay,
        count ms_snd_tsb_pd_delay,
        signed us_drift,
        float mbps_recv_rate,
        float mbps_bandwidth,
        count pkt_flight_size,
        count pkt_flow_window,
        count pkt_snd_buf,
        count pkt_congestion_window,
        float us_pkt_snd_period,
    }
}
