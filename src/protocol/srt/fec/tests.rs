use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::configuration::{ArqLevel, Fec, FilterConfiguration, FilterError, Layout, settle};
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::geometry::{Geometry, Group};
use super::*;
use crate::base::{Packet, PacketPool, PoolOptions};
use crate::protocol::srt::loss::ReceiverLosses;
use crate::protocol::srt::packet::{
    DataHeader, HEADER_LEN, Header, KeyFlag, MESSAGE_NUMBER_MAX, PacketPosition, SequenceNumber, parse,
};
use crate::protocol::srt::parameters::VERSION;
use crate::protocol::srt::statistics::Statistics;

mod connection;
mod negotiation;

const PAYLOAD_MAX: usize = 1_456;
const SOCKET_ID: u32 = 7;

fn fec(text: &str) -> Fec {
    text.parse::<FilterConfiguration>().and_then(|it| it.complete()).expect("a configuration")
}

// --- the text

#[test]
fn a_text_is_read_printed_and_completed_as_in_libsrt() {
    for (text, printed, completed) in [
        ("fec,cols:10", "fec,cols:10", "fec,arq:onreq,cols:10,layout:staircase,rows:1"),
        (
            "fec,cols:10,rows:5,arq:never",
            "fec,arq:never,cols:10,rows:5",
            "fec,arq:never,cols:10,layout:staircase,rows:5",
        ),
        (
            "fec,layout:even,rows:-4,cols:8",
            "fec,cols:8,layout:even,rows:-4",
            "fec,arq:onreq,cols:8,layout:even,rows:-4",
        ),
        ("fec,arq:,cols:2", "fec,cols:2", "fec,arq:onreq,cols:2,layout:staircase,rows:1"),
    ] {
        let read: FilterConfiguration = text.parse().unwrap();
        assert_eq!(read.to_string(), printed);
        assert_eq!(FilterConfiguration::from(read.complete().unwrap()).to_string(), completed);
    }
    assert_eq!("fec".parse::<FilterConfiguration>().unwrap().complete(), Err(FilterError::ColsMissing));
}

#[test]
fn what_is_no_configuration_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", FilterError::Kind),
        ("adaptive", FilterError::Kind),
        ("fec,", FilterError::Key),
        ("fec,cols", FilterError::Key),
        ("fec,cells:3", FilterError::Key),
        ("fec,cols:10,cols:10", FilterError::Key),
        ("fec,cols:1", FilterError::Cols),
        ("fec,cols:129", FilterError::Cols),
        ("fec,cols:-5", FilterError::Cols),
        ("fec,rows:0", FilterError::Rows),
        ("fec,rows:-1", FilterError::Rows),
        ("fec,rows:-129", FilterError::Rows),
        ("fec,rows:-32768", FilterError::Rows),
        ("fec,layout:odd", FilterError::Layout),
        ("fec,arq:sometimes", FilterError::Arq),
        ("fec,cols:128,rows:9", FilterError::Matrix),
        ("fec,cols:10,rows:10,layout:staircase,arq:onreq,cols:10,rows:10,a:b", FilterError::Length),
    ] {
        assert_eq!(text.parse::<FilterConfiguration>(), Err(reason), "{text}");
    }
}

#[test]
fn on_the_wire_each_word_is_reversed() {
    let filter: FilterConfiguration = "fec,cols:10".parse().unwrap();
    let wire = filter.to_wire();
    assert_eq!(wire[..], *b",cefsloc\x0001:");
    assert_eq!(FilterConfiguration::from_wire(&wire), Ok(filter));
    assert_eq!(FilterConfiguration::from_wire(b"\xff\xff\xff\xff"), Err(FilterError::Text));
    assert_eq!(FilterConfiguration::from_wire(&[b'f'; 68]), Err(FilterError::Length));
}

