use super::*;

/// A packet of this PID: continuity counter, PCR in 27 MHz, a PES header with PTS and DTS.
fn packet(pid: u16, counter: u8, pcr: Option<u64>, times: Option<(u64, u64)>) -> [u8; PACKET_LEN] {
    let mut packet = [0xaa; PACKET_LEN];
    let start = if times.is_some() { 0x40 } else { 0 };
    let adaptation = if pcr.is_some() { 0x20 } else { 0 };
    packet[..4].copy_from_slice(&[SYNC_BYTE, start | (pid >> 8) as u8, pid as u8, 0x10 | adaptation | counter]);
    let mut at = 4;
    if let Some(pcr) = pcr {
        packet[4..6].copy_from_slice(&[7, 0x10]);
        let bits = (pcr / 300) << 15 | 0x3f << 9 | (pcr % 300);
        packet[6..12].copy_from_slice(&bits.to_be_bytes()[2..]);
        at = 12;
    }
    if let Some((pts, dts)) = times {
        packet[at..at + 9].copy_from_slice(&[0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10]);
        for (field, prefix, time) in [(at + 9, 0x31, pts), (at + 14, 0x11, dts)] {
            packet[field..field + 5].copy_from_slice(&[prefix, 0, 1, 0, 1]);
            move_timestamp(&mut packet[field..], time);
        }
    }
    packet
}

fn pcr_of(packet: &[u8]) -> u64 {
    let bits = u64::from_be_bytes([0, 0, packet[6], packet[7], packet[8], packet[9], packet[10], packet[11]]);
    (bits >> 15) * 300 + (bits & 0x1ff)
}

/// Ten pictures of 40 ms, two packets each, and a null packet: 21 packets, three datagrams.
fn stream(first_counter: u8, first_tick: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for picture in 0..10_u64 {
        let ticks = (first_tick + picture * 3_600) & Wrapping::<33>::MASK;
        let counter = (u64::from(first_counter) + picture * 2) as u8 & 0x0f;
        let later = |ticks: u64| (ticks + 9_000) & Wrapping::<33>::MASK;
        bytes.extend(packet(0x100, counter, Some(ticks * 300 + 7), Some((later(ticks) + 3_600, later(ticks)))));
        bytes.extend(packet(0x100, (counter + 1) & 0x0f, None, None));
    }
    bytes.extend(packet(NULL_PID, 0, None, None));
    bytes
}

fn take_all(material: &Material, rounds: u64) -> (Vec<u8>, Vec<u64>) {
    let (mut cursor, mut datagram) = (Cursor::new(), [0; DATAGRAM_LEN]);
    let (mut bytes, mut due) = (Vec::new(), Vec::new());
    while cursor.rounds() < rounds {
        due.push(cursor.due_ns(material));
        let length = cursor.take(material, &mut datagram);
        bytes.extend_from_slice(&datagram[..length]);
    }
    (bytes, due)
}

#[test]
fn the_first_round_is_the_file_itself() {
    let bytes = stream(3, 1_000);
    let material = Material::new(bytes.clone(), Pace::Clock).unwrap();
    assert_eq!(take_all(&material, 1).0, bytes);
    assert_eq!((material.len(), material.datagrams()), (bytes.len(), 3));
}

#[test]
fn a_second_round_goes_on_where_the_first_ended() {
    // Near the wrap of 33 bits, and with counters that do not end where they began.
    let first_tick = (1 << 33) - 50_000;
    let material = Material::new(stream(3, first_tick), Pace::Clock).unwrap();
    let (bytes, _) = take_all(&material, 3);
    let mut counter = 3;
    let mut ticks = first_tick;
    for (number, packet) in bytes.chunks(PACKET_LEN).filter(|packet| packet[1] & 0x1f != 0x1f).enumerate() {
        assert_eq!(packet[3] & 0x0f, counter, "packet {number}");
        counter = (counter + 1) & 0x0f;
        if number % 2 == 0 {
            let wrapped = ticks & Wrapping::<33>::MASK;
            assert_eq!(pcr_of(packet), wrapped * 300 + 7);
            assert_eq!(read_timestamp(&packet[21..]), (ticks + 12_600) & Wrapping::<33>::MASK);
            assert_eq!(read_timestamp(&packet[26..]), (ticks + 9_000) & Wrapping::<33>::MASK);
            assert_eq!((packet[21] & 0xf1, packet[26] & 0xf1), (0x31, 0x11), "prefix and marker bits stay");
            ticks += 3_600;
        }
    }
}

#[test]
fn packets_are_due_as_the_clock_says() {
    let material = Material::new(stream(0, 0), Pace::Clock).unwrap();
    assert_eq!(material.period_ns(), 400_000_000);
    let (_, due) = take_all(&material, 2);
    // Two packets in 40 ms: a datagram each 140 ms.
    assert_eq!(due, [0, 140_000_000, 280_000_000, 400_000_000, 540_000_000, 680_000_000]);
}

