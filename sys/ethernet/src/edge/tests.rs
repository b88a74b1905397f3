//! The edge against another one like it, and against frames written out by hand.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

mod queries;

const SECOND: u64 = 1_000_000_000;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const ALL: [u8; 6] = [0xff; 6];

fn at(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn options(mac: [u8; 6], addresses: &[(&str, u8)]) -> EdgeOptions {
    let addresses = addresses.iter().map(|(address, prefix)| (at(address), *prefix)).collect();
    EdgeOptions { mac, addresses, gateways: Vec::new(), vlan: None, mtu: 1_500, interface: 9 }
}

/// A host that has said what a host says when it comes up.
fn host_with(options: EdgeOptions) -> Edge {
    let mut edge = Edge::new(0, options).unwrap();
    for second in 0..3 {
        edge.handle_timeout(second * SECOND);
        sent(&mut edge);
    }
    edge
}

fn host() -> Edge {
    host_with(options(MAC, &[("192.0.2.1", 24), ("2001:db8::1", 64)]))
}

fn other() -> Edge {
    host_with(options(OTHER_MAC, &[("192.0.2.7", 24), ("2001:db8::7", 64)]))
}

fn sent(edge: &mut Edge) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| edge.poll_transmit()).map(|(frame, _)| frame).collect()
}

/// What a host sends, brought to another; gives the datagrams that arrived there, with their payloads.
fn bring(now_ns: u64, from: &mut Edge, to: &mut Edge) -> Vec<(Datagram, Vec<u8>)> {
    let receive = |frame: Vec<u8>| {
        let datagram = to.receive(now_ns, &frame)?;
        let payload = frame[datagram.payload.clone()].to_vec();
        Some((datagram, payload))
    };
    sent(from).into_iter().filter_map(receive).collect()
}

fn send(edge: &mut Edge, now_ns: u64, to: &str, payload: &[u8]) -> Result<Sent, Refusal> {
    let outgoing = Outgoing { local: None, port: 30_000, to: to.parse().unwrap(), payload };
    edge.send(now_ns, outgoing, &mut [0; 1_600])
}

/// The bytes of a text of hexadecimal digits.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|it| u8::from_str_radix(std::str::from_utf8(it).unwrap(), 16).unwrap()).collect()
}

fn frame(to: [u8; 6], from: [u8; 6], ether_type: u16, packet: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ether_type.to_be_bytes(), packet].concat()
}

#[test]
fn two_hosts_find_each_other_and_what_waited_arrives_in_order() {
    for (to, from, local) in [
        ("192.0.2.7:5000", "192.0.2.1:30000", "192.0.2.7"),
        ("[2001:db8::7]:5000", "[2001:db8::1]:30000", "2001:db8::7"),
    ] {
        let (mut a, mut b) = (host(), other());
        for payload in [&b"first"[..], b"second"] {
            assert_eq!(send(&mut a, 5 * SECOND, to, payload), Ok(Sent::Waits));
        }
        assert!(bring(5 * SECOND, &mut a, &mut b).is_empty(), "a question");
        assert!(bring(5 * SECOND, &mut b, &mut a).is_empty(), "its answer");
        let arrived = bring(5 * SECOND, &mut a, &mut b);
        assert_eq!(arrived.iter().map(|it| &it.1[..]).collect::<Vec<_>>(), [&b"first"[..], b"second"]);
        for (datagram, _) in arrived {
            assert_eq!((datagram.peer, datagram.local, datagram.port), (from.parse().unwrap(), at(local), 5_000));
        }
        // Who was asked knows who asks.
        let answer = send(&mut b, 6 * SECOND, from, b"answer").unwrap();
        assert!(matches!(answer, Sent::Frame(60..)), "{answer:?}");
        assert_eq!((a.statistics().given_up, b.statistics().conflicts), (0, 0));
    }
}