#[test]
fn what_one_side_leaves_out_the_other_settles() {
    let settled = |ours: &str, peers: &str, knows| {
        let read = |text: &str| (!text.is_empty()).then(|| text.parse::<FilterConfiguration>().unwrap());
        settle(read(ours).as_ref(), read(peers).as_ref(), knows)
            .map(|fec| fec.map(|fec| FilterConfiguration::from(fec).to_string()).unwrap_or_default())
    };
    assert_eq!(settled("", "", true), Ok(String::new()));
    let full = "fec,arq:never,cols:10,layout:even,rows:5";
    assert_eq!(settled("fec", full, true).as_deref(), Ok(full));
    assert_eq!(settled(full, "fec", true).as_deref(), Ok(full));
    assert_eq!(settled("", full, true).as_deref(), Ok(full));
    assert_eq!(settled("fec,rows:5,arq:never", "fec,cols:10,layout:even", true).as_deref(), Ok(full));
    assert_eq!(settled(full, full, false).as_deref(), Ok(full));
    // Asked for by nobody but us: the peer has to know filters.
    assert_eq!(settled(full, "", true).as_deref(), Ok(full));
    assert_eq!(settled(full, "", false), Err(FilterError::Kind));
    assert_eq!(settled("fec", "", true), Err(FilterError::ColsMissing));
    assert_eq!(settled("fec", "fec,rows:5", true), Err(FilterError::ColsMissing));
    for (other, key) in [("cols:9", "cols"), ("rows:-5", "rows"), ("layout:staircase", "layout"), ("arq:onreq", "arq")]
    {
        assert_eq!(settled(full, &format!("fec,{other}"), true), Err(FilterError::Conflict(key)));
    }
    assert_eq!(settled("fec,cols:128", "fec,rows:128", true), Err(FilterError::Matrix));
}

// --- the groups

/// Letters of the column groups of the first rows, as the picture in `geometry.rs` has them.
fn picture(fec: &Fec, rows: u64) -> Vec<String> {
    let geometry = Geometry::new(fec);
    let letter = |offset| match geometry.column(offset) {
        Some((column, series, _)) => char::from(b'A' + (series * geometry.cols + column) as u8),
        None => '-',
    };
    (0..rows).map(|row| (row * geometry.cols..(row + 1) * geometry.cols).map(letter).collect()).collect()
}

#[test]
fn columns_lie_even_or_as_a_staircase() {
    assert_eq!(picture(&fec("fec,cols:4,rows:3,layout:even"), 4), ["ABCD", "ABCD", "ABCD", "EFGH"]);
    assert_eq!(picture(&fec("fec,cols:4,rows:3"), 5), ["A--D", "AB-D", "ABCD", "EBCH", "EFCH"]);
    assert_eq!(picture(&fec("fec,cols:4"), 2), ["----", "----"]);
}

#[test]
fn every_packet_is_where_its_groups_say() {
    for text in ["fec,cols:4,rows:3,layout:even", "fec,cols:10,rows:5", "fec,cols:3,rows:-7", "fec,cols:2"] {
        let geometry = Geometry::new(&fec(text));
        for offset in 0..500 {
            let row: Vec<u64> = geometry.members(Group::Row(geometry.row(offset))).collect();
            assert!(row.contains(&offset) && row.len() as u64 == geometry.cols);
            if let Some((column, series, place)) = geometry.column(offset) {
                let members: Vec<u64> = geometry.members(Group::Column { column, series }).collect();
                assert_eq!((members[place as usize], members.len() as u64), (offset, geometry.rows));
            }
        }
    }
}

// --- on the wire

/// A packet as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    header: DataHeader,
    payload: Vec<u8>,
}

fn sent(sequence: u64, payload: &[u8]) -> Sent {
    let header = DataHeader {
        sequence: SequenceNumber::new(sequence),
        position: PacketPosition::Only,
        key: if sequence.is_multiple_of(3) { KeyFlag::Odd } else { KeyFlag::Even },
        message_number: ((sequence + u64::from(MESSAGE_NUMBER_MAX) - 5) % u64::from(MESSAGE_NUMBER_MAX)) as u32 + 1,
        timestamp_us: (sequence as u32).wrapping_mul(0x0101_0311),
        socket_id: SOCKET_ID,
        ..DataHeader::default()
    };
    Sent { header, payload: payload.to_vec() }
}

