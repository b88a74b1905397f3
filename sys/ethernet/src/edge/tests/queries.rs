//! Queries of IGMP and MLD: which are answered, and when.

use super::*;

/// A host that has joined a group of each version, long ago.
fn member() -> Edge {
    let mut edge = host();
    for group in ["239.1.2.3", "ff15::77"] {
        edge.join(10 * SECOND, at(group), Sources::Any).unwrap();
    }
    for second in 10..13 {
        edge.handle_timeout(second * SECOND);
        sent(&mut edge);
    }
    edge
}

/// What a member makes of a query: the counter that it is in, and how many groups it reports within 10 s.
fn asked(query: &[u8]) -> (&'static str, usize) {
    let mut edge = member();
    let before = edge.statistics();
    edge.receive(20 * SECOND, query);
    let after = edge.statistics();
    edge.handle_timeout(30 * SECOND);
    let counters = [
        ("served", after.served - before.served),
        ("other", after.other_protocol - before.other_protocol),
        ("source", after.source - before.source),
        ("malformed", after.malformed - before.malformed),
        ("checksum", after.checksum - before.checksum),
        ("not ours", after.not_ours - before.not_ours),
    ];
    let [(counter, 1)] = counters.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>()[..] else {
        panic!("{counters:?}")
    };
    (counter, sent(&mut edge).len())
}

const ALL_HOSTS_MAC: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];
const ALERT_V4: &[u8] = &[0x94, 4, 0, 0];

/// A query of IGMP with its checksums.
fn igmp(to_mac: [u8; 6], (from, to): (&str, &str), ttl: u8, options: &[u8], mut body: Vec<u8>) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let checksum = |bytes: &[u8]| (!frame::fold(frame::sum(bytes))).to_ne_bytes();
    let checksum_of_body = checksum(&body);
    body[2..4].copy_from_slice(&checksum_of_body);
    let length = 20 + options.len();
    let mut packet = vec![0x40 | (length / 4) as u8, 0xc0, 0, (length + body.len()) as u8, 0, 0, 0, 0, ttl, 2, 0, 0];
    packet.extend([&octets(from)[..], &octets(to), options].concat());
    let checksum_of_header = checksum(&packet);
    packet[10..12].copy_from_slice(&checksum_of_header);
    packet.extend(body);
    frame(to_mac, OTHER_MAC, 0x0800, &packet)
}

#[test]
fn an_igmp_query_that_may_have_been_forged_from_afar_is_not_answered() {
    const ROUTER: (&str, &str) = ("192.0.2.254", "224.0.0.1");
    const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];
    // To be answered within a second; of IGMPv1 within ten.
    let v1 = || hex("1100 0000 00000000");
    let v2 = || hex("110a 0000 00000000");
    let v3 = || hex("110a 0000 00000000 027d 0000");
    let for_group = |length: usize| hex("110a 0000 ef010203 027d 0000")[..length].to_vec();
    let taken = ("served", 1);
    for body in [v1(), v2(), v3()] {
        let asked = |to_mac, way, ttl, options| asked(&igmp(to_mac, way, ttl, options, body.clone()));
        let is_v1 = body == v1();
        assert_eq!(asked(ALL_HOSTS_MAC, ROUTER, 1, ALERT_V4), taken);
        assert_eq!(asked(ALL_HOSTS_MAC, ("0.0.0.0", "224.0.0.1"), 1, ALERT_V4), taken, "a switch without an address");
        assert_eq!(asked(ALL_HOSTS_MAC, ROUTER, 1, &[1, 1, 1, 1, 0x94, 4, 0, 0]), taken, "behind another option");
        let without = if is_v1 { taken } else { ("other", 0) };
        for options in [&[][..], &[1; 4], &[0x94, 4, 0, 1], &[0, 0, 0, 0, 0x94, 4, 0, 0], &[7, 1, 1, 1]] {
            assert_eq!(asked(ALL_HOSTS_MAC, ROUTER, 1, options), without, "without a router alert: {options:?}");
        }
        for ttl in [0, 2, 64, 255] {
            assert_eq!(asked(ALL_HOSTS_MAC, ROUTER, ttl, ALERT_V4), ("other", 0), "from behind a router");
        }
        assert_eq!(asked(ALL_HOSTS_MAC, ("198.51.100.1", "224.0.0.1"), 1, ALERT_V4), ("source", 0), "another link's");
        assert_eq!(asked(MAC, ROUTER, 1, ALERT_V4), ("other", 0), "to us alone on the link");
        assert_eq!(asked(ALL_HOSTS_MAC, ("192.0.2.254", "192.0.2.1"), 1, ALERT_V4), ("other", 0), "to us alone");
        assert_eq!(asked(GROUP_MAC, ("192.0.2.254", "239.1.2.3"), 1, ALERT_V4), ("other", 0), "all, at one group");
    }
    for length in [8, 12] {
        let way = ("192.0.2.254", "239.1.2.3");
        assert_eq!(asked(&igmp(GROUP_MAC, way, 1, ALERT_V4, for_group(length))), taken);
        assert_eq!(asked(&igmp(GROUP_MAC, way, 1, &[], for_group(length))), ("other", 0));
    }
    for length in 9..12 {
        let cut = igmp(ALL_HOSTS_MAC, ROUTER, 1, ALERT_V4, v3()[..length].to_vec());
        assert_eq!(asked(&cut), ("malformed", 0), "of no version: {length} bytes");
    }
}