#[test]
fn hosts_of_one_vlan_hear_each_other_and_no_one_else() {
    let tagged = |mac, address, vlan| host_with(EdgeOptions { vlan, ..options(mac, &[(address, 24)]) });
    let mut a = tagged(MAC, "192.0.2.1", Some(77));
    let mut b = tagged(OTHER_MAC, "192.0.2.7", Some(77));
    let mut of_another = tagged(OTHER_MAC, "192.0.2.7", Some(78));
    let mut of_none = tagged(OTHER_MAC, "192.0.2.7", None);
    send(&mut a, SECOND, "192.0.2.7:5000", b"tagged").unwrap();
    let question = sent(&mut a).pop().unwrap();
    assert_eq!(question[12..18], [0x81, 0, 0, 77, 8, 6]);
    for deaf in [&mut of_another, &mut of_none] {
        deaf.receive(SECOND, &question);
        assert_eq!((deaf.statistics().other_vlan, sent(deaf).len()), (1, 0));
    }
    b.receive(SECOND, &question);
    bring(SECOND, &mut b, &mut a);
    assert_eq!(bring(SECOND, &mut a, &mut b)[0].1, b"tagged");
    // A tag that only tells of a priority.
    let mut priority = frame(ALL, MAC, 0x8100, &hex("e000 0806"));
    priority.extend(hex("0001 0800 06 04 0001 020000000001 c0000201 000000000000 c0000207"));
    of_none.receive(SECOND, &priority);
    assert_eq!((of_none.statistics().served, sent(&mut of_none).len()), (1, 1));
}

#[test]
fn an_arp_request_for_an_address_of_ours_is_answered_and_none_else() {
    let request = |target: &str| {
        let packet = format!("0001 0800 06 04 0001 020000000007 c0000207 000000000000 {target}");
        frame(ALL, OTHER_MAC, 0x0806, &hex(&packet))
    };
    let mut edge = host();
    edge.receive(SECOND, &request("c0000202"));
    assert!(sent(&mut edge).is_empty());
    edge.receive(SECOND, &request("c0000201"));
    let mut reply = frame(OTHER_MAC, MAC, 0x0806, &[]);
    reply.extend(hex("0001 0800 06 04 0002 020000000001 c0000201 020000000007 c0000207"));
    reply.resize(60, 0);
    assert_eq!(sent(&mut edge), [reply]);
    // Somebody with our address, and somebody who is not of this link.
    for (sender, conflicts) in [("c0000201", 1), ("c6336401", 1)] {
        let packet = format!("0001 0800 06 04 0002 020000000007 {sender} 020000000001 c0000201");
        edge.receive(SECOND, &frame(MAC, OTHER_MAC, 0x0806, &hex(&packet)));
        assert_eq!(edge.statistics().conflicts, conflicts);
    }
    assert_eq!(edge.statistics().served, 4);
}

#[test]
fn a_conflict_is_told_with_both_ethernet_addresses_and_what_a_loop_brings_back_is_none() {
    let arp = |from: [u8; 6], sender: &str| {
        let mac: String = from.iter().map(|byte| format!("{byte:02x}")).collect();
        let packet = format!("0001 0800 06 04 0001 {mac} {sender} 000000000000 {sender}");
        frame(ALL, from, 0x0806, &hex(&packet))
    };
    let advertisement = |from: [u8; 6], option: Option<[u8; 6]>| {
        let mut body = hex("8800 0000 20 000000 20010db8000000000000000000000001");
        body.extend(option.into_iter().flat_map(|mac| [&[2, 1], &mac[..]].concat()));
        let mut advertisement = icmpv6(("2001:db8::1", ALL_NODES), 255, &[], body);
        advertisement[6..12].copy_from_slice(&from);
        advertisement
    };
    let conflict = |address: &str, other_mac| Some(Conflict { address: at(address), other_mac, own_mac: MAC });
    const THIRD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    let probe = icmpv6(
        ("::", solicited_node("2001:db8::1".parse().unwrap())),
        255,
        &[],
        hex("8700 0000 00 000000 20010db8000000000000000000000001"),
    );
    for (frame, expected) in [
        (arp(OTHER_MAC, "c0000201"), conflict("192.0.2.1", OTHER_MAC)),
        (arp(OTHER_MAC, "c0000207"), None),
        (arp(MAC, "c0000201"), None),
        (advertisement(OTHER_MAC, Some(THIRD_MAC)), conflict("2001:db8::1", THIRD_MAC)),
        (advertisement(OTHER_MAC, None), conflict("2001:db8::1", OTHER_MAC)),
        (advertisement(MAC, Some(MAC)), None),
        (probe, conflict("2001:db8::1", OTHER_MAC)),
    ] {
        let mut edge = host();
        edge.receive(SECOND, &frame);
        let counted = edge.statistics();
        assert_eq!((edge.poll_conflict(), edge.poll_conflict()), (expected, None));
        assert_eq!((counted.conflicts, counted.served), (u64::from(expected.is_some()), 1));
    }
    let mut edge = host();
    for from in [OTHER_MAC, THIRD_MAC] {
        edge.receive(SECOND, &arp(from, "c0000201"));
    }
    assert_eq!(
        (edge.poll_conflict(), edge.statistics().conflicts),
        (conflict("192.0.2.1", THIRD_MAC), 2),
        "the newest"
    );
}