/// Payload `index`, of a length that follows from it; some are empty.
fn payload(index: u64) -> Vec<u8> {
    let length = if index.is_multiple_of(11) { 0 } else { 1 + index * 7 % 90 };
    (0..length).map(|at| (index * 31 + at * at + 1) as u8).collect()
}

impl Sent {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        self.header.encode(bytes.first_chunk_mut().unwrap());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// All that goes over the wire for `count` packets from `first` on, control packets behind those that make them.
fn wire(fec: &Fec, first: u64, count: u64) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(fec, first, PAYLOAD_MAX);
    let mut wire = Vec::new();
    for sequence in first..first + count {
        let packet = sent(sequence, &payload(sequence));
        encoder.feed(sequence, &packet.header, &packet.payload);
        wire.push(packet.bytes());
        let mut control = Vec::new();
        while encoder.write_control(SOCKET_ID, &mut control) {
            wire.push(std::mem::take(&mut control));
        }
    }
    wire
}

fn header(bytes: &[u8]) -> DataHeader {
    let Ok(Header::Data(header)) = parse(bytes) else { panic!("a data packet") };
    header
}

#[test]
fn a_control_packet_is_the_sum_of_its_packets_byte_by_byte() {
    let mut encoder = Encoder::new(&fec("fec,cols:2"), 0x7fff_fffe, PAYLOAD_MAX);
    let a = DataHeader { key: KeyFlag::Even, timestamp_us: 0x0000_0100, ..DataHeader::default() };
    let b = DataHeader { key: KeyFlag::Odd, timestamp_us: 0x1000_0203, ..DataHeader::default() };
    let mut out = Vec::new();
    encoder.feed(0x7fff_fffe, &a, &[1, 2, 3]);
    assert!(!encoder.write_control(9, &mut out));
    encoder.feed(0x7fff_ffff, &b, &[0x10, 0x20]);
    assert!(encoder.write_control(9, &mut out));
    assert!(!encoder.write_control(9, &mut out));
    let expected: [u8; 23] = [
        0x7f, 0xff, 0xff, 0xff, // the number of the last packet
        0xd0, 0, 0, 0, // alone, under the odd key, message number 0
        0x10, 0x00, 0x03, 0x03, // time stamps
        0, 0, 0, 9, // socket id
        0xff, 3, 0, 1, // a row; key flags 1 and 2; lengths 3 and 2
        0x11, 0x22, 3,
    ];
    assert_eq!(out, expected);
}

/// Control packets as libsrt's manual shows them: `H` or `V`, and the number of the packet before.
fn shown(fec: &Fec, from: u64, to: u64) -> Vec<(char, u64)> {
    wire(fec, 500, 100)
        .iter()
        .filter(|bytes| header(bytes).message_number == 0)
        .map(|bytes| (if bytes[HEADER_LEN] == ROW_INDEX { 'H' } else { 'V' }, header(bytes).sequence.get()))
        .filter(|(_, number)| (from..=to).contains(number))
        .collect()
}

#[test]
fn control_packets_come_in_the_order_of_libsrts_manual() {
    let even: Vec<_> = [('H', 539)].into_iter().chain((540..=549).map(|n| ('V', n))).chain([('H', 549)]).collect();
    assert_eq!(shown(&fec("fec,cols:10,rows:5,layout:even"), 537, 551), even);
    let staircase = [('H', 539), ('V', 540), ('V', 545), ('H', 549), ('V', 551)];
    assert_eq!(shown(&fec("fec,cols:10,rows:5"), 537, 551), staircase);
    let columns: Vec<_> = (540..=549).map(|n| ('V', n)).collect();
    assert_eq!(shown(&fec("fec,cols:10,rows:-5,layout:even"), 500, 560), columns);
}

