//! [`Statistics`] by the names and in the units of libsrt's `SRT_TRACEBSTATS` (`srtcore/srt.h`, `docs/API/statistics.md`), for those who
//! compare both ends of a link, or have their dashboards already.
//!
//! All that a receiver has is here, as totals since the session began; what libsrt also gives since the last question (`pktRecv` beside
//! `pktRecvTotal`) is not, since several ask, and each has its own last question. Where libsrt has no total of its own (`pktRcvRetrans`,
//! `pktRcvBelated`), the total goes by the name that there is. Left out is what only a sender has: `pktSent…`, `byteSent…`, `pktSndLoss…`,
//! `pktSndDrop…`, `pktRetrans…`, `usSndDuration…`, `usPktSndPeriod`, `mbpsSendRate`, `mbpsMaxBW`, `pktCongestionWindow`, `pktFlightSize`,
//! `byteAvailSndBuf`, `pktSndBuf`, `byteSndBuf`, `msSndBuf`, `msSndTsbPdDelay`, `pktSndFilterExtra…`.
//!
//! Bytes are counted as libsrt counts them: with the headers of SRT, UDP and IPv4, but for those that could not be decrypted and those in the
//! receive buffer; and of acknowledgements the full ones alone.

use super::packet::HEADER_LEN;
use super::parameters::IPV4_UDP_LEN;
use super::statistics::Statistics;

/// Bytes of headers that libsrt adds to each packet's payload.
const HEADERS_LEN: u64 = (HEADER_LEN + IPV4_UDP_LEN) as u64;

/// Number of fields.
pub const FIELDS: usize = 33;

/// What is counted is whole, what is measured may not be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number of packets, bytes, milliseconds.
    Count(u64),
    /// A rate or a time.
    Measure(f64),
}

/// Name and value of each field, in the order of libsrt's structure.
pub fn fields(it: &Statistics) -> [(&'static str, Value); FIELDS] {
    use Value::{Count, Measure};
    let with_headers = |bytes: u64, packets: u64| Count(bytes + HEADERS_LEN * packets);
    // What never came has no size: libsrt takes the mean of what did.
    let guessed = |packets: u64| with_headers(it.byte_recv.checked_div(it.pkt_recv).unwrap_or(0) * packets, packets);
    [
        ("msTimeStamp", Count(it.ms_time_stamp)),
        ("pktRecvTotal", Count(it.pkt_recv)),
        ("pktRcvLossTotal", Count(it.pkt_rcv_loss)),
        ("pktSentACKTotal", Count(it.pkt_sent_ack)),
        ("pktRecvACKTotal", Count(it.pkt_recv_ack)),
        ("pktSentNAKTotal", Count(it.pkt_sent_nak)),
        ("pktRecvNAKTotal", Count(it.pkt_recv_nak)),
        ("pktRcvDropTotal", Count(it.pkt_rcv_drop)),
        ("pktRcvUndecryptTotal", Count(it.pkt_rcv_undecrypt)),
        ("byteRecvTotal", with_headers(it.byte_recv, it.pkt_recv)),
        ("byteRcvLossTotal", guessed(it.pkt_rcv_loss)),
        ("byteRcvDropTotal", guessed(it.pkt_rcv_drop)),
        ("byteRcvUndecryptTotal", Count(it.byte_rcv_undecrypt)),
        ("pktRcvRetrans", Count(it.pkt_rcv_retrans)),
        ("mbpsRecvRate", Measure(it.mbps_recv_rate)),
        ("pktReorderDistance", Count(it.pkt_reorder_distance)),
        ("pktRcvAvgBelatedTime", Measure(it.pkt_rcv_avg_belated_time)),
        ("pktRcvBelated", Count(it.pkt_rcv_belated)),
        ("pktFlowWindow", Count(it.pkt_flow_window)),
        ("msRTT", Measure(it.ms_rtt)),
        ("mbpsBandwidth", Measure(it.mbps_bandwidth)),
        ("byteAvailRcvBuf", Count(it.pkt_avail_rcv_buf * it.byte_mss)),
        ("byteMSS", Count(it.byte_mss)),
        ("pktRcvBuf", Count(it.pkt_rcv_buf)),
        ("byteRcvBuf", Count(it.byte_rcv_buf)),
        ("msRcvBuf", Count(it.ms_rcv_buf)),
        ("msRcvTsbPdDelay", Count(it.ms_rcv_tsb_pd_delay)),
        ("pktRcvFilterExtraTotal", Count(it.pkt_rcv_filter_extra)),
        ("pktRcvFilterSupplyTotal", Count(it.pkt_rcv_filter_supply)),
        ("pktRcvFilterLossTotal", Count(it.pkt_rcv_filter_loss)),
        ("pktReorderTolerance", Count(it.pkt_reorder_tolerance)),
        ("pktRecvUniqueTotal", Count(it.pkt_recv_unique)),
        ("byteRecvUniqueTotal", with_headers(it.byte_recv_unique, it.pkt_recv_unique)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(of: &Statistics, name: &str) -> Value {
        fields(of).into_iter().find(|(its, _)| *its == name).expect("a field of that name").1
    }

    #[test]
    fn bytes_have_44_bytes_of_headers_each_and_lost_ones_the_mean_size() {
        let statistics = Statistics {
            pkt_recv: 10,
            byte_recv: 10_000,
            pkt_recv_unique: 8,
            byte_recv_unique: 8_000,
            pkt_rcv_loss: 3,
            pkt_rcv_drop: 1,
            byte_rcv_undecrypt: 500,
            ..Statistics::default()
        };
        assert_eq!(value(&statistics, "byteRecvTotal"), Value::Count(10_440));
        assert_eq!(value(&statistics, "byteRecvUniqueTotal"), Value::Count(8_352));
        assert_eq!(value(&statistics, "byteRcvLossTotal"), Value::Count(3_132));
        assert_eq!(value(&statistics, "byteRcvDropTotal"), Value::Count(1_044));
        assert_eq!(value(&statistics, "byteRcvUndecryptTotal"), Value::Count(500));
    }

    #[test]
    fn nothing_received_divides_nothing() {
        let statistics = Statistics { pkt_rcv_loss: 2, ..Statistics::default() };
        assert_eq!(value(&statistics, "byteRcvLossTotal"), Value::Count(88));
    }

    #[test]
    fn what_is_in_the_buffer_is_told_without_headers() {
        let statistics =
            Statistics { pkt_rcv_buf: 2, byte_rcv_buf: 2_632, pkt_reorder_tolerance: 5, ..Statistics::default() };
        assert_eq!(value(&statistics, "pktRcvBuf"), Value::Count(2));
        assert_eq!(value(&statistics, "byteRcvBuf"), Value::Count(2_632));
        assert_eq!(value(&statistics, "pktReorderTolerance"), Value::Count(5));
    }

    #[test]
    fn room_is_told_in_packets_of_the_largest_size() {
        let statistics = Statistics { pkt_avail_rcv_buf: 100, byte_mss: 1_500, ..Statistics::default() };
        assert_eq!(value(&statistics, "byteAvailRcvBuf"), Value::Count(150_000));
        assert_eq!(value(&statistics, "byteMSS"), Value::Count(1_500));
    }
}