#[test]
fn echo_requests_are_answered_with_their_own_data() {
    // 192.0.2.7 → 192.0.2.1, identifier 7, sequence 1, "echo".
    let v4 = hex("4500 0020 0000 4000 4001 b6d4 c0000207 c0000201 0800 2a25 0007 0001 6563686f");
    let mut edge = host();
    assert_eq!(edge.receive(0, &frame(MAC, OTHER_MAC, 0x0800, &v4)), None);
    let mut reply = frame(OTHER_MAC, MAC, 0x0800, &[]);
    reply.extend(hex("4500 0020 0000 4000 4001 b6d4 c0000201 c0000207 0000 3225 0007 0001 6563686f"));
    reply.resize(60, 0);
    assert_eq!(sent(&mut edge), [reply]);
    // [2001:db8::7] → [2001:db8::1].
    let addresses = "20010db8000000000000000000000007 20010db8000000000000000000000001";
    let v6 = hex(&format!("60000000 000c 3a 40 {addresses} 8000 5664 0007 0001 6563686f"));
    edge.receive(0, &frame(MAC, OTHER_MAC, 0x86dd, &v6));
    let reply = sent(&mut edge).pop().expect("an answer");
    assert_eq!(reply[..6], OTHER_MAC);
    assert_eq!(reply[54..66], hex("8100 5564 0007 0001 6563686f"));
    assert_eq!((edge.statistics().echoes, edge.statistics().served), (2, 2));
    // To a group, or from nobody: no answer.
    let mut to_all = v4.clone();
    to_all[16..20].copy_from_slice(&[224, 0, 0, 1]);
    edge.receive(0, &frame([1, 0, 0x5e, 0, 0, 1], OTHER_MAC, 0x0800, &to_all));
    assert_eq!((edge.statistics().other_protocol, sent(&mut edge).len()), (1, 0));
}