#[test]
fn a_group_of_which_a_packet_was_never_sent_has_no_control_packet() {
    let mut encoder = Encoder::new(&fec("fec,cols:3"), 0, PAYLOAD_MAX);
    let mut out = Vec::new();
    for sequence in [0, 1, 5, 6, 7, 8] {
        encoder.feed(sequence, &sent(sequence, &[1]).header, &[1]);
        assert_eq!(encoder.write_control(1, &mut out), sequence == 8);
    }
}

// --- the receiver

struct Bench {
    decoder: Decoder,
    geometry: Geometry,
    first: u64,
    pool: PacketPool,
    losses: ReceiverLosses,
    statistics: Statistics,
    rebuilt: BTreeMap<u64, Sent>,
}

impl Bench {
    fn new(fec: &Fec, first: u64) -> Self {
        let mut losses = ReceiverLosses::new(1 << 14, 0, VERSION).behind_filter(ArqLevel::OnRequest);
        // Here all is missing until it is asked what was given up of it.
        losses.gap(first, first + 8_000);
        Self {
            decoder: Decoder::new(fec, first, PAYLOAD_MAX, 0),
            geometry: Geometry::new(fec),
            first,
            pool: PacketPool::new(PoolOptions { slots: 1_024, ..PoolOptions::default() }).expect("memory"),
            losses,
            statistics: Statistics::default(),
            rebuilt: BTreeMap::new(),
        }
    }

    fn packet(&self, bytes: &[u8]) -> Packet {
        self.pool.copy_from(bytes).expect("a slot")
    }

    fn receive(&mut self, bytes: &[u8]) {
        let header = header(bytes);
        if header.message_number == 0 {
            let packet = self.packet(bytes);
            self.decoder.control(&header, packet, &mut self.statistics);
        } else {
            let distance = header.sequence.distance(SequenceNumber::new(self.first));
            let sequence = self.first + distance as u64;
            self.decoder.data(sequence, &header, &bytes[HEADER_LEN..], &mut self.losses, &mut self.statistics);
        }
        while let Some(rebuilt) = self.decoder.poll_rebuilt(&mut self.statistics) {
            let sent = Sent { header: rebuilt.header, payload: rebuilt.payload.to_vec() };
            assert_eq!(rebuilt.header.sequence, SequenceNumber::new(rebuilt.sequence));
            assert!(self.rebuilt.insert(rebuilt.sequence, sent).is_none(), "rebuilt once");
        }
        assert_eq!(self.pool.in_use(), self.decoder.held(), "a slot for each control packet that is held");
    }

    /// Numbers that were rebuilt, counted from the first.
    fn rebuilt(&self) -> Vec<u64> {
        self.rebuilt.keys().map(|sequence| sequence - self.first).collect()
    }

    fn given_up(&mut self) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| self.losses.next_fresh(self.first))
            .map(|(a, b)| (a - self.first, b - self.first))
            .collect()
    }

    fn rejected(&self) -> u64 {
        self.statistics.pkt_rcv_filter_rejected
    }
}

/// What came of `count` packets of which these, counted from the first, are lost.
fn lose(text: &str, count: u64, lost: &[u64]) -> Bench {
    let (fec, first) = (fec(text), 0x7fff_fff0);
    let mut bench = Bench::new(&fec, first);
    for bytes in wire(&fec, first, count) {
        let header = header(&bytes);
        let offset = header.sequence.distance(SequenceNumber::new(first)) as u64;
        if header.message_number == 0 || !lost.contains(&offset) {
            bench.receive(&bytes);
        }
    }
    for (sequence, rebuilt) in &bench.rebuilt {
        let original = sent(*sequence, &payload(*sequence));
        assert_eq!(*rebuilt, original, "packet {sequence} as it was sent");
    }
    bench
}

