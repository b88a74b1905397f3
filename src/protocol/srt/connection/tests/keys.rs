//! Keys that the peer changes without our hearing of it.

use super::*;

#[test]
fn what_comes_under_a_third_key_that_was_never_heard_of_is_counted_and_not_taken_for_media_under_the_first() {
    let refresh = KeyRefresh { after_packets: 200, announce_packets: 20 };
    let (mut sending, receiving) = keys(Cipher::AesCtr, refresh);
    let mut bench = bench_with(Limits { receive_buffer_packets: 64, ..Limits::default() }, Some(receiving));
    let mut taken = 0;
    // No more under the third than there is room for, so that each is looked at.
    for index in 0..450 {
        let now = at(4 * index);
        let (header, payload) = sealed(&mut sending, data(index, 4 * index), b"in the clear");
        bench.put_data(now, &header, &payload);
        if let Some(request) = sending.poll_request(now, Duration::ZERO).map(<[u8]>::to_vec) {
            // Of the third key the peer hears that it has arrived.
            if index < 200 {
                bench.control(now, |to, buffer| to.key_material_request(buffer, &request));
            }
            sending.receive_response(&request);
        }
        for (_, _, payload) in bench.payloads(now) {
            assert_eq!(payload, b"in the clear");
            taken += 1;
        }
    }
    taken += bench.payloads(at(4_000)).len();
    assert_eq!((taken, bench.count().pkt_rcv_undecrypt), (400, 50));
}