#[test]
fn a_neighbour_that_asks_is_answered_and_one_that_wants_our_address_is_told_that_it_is_taken() {
    let mut a = host();
    // Duplicate address detection (RFC 4862 §5.4.2): from nobody, to the group of the address.
    let target = "20010db8000000000000000000000001";
    let addresses = format!("{} ff0200000000000000000001ff000001", "00".repeat(16));
    let probe = hex(&format!("60000000 0018 3a ff {addresses} 8700 4ced 00000000 {target}"));
    a.receive(0, &frame([0x33, 0x33, 0xff, 0, 0, 1], OTHER_MAC, 0x86dd, &probe));
    let told = sent(&mut a).pop().expect("an answer");
    assert_eq!(told[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(told[54], 136);
    assert_eq!(told[58], 0x20, "unsolicited, to override");
    assert_eq!(told[62..78], hex(target));
    assert_eq!(a.statistics().conflicts, 1);
    // One that has crossed a router is not of this link (RFC 4861 §7.1.1).
    let mut from_afar = probe.clone();
    from_afar[7] = 254;
    a.receive(0, &frame([0x33, 0x33, 0xff, 0, 0, 1], OTHER_MAC, 0x86dd, &from_afar));
    assert_eq!((a.statistics().other_protocol, sent(&mut a).len()), (1, 0));
}

/// An advertisement by fe80::7 of 2001:db8::7, with these flags and Ethernet address.
fn advertisement(to: &str, flags: u8, mac: Option<[u8; 6]>) -> Vec<u8> {
    let IpAddr::V6(to) = at(to) else { panic!("{to} is of IPv6") };
    let mut body = hex(&format!("8800 0000 {flags:02x} 000000 20010db8000000000000000000000007"));
    body.extend(mac.into_iter().flat_map(|mac| [&[2, 1], &mac[..]].concat()));
    icmpv6(("fe80::7", to), 255, &[], body)
}

/// An ICMPv6 message with its checksum, which is worked out here, behind an extension header.
fn icmpv6((from, to): (&str, Ipv6Addr), hops: u8, between: &[u8], mut body: Vec<u8>) -> Vec<u8> {
    let IpAddr::V6(from) = at(from) else { panic!("{from} is of IPv6") };
    let addresses = [from.octets(), to.octets()].concat();
    let length = (body.len() as u16).to_be_bytes();
    let checksum =
        !frame::fold(frame::sum(&addresses) + frame::sum(&length) + frame::sum(&[0, 58]) + frame::sum(&body));
    body[2..4].copy_from_slice(&checksum.to_ne_bytes());
    let length = ((between.len() + body.len()) as u16).to_be_bytes();
    let next = if between.is_empty() { 58 } else { 0 };
    let header = [&[0x60, 0, 0, 0], &length[..], &[next, hops]].concat();
    let packet = [&header, &addresses, between, &body].concat();
    let octets = to.octets();
    let to = if to.is_multicast() { [0x33, 0x33, octets[12], octets[13], octets[14], octets[15]] } else { MAC };
    frame(to, OTHER_MAC, 0x86dd, &packet)
}

#[test]
fn an_advertisement_without_the_override_flag_does_not_redirect_a_neighbour() {
    const THIRD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    let goes_to = |advertised: &[Vec<u8>]| {
        let mut edge = host();
        edge.neighbours.heard(10 * SECOND, at("2001:db8::7"), OTHER_MAC, true);
        let served = edge.statistics().served;
        for frame in advertised {
            edge.receive(11 * SECOND, frame);
        }
        let mut datagram = [0; 1_600];
        let to = "[2001:db8::7]:5000".parse().unwrap();
        let outgoing = Outgoing { local: None, port: 30_000, to, payload: b"x" };
        assert!(matches!(edge.send(12 * SECOND, outgoing, &mut datagram), Ok(Sent::Frame(_))));
        edge.handle_timeout(12 * SECOND);
        (mac_at(&datagram, 0), edge.statistics().served - served, sent(&mut edge).len())
    };
    let solicited = |flags, mac| advertisement("2001:db8::1", SOLICITED | flags, mac);
    let to_all = |flags, mac| advertisement("ff02::1", flags, mac);
    assert_eq!(goes_to(&[solicited(0, Some(THIRD_MAC))]), (OTHER_MAC, 1, 1), "and is asked again");
    assert_eq!(goes_to(&[to_all(0, Some(THIRD_MAC))]), (OTHER_MAC, 1, 1), "and is asked again");
    assert_eq!(goes_to(&[solicited(OVERRIDE, Some(THIRD_MAC))]), (THIRD_MAC, 1, 0));
    assert_eq!(goes_to(&[to_all(OVERRIDE, Some(THIRD_MAC))]), (THIRD_MAC, 1, 1), "and is asked whether it hears");
    assert_eq!(goes_to(&[to_all(0, Some(THIRD_MAC)), solicited(OVERRIDE, None)]), (OTHER_MAC, 2, 0), "it is there");
    assert_eq!(goes_to(&[to_all(SOLICITED | OVERRIDE, Some(THIRD_MAC))]), (OTHER_MAC, 0, 0), "an answer to nobody");
    assert_eq!(goes_to(&[solicited(OVERRIDE, Some([0x33, 0x33, 0, 0, 0, 1]))]), (OTHER_MAC, 0, 0), "a group");
}

#[test]
fn what_is_for_nobody_here_goes_to_the_gateway_or_nowhere() {
    let mut lonely = host();
    for to in ["198.51.100.1:5000", "[2001:db8:1::1]:5000", "192.0.2.1:5000", "0.0.0.0:5000", "127.0.0.1:5000"] {
        assert_eq!(send(&mut lonely, SECOND, to, b"x"), Err(Refusal::Unreachable), "{to}");
    }
    for to in ["255.255.255.255:5000", "192.0.2.255:5000"] {
        assert_eq!(send(&mut lonely, SECOND, to, b"x"), Err(Refusal::Denied), "{to}");
    }
    assert_eq!(send(&mut lonely, SECOND, "192.0.2.7:5000", &[0; 1_473]), Err(Refusal::TooLong));
    let mut frame = [0; 1_600];
    let foreign =
        Outgoing { local: Some(at("203.0.113.7")), port: 1, to: "192.0.2.7:5000".parse().unwrap(), payload: b"x" };
    assert_eq!(lonely.send(SECOND, foreign, &mut frame), Err(Refusal::Unreachable));
    assert!(sent(&mut lonely).is_empty());

    let with_gateway = EdgeOptions { gateways: vec![at("192.0.2.7")], ..options(MAC, &[("192.0.2.1", 24)]) };
    let (mut edge, mut gateway) = (host_with(with_gateway), other());
    send(&mut edge, SECOND, "198.51.100.1:5000", b"far").unwrap();
    bring(SECOND, &mut edge, &mut gateway);
    bring(SECOND, &mut gateway, &mut edge);
    let on_its_way = sent(&mut edge).pop().expect("a datagram");
    assert_eq!((&on_its_way[..6], &on_its_way[30..34]), (&OTHER_MAC[..], &[198, 51, 100, 1][..]));
}

#[test]
fn a_datagram_to_a_group_needs_no_neighbour() {
    let mut edge = host();
    let mut frame = [0; 1_600];
    let to: SocketAddr = "239.1.2.3:5000".parse().unwrap();
    let outgoing = Outgoing { local: None, port: 30_000, to, payload: b"x" };
    assert_eq!(edge.send(0, outgoing, &mut frame), Ok(Sent::Frame(60)));
    assert_eq!((&frame[..6], &frame[26..34]), (&[1, 0, 0x5e, 1, 2, 3][..], &[192, 0, 2, 1, 239, 1, 2, 3][..]));
}

#[test]
fn a_host_that_comes_up_tells_its_link_and_joins_what_neighbours_ask_by() {
    let mut edge = Edge::new(0, options(MAC, &[("192.0.2.1", 24), ("2001:db8::1", 64)])).unwrap();
    edge.handle_timeout(SECOND);
    let frames = sent(&mut edge);
    let kinds: Vec<_> = frames.iter().map(|it| (u16_at(it, 12), it[..6].to_vec())).collect();
    let all_nodes = vec![0x33, 0x33, 0, 0, 0, 1];
    let routers = vec![0x33, 0x33, 0, 0, 0, 0x16];
    assert_eq!(kinds[..3], [(0x0806, ALL.to_vec()), (0x86dd, all_nodes.clone()), (0x86dd, all_nodes)]);
    assert_eq!(frames[0][28..32], [192, 0, 2, 1], "from and for itself");
    assert_eq!(frames[0][38..42], [192, 0, 2, 1]);
    // The one group of both IPv6 addresses, which end in the same three bytes.
    assert_eq!(kinds[3..], [(0x86dd, routers)]);
    let report = &frames[3];
    assert_eq!((report[20], report[21], &report[54..62]), (0, 1, &hex("3a00 0502 0000 0100")[..]));
    assert_eq!(report[22..38], hex("fe800000000000000000 00fffe00 0001")[..16]);
    let macs = edge.group_macs();
    for mac in [[1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, 0, 0, 1]] {
        assert!(macs.contains(&mac), "{mac:?}");
    }
}

#[test]
fn groups_are_taken_once_joined_reported_when_a_router_asks_and_left() {
    let mut sender = other();
    let mut to_group = [0; 100];
    let outgoing =
        Outgoing { local: None, port: 5_000, to: "239.1.2.3:6000".parse().unwrap(), payload: b"for all who listen" };
    let Ok(Sent::Frame(length)) = sender.send(0, outgoing, &mut to_group) else { panic!("a group has no neighbour") };
    let mut edge = host();
    assert_eq!(edge.receive(0, &to_group[..length]), None);
    assert_eq!(edge.statistics().not_ours, 1);
    edge.join(10 * SECOND, at("239.1.2.3"), Sources::Include(vec![at("192.0.2.7")])).unwrap();
    let datagram = edge.receive(10 * SECOND, &to_group[..length]).expect("it is one for us");
    assert_eq!((datagram.local, datagram.port), (at("239.1.2.3"), 6_000));

    let report = |record: u8| {
        // IPv4 with a router alert, to 224.0.0.22, then IGMPv3: one record, one source.
        let packet = format!("2200 0000 0000 0001 {record:02x} 00 0001 ef010203 c0000207");
        hex(&packet)
    };
    for (now_ns, record) in [(11 * SECOND, 5), (13 * SECOND, 5)] {
        edge.handle_timeout(now_ns);
        let frame = sent(&mut edge).pop().expect("a report");
        assert_eq!((&frame[..6], &frame[30..38]), (&hex("01005e000016")[..], &hex("e0000016 94040000")[..]));
        assert_eq!((frame[22], &frame[38..40], &frame[42..58]), (1, &report(record)[..2], &report(record)[4..20]));
    }
    assert_eq!(edge.next_timeout(), None);
    // A general query of IGMPv3 from 192.0.2.254, to be answered within a second.
    let query = hex("4600 0024 0000 0000 0102 81d4 c00002fe e0000001 94040000 110a eef5 00000000 0000 0000");
    edge.receive(20 * SECOND, &frame([1, 0, 0x5e, 0, 0, 1], OTHER_MAC, 0x0800, &query));
    edge.handle_timeout(21 * SECOND);
    assert_eq!(sent(&mut edge).pop().expect("an answer")[42..58], report(1)[4..20]);
    edge.leave_groups(30 * SECOND);
    let left = sent(&mut edge);
    assert!(left.iter().any(|it| it[42..58] == report(6)[4..20]), "the group's own sender is blocked");
}

#[test]
fn every_frame_that_is_dropped_is_counted_under_its_reason() {
    let mut sender = other();
    sender.neighbours.heard(0, at("192.0.2.1"), MAC, true);
    sender.neighbours.heard(0, at("2001:db8::1"), MAC, true);
    let mut datagram = |to: &str| {
        let mut frame = vec![0; 1_600];
        let outgoing = Outgoing { local: None, port: 5_000, to: to.parse().unwrap(), payload: b"payload" };
        let Ok(Sent::Frame(length)) = sender.send(0, outgoing, &mut frame) else { panic!("it is known where {to} is") };
        frame.truncate(length);
        frame
    };
    let (v4, v6) = (datagram("192.0.2.1:6000"), datagram("[2001:db8::1]:6000"));
    let changed = |frame: &[u8], at: usize, bytes: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    type Counter = fn(&EdgeStatistics) -> u64;
    let cases: &[(&str, Vec<u8>, Counter)] = &[
        ("sound", v4.clone(), |it| it.datagrams),
        ("sound", v6.clone(), |it| it.datagrams),
        ("short", v4[..17].to_vec(), |it| it.malformed),
        ("half a header", v4[..30].to_vec(), |it| it.malformed),
        ("half a header", v6[..50].to_vec(), |it| it.malformed),
        ("options", changed(&v4, 14, &[0x46]), |it| it.malformed),
        ("damaged", changed(&v4, 45, b"?"), |it| it.checksum),
        ("damaged", changed(&v6, 65, b"?"), |it| it.checksum),
        ("from a group", changed(&v4, 6, &[1]), |it| it.source),
        ("from a group", changed(&v6, 22, &[0xff]), |it| it.source),
        ("a first fragment", changed(&v4, 20, &[0x20, 0]), |it| it.fragments),
        ("a last fragment", changed(&v4, 20, &[0, 1]), |it| it.fragments),
        ("a fragment", changed(&v6, 20, &[44]), |it| it.fragments),
        ("another card's", changed(&v4, 5, &[9]), |it| it.not_ours),
        ("another host's", changed(&v4, 33, &[9]), |it| it.not_ours),
        ("another host's", changed(&v6, 53, &[9]), |it| it.not_ours),
        ("a broadcast", changed(&v4, 30, &[0xff; 4]), |it| it.not_ours),
        ("TCP", changed(&v4, 23, &[6]), |it| it.other_protocol),
        ("TCP", changed(&v6, 20, &[6]), |it| it.other_protocol),
        ("LLDP", changed(&v4, 12, &[0x88, 0xcc]), |it| it.other_protocol),
    ];
    for (what, frame, counter) in cases {
        let mut edge = host();
        let is_datagram = edge.receive(0, frame).is_some();
        let counted = edge.statistics();
        assert_eq!((counter(&counted), counted.frames(), is_datagram), (1, 1, *what == "sound"), "{what}: {counted:?}");
    }
}

#[test]
fn a_host_that_cannot_be_is_refused() {
    let of = |addresses: &[(&str, u8)]| Edge::new(0, options(MAC, addresses)).err();
    assert_eq!(of(&[]), Some(EdgeError::NoAddress));
    for (address, prefix) in
        [("0.0.0.0", 24), ("127.0.0.1", 8), ("224.0.0.1", 4), ("192.0.2.255", 24), ("192.0.2.1", 33), ("::1", 64)]
    {
        assert_eq!(of(&[(address, prefix)]), Some(EdgeError::Address(at(address), prefix)));
    }
    for (gateways, vlan, error) in [
        (vec![at("198.51.100.1")], None, EdgeError::Gateway(at("198.51.100.1"))),
        (vec![], Some(4_095), EdgeError::Vlan(4_095)),
        (vec![], Some(0), EdgeError::Vlan(0)),
    ] {
        let options = EdgeOptions { gateways, vlan, ..options(MAC, &[("192.0.2.1", 24)]) };
        assert_eq!(Edge::new(0, options).err(), Some(error));
    }
}

#[test]
fn a_prefix_ends_where_it_says() {
    for (address, own, prefix, expected) in [
        ("192.0.2.255", "192.0.2.1", 24, true),
        ("192.0.3.0", "192.0.2.1", 24, false),
        ("192.0.2.2", "192.0.2.1", 32, false),
        ("2001:db8::ffff", "2001:db8::1", 64, true),
        ("2001:db8:0:1::1", "2001:db8::1", 64, false),
        ("192.0.2.7", "2001:db8::1", 1, false),
    ] {
        assert_eq!(is_in(at(address), at(own), prefix), expected, "{address} {own}/{prefix}");
    }
}

#[test]
fn questions_without_end_are_answered_within_bounds() {
    let mut edge = host();
    let request =
        frame(ALL, OTHER_MAC, 0x0806, &hex("0001 0800 06 04 0001 020000000007 c0000207 000000000000 c0000201"));
    for _ in 0..1_000 {
        edge.receive(SECOND, &request);
    }
    assert_eq!((sent(&mut edge).len(), edge.statistics().unanswered), (ANSWERS_MAX, 1_000 - ANSWERS_MAX as u64));
}

#[test]
fn echoes_without_end_leave_room_for_other_answers() {
    let mut edge = host();
    let v4 = hex("4500 0020 0000 4000 4001 b6d4 c0000207 c0000201 0800 2a25 0007 0001 6563686f");
    let addresses = "20010db8000000000000000000000007 20010db8000000000000000000000001";
    let v6 = hex(&format!("60000000 000c 3a 40 {addresses} 8000 5664 0007 0001 6563686f"));
    for _ in 0..500 {
        edge.receive(SECOND, &frame(MAC, OTHER_MAC, 0x0800, &v4));
        edge.receive(SECOND, &frame(MAC, OTHER_MAC, 0x86dd, &v6));
    }
    let (max, counted) = (ECHOES_MAX as u64, edge.statistics());
    assert_eq!((counted.echoes, counted.unanswered, counted.served), (max, 1_000 - max, 1_000));
    let request =
        frame(ALL, OTHER_MAC, 0x0806, &hex("0001 0800 06 04 0001 020000000007 c0000207 000000000000 c0000201"));
    edge.receive(SECOND, &request);
    let last = sent(&mut edge).pop().expect("answers");
    assert_eq!((u16_at(&last, 12), u16_at(&last, 20)), (0x0806, 2), "a reply by ARP");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_frame_makes_it_panic_and_each_is_counted_once(
        kind in 0..7_usize,
        mut body in prop::collection::vec(any::<u8>(), 0..200),
        is_group: bool,
    ) {
        // Far enough in that more than the first look sees it.
        let (ether_type, start) = [
            (0x0806, "0001 0800 06 04"),
            (0x0800, "4500 0040 0000 0000 4001 0000 c0000207 c0000201"),
            (0x0800, "4600 0040 0000 0000 0102 0000 c00002fe e0000001"),
            (0x86dd, "60000000 0040 3a ff fe800000000000000000000000000007 20010db8000000000000000000000001"),
            (0x86dd, "60000000 0040 00 01 fe800000000000000000000000000007 ff020000000000000000000000000001"),
            (0x86dd, "60000000 0040 11 40 20010db8000000000000000000000007 20010db8000000000000000000000001"),
            (0x8100, "0000 0800"),
        ][kind];
        let start = hex(start);
        let len = start.len().min(body.len());
        body[..len].copy_from_slice(&start[..len]);
        let mut edge = host();
        let frame = frame(if is_group { ALL } else { MAC }, OTHER_MAC, ether_type, &body);
        if let Some(datagram) = edge.receive(SECOND, &frame) {
            prop_assert!(datagram.payload.end <= frame.len());
        }
        prop_assert_eq!(edge.statistics().frames(), 1);
        edge.handle_timeout(20 * SECOND);
        prop_assert!(sent(&mut edge).len() <= 8);
    }
}