#[test]
fn the_querier_is_taken_for_an_old_one_by_its_general_queries_alone() {
    let report_after = |to_mac, to, body: &str| {
        let mut edge = member();
        edge.receive(20 * SECOND, &igmp(to_mac, ("192.0.2.254", to), 1, ALERT_V4, hex(body)));
        edge.handle_timeout(30 * SECOND);
        sent(&mut edge).pop().expect("a report")[38]
    };
    assert_eq!(report_after(ALL_HOSTS_MAC, "224.0.0.1", "110a 0000 00000000 027d 0000"), 0x22);
    assert_eq!(report_after(ALL_HOSTS_MAC, "224.0.0.1", "110a 0000 00000000"), 0x16);
    assert_eq!(report_after(ALL_HOSTS_MAC, "224.0.0.1", "1100 0000 00000000"), 0x16);
    assert_eq!(report_after([1, 0, 0x5e, 1, 2, 3], "239.1.2.3", "110a 0000 ef010203"), 0x22);
}

#[test]
fn an_mld_query_is_answered_for_all_groups() {
    let mut edge = host();
    // A general query of MLDv2 with a router alert, from fe80::7, to be answered within a second.
    let addresses = "fe800000000000000000000000000007 ff020000000000000000000000000001";
    let query = format!(
        "60000000 0024 00 01 {addresses} 3a00 0502 0000 0100 8200 7c35 03e8 0000 {} 0000 0000",
        "00".repeat(16)
    );
    edge.receive(20 * SECOND, &frame([0x33, 0x33, 0, 0, 0, 1], OTHER_MAC, 0x86dd, &hex(&query)));
    assert_eq!((edge.statistics().served, edge.statistics().checksum), (1, 0));
    edge.handle_timeout(21 * SECOND);
    let answers = sent(&mut edge);
    assert_eq!(answers.iter().map(|it| (it[62], it[70])).collect::<Vec<_>>(), [(143, 2)]);
}

#[test]
fn an_mld_query_that_may_have_been_forged_from_afar_is_not_answered() {
    const ALERT: &[u8] = &[58, 0, 5, 2, 0, 0, 1, 0];
    const PAD: &[u8] = &[58, 0, 1, 4, 0, 0, 0, 0];
    // To be answered within a second; our own address has a group, too.
    let v1 = || hex(&format!("8200 0000 03e8 0000 {}", "00".repeat(16)));
    let v2 = || [v1(), vec![2, 125, 0, 0]].concat();
    let asked = |from, to: &str, hops, between, body| asked(&icmpv6((from, to.parse().unwrap()), hops, between, body));
    for body in [v1(), v2()] {
        let asked = |from, to, hops, between| asked(from, to, hops, between, body.clone());
        assert_eq!(asked("fe80::fe", "ff02::1", 1, ALERT), ("served", 2));
        assert_eq!(asked("fe80::fe", "2001:db8::1", 1, ALERT), ("served", 2), "to us alone (RFC 3810 §5.1.15)");
        assert_eq!(asked("fe80::fe", "ff02::1", 1, &[58, 0, 1, 0, 5, 2, 0, 0]), ("served", 2), "behind another option");
        for hops in [0, 2, 64, 255] {
            assert_eq!(asked("fe80::fe", "ff02::1", hops, ALERT), ("other", 0), "from behind a router");
        }
        assert_eq!(asked("fe80::fe", "ff02::1", 1, &[]), ("other", 0), "without a hop-by-hop header");
        assert_eq!(asked("fe80::fe", "ff02::1", 1, PAD), ("other", 0), "without a router alert");
        assert_eq!(asked("fe80::fe", "ff02::1", 1, &[58, 0, 5, 2, 0, 1, 1, 0]), ("other", 0), "for RSVP's sake");
        assert_eq!(asked("fe80::fe", "ff02::1", 1, &[58, 0, 0x45, 2, 0, 0, 1, 0]), ("other", 0), "to be dropped");
        assert_eq!(asked("fe80::fe", "ff02::1", 1, &[58, 0, 5, 2, 0, 0, 1, 9]), ("malformed", 0), "beyond the header");
        for from in ["2001:db8::fe", "::", "fd88::1"] {
            assert_eq!(asked(from, "ff02::1", 1, ALERT), ("source", 0), "{from}");
        }
    }
    for length in (4..24).chain(25..28) {
        assert_eq!(asked("fe80::fe", "ff02::1", 1, ALERT, v2()[..length].to_vec()), ("malformed", 0), "{length} bytes");
    }
    let mut for_group = v2();
    for_group[8..24].copy_from_slice(&hex("ff15 0000 0000 0000 0000 0000 0000 0077"));
    assert_eq!(asked("fe80::fe", "ff15::77", 1, ALERT, for_group), ("served", 1));
}

#[test]
fn the_time_for_an_answer_by_mld_is_that_of_the_version() {
    // 0xffff is 8,191 << 10 ms in MLDv2, and as many ms in MLDv1.
    let body = hex(&format!("8200 0000 ffff 0000 {} 027d 0000", "00".repeat(16)));
    let latest_ms = |length: usize| {
        let mut edge = member();
        let query = icmpv6(("fe80::fe", ALL_NODES), 1, &[58, 0, 5, 2, 0, 0, 1, 0], body[..length].to_vec());
        let mut draw = |now_ns: u64| {
            edge.receive(now_ns, &query);
            let due_ns = edge.next_timeout().expect("an answer") - now_ns;
            edge.handle_timeout(now_ns + 9_000 * SECOND);
            sent(&mut edge);
            due_ns / 1_000_000
        };
        (1..=100).map(|n| draw(n * 10_000 * SECOND)).max().expect("draws")
    };
    let (v1, v2) = (latest_ms(24), latest_ms(28));
    assert!((30_000..=65_535).contains(&v1) && (1_000_000..=8_387_584).contains(&v2), "{v1} and {v2} ms");
}