#[test]
fn a_row_makes_up_for_one_packet_and_not_for_two() {
    assert_eq!(lose("fec,cols:5", 20, &[7]).rebuilt(), [7]);
    assert_eq!(lose("fec,cols:5", 20, &[4, 5, 19]).rebuilt(), [4, 5, 19]);
    assert_eq!(lose("fec,cols:5", 20, &[5, 9]).rebuilt(), [0_u64; 0]);
    assert_eq!(lose("fec,cols:5", 20, &[]).rebuilt(), [0_u64; 0]);
}

#[test]
fn columns_make_up_for_a_whole_row() {
    let row: Vec<u64> = (10..15).collect();
    assert_eq!(lose("fec,cols:5,rows:-4,layout:even", 40, &row).rebuilt(), row);
    assert_eq!(lose("fec,cols:5,rows:4,layout:even", 40, &row).rebuilt(), row);
    // The last row of a matrix: its control packets come when none of its packets has.
    let row: Vec<u64> = (15..20).collect();
    assert_eq!(lose("fec,cols:5,rows:-4,layout:even", 20, &row).rebuilt(), row);
}

#[test]
fn what_is_rebuilt_helps_to_rebuild_more() {
    // Row 0 lacks 0 and 1; column 1 brings back 1, then row 0 has 0, and with it column 0 has 10.
    //   x x . . .
    //   . . . . .
    //   x . . x .
    let bench = lose("fec,cols:5,rows:3,layout:even", 30, &[0, 1, 10, 13]);
    assert_eq!(bench.rebuilt(), [0, 1, 10, 13]);
    // Two packets each in two rows and the same two columns are beyond it.
    let mut bench = lose("fec,cols:5,rows:3,layout:even", 30, &[0, 1, 10, 11]);
    assert_eq!(bench.rebuilt(), [0_u64; 0]);
    assert_eq!(bench.given_up(), [(0, 1), (10, 11), (1, 2), (11, 12)]);
    assert_eq!(bench.statistics.pkt_rcv_filter_loss, 4);
}

#[test]
fn what_no_column_covers_is_up_to_its_row() {
    // Column 1 begins in the second row. When column 3 has brought back 3, the row brings back 1, which was given up by then.
    let mut bench = lose("fec,cols:5,rows:3", 30, &[1, 3, 29]);
    assert_eq!((bench.rebuilt(), bench.given_up()), (vec![1, 3, 29], vec![(1, 2)]));
    let mut bench = lose("fec,cols:5,rows:3", 30, &[1, 2]);
    assert_eq!((bench.rebuilt(), bench.given_up()), (vec![], vec![(1, 3)]));
    // Nothing covers it.
    let mut bench = lose("fec,cols:5,rows:-3", 30, &[1]);
    assert_eq!((bench.rebuilt(), bench.given_up()), (vec![], vec![(1, 2)]));
}

#[test]
fn a_packet_is_given_up_when_its_last_group_is_over_and_not_before() {
    let (fec, first) = (fec("fec,cols:6,rows:2,layout:even"), 100);
    let mut bench = Bench::new(&fec, first);
    let mut told = Vec::new();
    for bytes in wire(&fec, first, 24) {
        let header = header(&bytes);
        let offset = header.sequence.get() - first;
        // Packets 1 and 2, and 7 and 8 below them, with every control packet of the first matrix.
        if matches!(offset, 1 | 2 | 7 | 8) {
            continue;
        }
        bench.receive(&bytes);
        told.extend(bench.given_up().into_iter().map(|run| (offset, run)));
    }
    // Column 1 ends with packet 7, column 2 with packet 8; a third of a row passes.
    assert_eq!(told, [(10, (1, 2)), (10, (7, 8)), (11, (2, 3)), (11, (8, 9))]);
}