#[test]
fn a_rate_makes_datagrams_due_evenly() {
    let rate = (DATAGRAM_LEN * 8 * 1_000) as u64;
    let material = Material::new(stream(0, 0), Pace::Rate(rate)).unwrap();
    let (_, due) = take_all(&material, 2);
    assert_eq!(due, [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]);
    assert!((material.rate_bps() - rate as f64).abs() < 1.0);
}

#[test]
fn the_rest_of_a_round_is_a_shorter_datagram() {
    let mut bytes = stream(0, 0);
    bytes.truncate(16 * PACKET_LEN);
    let material = Material::new(bytes.clone(), Pace::Clock).unwrap();
    let (mut cursor, mut datagram) = (Cursor::new(), [0; DATAGRAM_LEN]);
    let lengths: Vec<usize> = (0..4).map(|_| cursor.take(&material, &mut datagram)).collect();
    assert_eq!(lengths, [DATAGRAM_LEN, DATAGRAM_LEN, 2 * PACKET_LEN, DATAGRAM_LEN]);
    assert_eq!((cursor.rounds(), cursor.taken(&material)), (1, 4));
}

#[test]
fn a_stream_without_clock_needs_a_rate() {
    let bytes: Vec<u8> = (0..10).flat_map(|n| packet(0x100, n, None, None)).collect();
    assert!(matches!(Material::new(bytes.clone(), Pace::Clock), Err(MaterialError::NoClock)));
    assert!(Material::new(bytes, Pace::Rate(1_000_000)).is_ok());
}

#[test]
fn packets_are_found_behind_rubbish_and_between_other_bytes() {
    let plain = stream(0, 0);
    let mut led_in = b"rubbish\x47".to_vec();
    led_in.extend(&plain);
    assert_eq!(packets_of(&led_in), Some(plain.clone()));
    for (before, stride) in [(4, 192), (0, 204)] {
        let mut spaced = Vec::new();
        for packet in plain.chunks(PACKET_LEN) {
            spaced.extend(std::iter::repeat_n(9, before));
            spaced.extend(packet);
            spaced.extend(std::iter::repeat_n(9, stride - PACKET_LEN - before));
        }
        assert_eq!(packets_of(&spaced), Some(plain.clone()), "{stride}");
    }
    assert_eq!(packets_of(&plain[..PACKET_LEN]), Some(plain[..PACKET_LEN].to_vec()));
    assert_eq!(packets_of(b"no transport stream"), None);
    assert_eq!(packets_of(&[0x47; 100]), None);
    assert_eq!(packets_of(&[]), None);
}

#[test]
fn a_clock_that_jumps_is_followed_at_the_rate_before() {
    let mut bytes = stream(0, 0);
    bytes.truncate(20 * PACKET_LEN);
    bytes.extend(stream(4, 77_000_000));
    let material = Material::new(bytes, Pace::Clock).unwrap();
    let (_, due) = take_all(&material, 1);
    assert!(due.windows(2).all(|pair| pair[1] > pair[0] && pair[1] - pair[0] < 200_000_000), "{due:?}");
}

#[test]
fn a_feed_can_end_where_pictures_and_sound_are_whole_and_show_it() {
    let start = |pid| packet(pid, 0, None, Some((0, 0)));
    let middle = |pid| packet(pid, 0, None, None);
    // Stuffing, as before the last bytes of a PES packet.
    let last = |pid| packet(pid, 0, Some(0), None);
    let (video, audio) = (0x100, 0x101);
    let bytes = [
        start(video),
        start(audio),
        last(video),
        last(audio),
        packet(NULL_PID, 0, None, None),
        start(video),
        middle(video),
        // Its last packet is filled to the end: nothing shows that it is one.
        start(video),
        last(video),
        start(audio),
    ];
    assert_eq!(clean_ends(bytes.as_flattened(), &Survey::of(bytes.as_flattened()).tracks), [0, 4, 9]);
    let material = Material::new(bytes.concat(), Pace::Rate(1_000_000)).unwrap();
    let (mut cursor, mut datagram) = (Cursor::new(), [0; DATAGRAM_LEN]);
    assert_eq!(cursor.clean_end(&material), Some(0));
    cursor.take(&material, &mut datagram);
    assert_eq!(cursor.clean_end(&material), Some(2 * PACKET_LEN));
    cursor.take(&material, &mut datagram);
    assert_eq!((cursor.rounds(), cursor.clean_end(&material)), (1, Some(0)));
}

#[test]
fn pes_packets_are_counted_from_the_bytes_that_were_sent() {
    let bytes =
        [packet(0x100, 0, None, Some((0, 0))), packet(0x100, 1, None, None), packet(0x100, 2, None, Some((3_600, 0)))];
    let material = Material::new(bytes.concat(), Pace::Rate(1_000_000)).unwrap();
    let counts = [0, 1, 2, 3, 4, 5, 6].map(|packets| material.pes_packets(packets * PACKET_LEN as u64).video);
    assert_eq!(counts, [0, 1, 1, 2, 3, 3, 4]);
    assert_eq!(material.pes_packets(6 * PACKET_LEN as u64).audio, 0);
}