#[test]
fn a_control_packet_that_comes_before_its_packets_rebuilds_what_comes_then() {
    let (fec, first) = (fec("fec,cols:3"), 0);
    let wire = wire(&fec, first, 6);
    let mut bench = Bench::new(&fec, first);
    for at in [3, 0, 1, 2] {
        bench.receive(&wire[at]);
    }
    assert_eq!((bench.rebuilt(), bench.decoder.held()), (vec![2], 0));
    assert_eq!((bench.statistics.pkt_rcv_filter_extra, bench.statistics.pkt_rcv_filter_supply), (1, 1));
}

#[test]
fn hostile_control_packets_change_nothing_but_a_counter() {
    let (fec, first) = (fec("fec,cols:4,rows:3,layout:even"), 1_000);
    let wire = wire(&fec, first, 24);
    let is_control = |bytes: &&Vec<u8>| header(bytes).message_number == 0;
    let row = wire.iter().find(is_control).unwrap().clone();
    let column = wire.iter().filter(is_control).find(|bytes| bytes[HEADER_LEN] != ROW_INDEX).unwrap().clone();
    let changed = |bytes: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.to_vec();
        change(&mut bytes);
        bytes
    };
    let numbered = |bytes: &[u8], number: u64| {
        changed(bytes, &|bytes| bytes[..4].copy_from_slice(&(number as u32 & 0x7fff_ffff).to_be_bytes()))
    };
    let hostile = [
        row[..HEADER_LEN].to_vec(),
        row[..HEADER_LEN + 3].to_vec(),
        // Packet 3 of the first row is in column 3.
        changed(&row, &|bytes| bytes[HEADER_LEN] = 2),
        changed(&row, &|bytes| bytes[HEADER_LEN] = 0x80),
        changed(&column, &|bytes| bytes[HEADER_LEN] += 1),
        changed(&column, &|bytes| bytes[HEADER_LEN] = 200),
        changed(&row, &|bytes| bytes[HEADER_LEN + 1] = 4),
        changed(&row, &|bytes| bytes.resize(HEADER_LEN + FEC_HEADER_LEN + PAYLOAD_MAX + 1, 0)),
        numbered(&row, first - 1),
        numbered(&row, first + 100_000),
        numbered(&column, first + (1 << 30)),
        numbered(&row, u64::MAX),
        // The window reaches one matrix beyond the newest packet.
        numbered(&row, first + 16),
    ];
    let mut bench = Bench::new(&fec, first);
    for (count, bytes) in hostile.iter().enumerate() {
        bench.receive(bytes);
        assert_eq!(bench.rejected(), count as u64 + 1, "{count}");
    }
    assert_eq!((bench.decoder.held(), bench.rebuilt.len()), (0, 0));
    // All of it and what was sent: one packet of each row is lost, and every one comes back.
    for bytes in &wire {
        let offset = header(bytes).sequence.get() - first;
        if is_control(&bytes) || offset % 5 != 1 {
            bench.receive(bytes);
        }
        if is_control(&bytes) {
            let before = bench.rejected();
            bench.receive(bytes);
            assert_eq!(bench.rejected(), before + 1, "a control packet counts once");
        }
    }
    assert_eq!(bench.rebuilt(), [1, 6, 11, 16, 21]);
    assert!(bench.rebuilt.iter().all(|(sequence, packet)| *packet == sent(*sequence, &payload(*sequence))));
}

#[test]
fn a_sum_that_is_none_of_these_packets_rebuilds_nothing() {
    let (fec, first) = (fec("fec,cols:3"), 0);
    let honest = wire(&fec, first, 3);
    for change in [
        // A length that is no length of it, one that is longer than the sum, both key flags, and bytes behind the packet's end.
        |bytes: &mut Vec<u8>| bytes[HEADER_LEN + 3] ^= 8,
        |bytes: &mut Vec<u8>| bytes[HEADER_LEN + 2] ^= 0x40,
        |bytes: &mut Vec<u8>| bytes[HEADER_LEN + 1] ^= 2,
        |bytes: &mut Vec<u8>| bytes.extend([0, 0, 1]),
        |bytes: &mut Vec<u8>| bytes.truncate(HEADER_LEN + FEC_HEADER_LEN),
    ] {
        let mut control = honest[3].clone();
        change(&mut control);
        let mut bench = Bench::new(&fec, first);
        [&honest[0], &control, &honest[2]].into_iter().for_each(|bytes| bench.receive(bytes));
        assert_eq!((bench.rebuilt(), bench.rejected(), bench.decoder.held()), (vec![], 1, 0));
    }
}

#[test]
fn a_packet_longer_than_any_can_be_spoils_its_own_groups_alone() {
    let (fec, first) = (fec("fec,cols:4"), 0);
    let mut wire = wire(&fec, first, 8);
    // The third of the first row; the second of each row is lost.
    wire[2].resize(HEADER_LEN + PAYLOAD_MAX + 1, 7);
    let mut bench = Bench::new(&fec, first);
    for bytes in wire {
        let header = header(&bytes);
        if header.message_number == 0 || header.sequence.get() % 4 != 1 {
            bench.receive(&bytes);
        }
    }
    assert_eq!(bench.rebuilt(), [5]);
}

#[test]
fn after_a_jump_it_begins_anew() {
    let (fec, first) = (fec("fec,cols:5,rows:3"), 0);
    let mut bench = Bench::new(&fec, first);
    let wire = wire(&fec, first, 4_000);
    let number = |bytes: &[u8]| header(bytes).sequence.get();
    for bytes in wire.iter().filter(|bytes| number(bytes) < 40 && ![31, 32].contains(&number(bytes))) {
        bench.receive(bytes);
    }
    assert_eq!(bench.rebuilt(), [31, 32]);
    bench.decoder.restart(3_000);
    assert_eq!(bench.decoder.held(), 0);
    for bytes in wire.iter().filter(|bytes| number(bytes) >= 3_000 && number(bytes) != 3_047) {
        bench.receive(bytes);
    }
    // Of a column that began before the jump one packet is missing.
    assert_eq!(bench.rebuilt(), [31, 32, 2_997, 3_047]);
}

#[test]
fn whatever_is_agreed_on_the_sums_take_less_than_a_megabyte() {
    let most = Decoder::memory_max();
    assert!((500_000..1_000_000).contains(&most), "{most}");
    for text in ["fec,cols:128,rows:8", "fec,cols:8,rows:128", "fec,cols:32,rows:-32", "fec,cols:2", "fec,cols:128"] {
        let sums = Decoder::groups_max(&fec(text)) * PAYLOAD_MAX;
        assert!(sums < most, "{text}: {sums} of {most}");
    }
}

/// A decoder that keeps everything and adds up nothing: which packets can be known.
struct Model {
    geometry: Geometry,
    rows_kept: u64,
    newest_row: u64,
    present: BTreeSet<u64>,
    controls: BTreeSet<(u64, u64)>,
    rebuilt: BTreeSet<u64>,
}

impl Model {
    fn new(fec: &Fec) -> Self {
        let geometry = Geometry::new(fec);
        let rows_kept =
            (3 * geometry.rows).max(128_u64.div_ceil(geometry.cols)).div_ceil(geometry.rows) * geometry.rows;
        Self {
            geometry,
            rows_kept,
            newest_row: 0,
            present: BTreeSet::new(),
            controls: BTreeSet::new(),
            rebuilt: BTreeSet::new(),
        }
    }

    fn key(group: Group) -> (u64, u64) {
        match group {
            Group::Row(row) => (u64::MAX, row),
            Group::Column { column, series } => (column, series),
        }
    }

    fn is_alive(&self, group: Group) -> bool {
        let row = self.geometry.first(group) / self.geometry.cols;
        row + self.rows_kept > self.newest_row && row <= self.newest_row + self.geometry.rows
    }

    fn receive(&mut self, offset: u64, index: Option<u8>) {
        match index {
            None if offset / self.geometry.cols + self.rows_kept > self.newest_row => {
                self.newest_row = self.newest_row.max(offset / self.geometry.cols);
                self.present.insert(offset);
            }
            None => {}
            Some(index) => {
                let group = match self.geometry.column(offset) {
                    Some((column, series, _)) if index != ROW_INDEX => Group::Column { column, series },
                    _ => Group::Row(self.geometry.row(offset)),
                };
                if self.is_alive(group) {
                    self.controls.insert(Self::key(group));
                }
            }
        }
        loop {
            let before = self.present.len();
            for &(column, number) in &self.controls {
                let group =
                    if column == u64::MAX { Group::Row(number) } else { Group::Column { column, series: number } };
                let missing: Vec<u64> = self.geometry.members(group).filter(|it| !self.present.contains(it)).collect();
                if let ([missing], true) = (&missing[..], self.is_alive(group)) {
                    self.present.insert(*missing);
                    self.rebuilt.insert(*missing);
                }
            }
            if self.present.len() == before {
                return;
            }
        }
    }
}

fn any_fec() -> impl Strategy<Value = Fec> {
    let arq = prop_oneof![Just(ArqLevel::Always), Just(ArqLevel::OnRequest), Just(ArqLevel::Never)];
    let layout = prop_oneof![Just(Layout::Even), Just(Layout::Staircase)];
    (2_u16..14, 1_u16..9, any::<bool>(), layout, arq).prop_map(|(cols, rows, has_rows, layout, arq)| Fec {
        cols,
        rows,
        has_rows: has_rows || rows == 1,
        layout,
        arq,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_the_geometry_can_rebuild_is_rebuilt(
        fec in any_fec(),
        first in prop_oneof![Just(0_u64), Just(0x7fff_ff80)],
        per_mille in prop_oneof![Just(0_u32), Just(20), Just(100), Just(300)],
        burst in 1_usize..12,
        reorder in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut random = seed | 1;
        let mut below = move |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        let mut arrivals: Vec<Vec<u8>> = Vec::new();
        let mut bad = 0;
        for bytes in wire(&fec, first, 600) {
            if bad == 0 && below(1_000) < u64::from(per_mille) / burst as u64 {
                bad = 1 + below(burst as u64 * 2);
            }
            if bad > 0 {
                bad -= 1;
                continue;
            }
            if reorder && below(20) == 0 && arrivals.len() > 4 {
                arrivals.insert(arrivals.len() - 1 - below(4) as usize, bytes);
            } else {
                if below(50) == 0 {
                    arrivals.push(bytes.clone());
                }
                arrivals.push(bytes);
            }
        }
        let (mut bench, mut model) = (Bench::new(&fec, first), Model::new(&fec));
        for bytes in &arrivals {
            let header = header(bytes);
            let offset = header.sequence.distance(SequenceNumber::new(first)) as u64;
            model.receive(offset, (header.message_number == 0).then(|| bytes[HEADER_LEN]));
            bench.receive(bytes);
        }
        prop_assert_eq!(bench.rebuilt(), model.rebuilt.iter().copied().collect::<Vec<_>>());
        for (sequence, rebuilt) in &bench.rebuilt {
            prop_assert_eq!(rebuilt, &sent(*sequence, &payload(*sequence)));
        }
        prop_assert_eq!(bench.statistics.pkt_rcv_filter_supply, bench.rebuilt.len() as u64);
        // Whatever is missing and behind all groups that could have brought it was given up, and nothing that is there.
        let given_up: BTreeSet<u64> = bench.given_up().into_iter().flat_map(|(from, to)| from..to).collect();
        let matrix = bench.geometry.matrix();
        let newest = model.present.last().copied().unwrap_or(0);
        for offset in (0..newest).filter(|offset| offset + 3 * matrix < newest && !model.present.contains(offset)) {
            prop_assert!(given_up.contains(&offset), "{} is missing", offset);
        }
        bench.decoder.clear();
        prop_assert_eq!(bench.pool.in_use(), 0);
    }
}
