use super::*;
use proptest::prelude::*;

const SALT: [u8; SALT_LEN] =
    [0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96, 0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f];
const RTT: Duration = Duration::from_millis(30);
const QUICK: KeyRefresh = KeyRefresh { after_packets: 100, announce_packets: 20 };

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn kek(bytes: &[u8]) -> KeyEncryptingKey {
    KeyEncryptingKey(bytes.iter().copied().collect())
}

fn pair(length: KeyLength) -> (Encryption, Encryption) {
    let key = derive_key_encrypting_key(b"correct horse", &SALT, length);
    let (caller, message) = Encryption::initiate(key.clone(), SALT, [7; 32], QUICK);
    let listener = Encryption::accept(key, &message, [8; 32], QUICK).expect("the same passphrase");
    (caller, listener)
}

fn sequence(value: u64) -> SequenceNumber {
    SequenceNumber::new(value)
}

#[test]
fn keys_are_wrapped_as_rfc_3394_shows() {
    // §4.1, §4.4, §4.6: key, data, result.
    for (key, data, wrapped) in [
        (
            "000102030405060708090a0b0c0d0e0f",
            "00112233445566778899aabbccddeeff",
            "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5",
        ),
        (
            "000102030405060708090a0b0c0d0e0f1011121314151617",
            "00112233445566778899aabbccddeeff0001020304050607",
            "031d33264e15d33268f24ec260743edce1c6c7ddee725a936ba814915c6762d2",
        ),
        (
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
            "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f",
            "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21",
        ),
    ] {
        let (key, data, wrapped) = (kek(&hex(key)), hex(data), hex(wrapped));
        let mut out = vec![0; data.len() + 8];
        key.wrap(&data, &mut out);
        assert_eq!(out, wrapped);
        let mut back = vec![0; data.len()];
        assert_eq!(key.unwrap(&wrapped, &mut back), Some(()));
        assert_eq!(back, data);
        out[3] ^= 1;
        assert_eq!(key.unwrap(&out, &mut back), None);
    }
}

#[test]
fn pbkdf2_gives_the_figures_of_rfc_6070() {
    for (iterations, expected) in [
        (1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
        (2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"),
        (4096, "4b007901b765489abead49d926f721d065a429c1"),
    ] {
        let mut key = [0; 20];
        let iterations = NonZeroU32::new(iterations).expect("not zero");
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, iterations, b"salt", b"password", &mut key);
        assert_eq!(key[..], hex(expected));
    }
}

#[test]
fn the_key_encrypting_key_uses_2048_iterations_and_the_end_of_the_salt() {
    let mut expected = [0; 32];
    let iterations = NonZeroU32::new(2048).expect("not zero");
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, iterations, &SALT[8..], b"correct horse", &mut expected);
    for length in [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256] {
        let key = derive_key_encrypting_key(b"correct horse", &SALT, length);
        assert_eq!(key.0.as_slice(), &expected[..length.bytes()]);
        assert_eq!(key.length(), length);
    }
}

#[test]
fn counter_mode_gives_the_vectors_of_nist_sp_800_38a() {
    // F.5.1, F.5.3, F.5.5: the first two blocks.
    let counter: [u8; 16] = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").try_into().expect("16 bytes");
    let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    for (key, cipher) in [
        ("2b7e151628aed2a6abf7158809cf4f3c", "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"),
        (
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e94",
        ),
        (
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
            "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5",
        ),
    ] {
        let mut payload = plain.clone();
        apply_counter_mode(&counter_mode(&hex(key)), counter, &mut payload);
        assert_eq!(payload, hex(cipher));
    }
}

#[test]
fn the_packet_number_stands_in_bytes_10_to_13_of_the_counter() {
    let bytes = hex("2b7e151628aed2a6abf7158809cf4f3c");
    let key = StreamKey::new(&bytes, &SALT);
    let mut counter = SALT;
    counter[10] ^= 0x12;
    counter[11] ^= 0x34;
    counter[12] ^= 0x56;
    counter[13] ^= 0x78;
    counter[14] = 0;
    counter[15] = 0;
    let mut expected = vec![0x47; 1316];
    apply_counter_mode(&counter_mode(&bytes), counter, &mut expected);
    let mut payload = vec![0x47; 1316];
    key.apply(sequence(0x1234_5678), &mut payload);
    assert_eq!(payload, expected);
}

#[test]
fn a_key_material_message_has_the_layout_of_the_draft() {
    let key = derive_key_encrypting_key(b"correct horse", &SALT, KeyLength::Aes192);
    let (_, message) = Encryption::initiate(key, SALT, [7; 32], QUICK);
    let bytes = message.as_bytes();
    assert_eq!(bytes[..16], [0x12, 0x20, 0x29, 1, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 4, 6]);
    assert_eq!(bytes[16..32], SALT);
    assert_eq!(bytes.len(), 32 + 24 + 8);
    assert_eq!(KeyMaterial::parse(bytes), Ok(message.clone()));
    assert_eq!((message.keys(), message.key_length(), message.salt()), (KeyFlag::Even, KeyLength::Aes192, &SALT));
}

#[test]
fn malformed_key_material_is_refused_with_the_reason() {
    let key = derive_key_encrypting_key(b"correct horse", &SALT, KeyLength::Aes128);
    let (_, message) = Encryption::initiate(key, SALT, [7; 32], QUICK);
    let good = message.as_bytes();
    for length in 0..good.len() {
        assert_eq!(KeyMaterial::parse(&good[..length]), Err(KeyMaterialError::Length(length)));
    }
    let giant = [good, &[0; 300]].concat();
    assert_eq!(KeyMaterial::parse(&giant), Err(KeyMaterialError::Length(giant.len())));
    for (at, value, error) in [
        (0, 0x13, KeyMaterialError::Header),
        (1, 0x21, KeyMaterialError::Header),
        (3, 0, KeyMaterialError::NoKey),
        (3, 3, KeyMaterialError::Length(good.len())),
        (8, 4, KeyMaterialError::Gcm),
        (8, 1, KeyMaterialError::Cipher),
        (9, 1, KeyMaterialError::Cipher),
        (10, 1, KeyMaterialError::Cipher),
        (14, 2, KeyMaterialError::Salt),
        (15, 255, KeyMaterialError::KeyLength(1020)),
        (15, 8, KeyMaterialError::Length(good.len())),
    ] {
        let mut bad = good.to_vec();
        bad[at] = value;
        assert_eq!(KeyMaterial::parse(&bad), Err(error), "byte {at}");
    }
}

#[test]
fn both_sides_read_each_other_with_every_key_length() {
    for length in [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256] {
        let (mut caller, mut listener) = pair(length);
        let mut payload = *b"from the caller, more than one block";
        let flag = caller.encrypt(sequence(5), &mut payload);
        assert_eq!(flag, KeyFlag::Even);
        assert_ne!(&payload, b"from the caller, more than one block");
        assert_eq!(listener.decrypt(flag, sequence(5), &mut payload), Ok(()));
        assert_eq!(&payload, b"from the caller, more than one block");
        let mut payload = *b"and back";
        let flag = listener.encrypt(sequence(5), &mut payload);
        assert_eq!(caller.decrypt(flag, sequence(5), &mut payload), Ok(()));
        assert_eq!(&payload, b"and back");
    }
}

#[test]
fn a_wrong_passphrase_unwraps_nothing() {
    let (_, message) = Encryption::initiate(
        derive_key_encrypting_key(b"correct horse", &SALT, KeyLength::Aes256),
        SALT,
        [7; 32],
        QUICK,
    );
    let wrong = derive_key_encrypting_key(b"battery staple", &SALT, KeyLength::Aes256);
    assert!(Encryption::accept(wrong, &message, [8; 32], QUICK).is_none());
    let short = derive_key_encrypting_key(b"correct horse", &SALT, KeyLength::Aes128);
    assert!(Encryption::accept(short, &message, [8; 32], QUICK).is_none());
}

#[test]
fn plain_packets_and_unknown_keys_are_refused_untouched() {
    let (_, listener) = pair(KeyLength::Aes128);
    let mut payload = [1, 2, 3];
    assert_eq!(listener.decrypt(KeyFlag::Plain, sequence(0), &mut payload), Err(Undecryptable::Plain));
    assert_eq!(listener.decrypt(KeyFlag::Odd, sequence(0), &mut payload), Err(Undecryptable::NoKey(KeyFlag::Odd)));
    assert_eq!(listener.decrypt(KeyFlag::Both, sequence(0), &mut payload), Err(Undecryptable::NoKey(KeyFlag::Both)));
    assert_eq!(payload, [1, 2, 3]);
}

/// Sends `count` packets; the receiver answers every request, unless `deaf`. Returns the key of every packet.
fn send(sender: &mut Encryption, receiver: &mut Encryption, from: u64, count: u64, deaf: bool) -> Vec<KeyFlag> {
    let mut flags = Vec::new();
    for number in from..from + count {
        let mut payload = *b"payload";
        let flag = sender.encrypt(sequence(number), &mut payload);
        flags.push(flag);
        let now = Instant::from_millis(number);
        let request = sender.poll_request(now, RTT).map(<[u8]>::to_vec);
        if let Some(request) = request.filter(|_| !deaf) {
            let mut response = Vec::new();
            assert_eq!(receiver.receive_request(&request, &mut response), KeyMaterialState::Secured);
            assert_eq!(response, request);
            assert_eq!(sender.receive_response(&response), Some(KeyMaterialState::Secured));
        }
        if !deaf {
            assert_eq!(receiver.decrypt(flag, sequence(number), &mut payload), Ok(()), "packet {number}");
            assert_eq!(&payload, b"payload");
        }
    }
    flags
}

#[test]
fn keys_change_on_time_and_every_packet_stays_readable() {
    let (mut sender, mut receiver) = pair(KeyLength::Aes256);
    let flags = send(&mut sender, &mut receiver, 0, 350, false);
    assert!(flags[..100].iter().all(|flag| *flag == KeyFlag::Even));
    assert!(flags[100..200].iter().all(|flag| *flag == KeyFlag::Odd));
    assert!(flags[200..300].iter().all(|flag| *flag == KeyFlag::Even));
    assert_eq!(sender.keys_made, 4);
    // A packet sent again after the change is still under a key that the receiver has.
    let (mut sender, mut receiver) = pair(KeyLength::Aes128);
    let mut early = *b"payload";
    send(&mut sender, &mut receiver, 0, 99, false);
    let flag = sender.encrypt(sequence(99), &mut early);
    send(&mut sender, &mut receiver, 100, 30, false);
    assert_eq!(receiver.decrypt(flag, sequence(99), &mut early), Ok(()));
    assert_eq!(&early, b"payload");
}

#[test]
fn an_unanswered_announcement_is_repeated_and_holds_the_change_back_for_a_while() {
    let (mut sender, mut receiver) = pair(KeyLength::Aes128);
    let flags = send(&mut sender, &mut receiver, 0, 125, true);
    assert!(flags[..120].iter().all(|flag| *flag == KeyFlag::Even));
    assert_eq!(flags[120], KeyFlag::Odd);
    let mut now = Instant::from_millis(10_000);
    let mut requests = 0;
    while let Some(due) = sender.next_timeout(RTT) {
        now = now.max(due);
        assert!(sender.poll_request(now, RTT).is_some());
        assert_eq!(sender.poll_request(now, RTT), None);
        requests += 1;
        assert!(requests <= 10);
    }
    assert!(requests >= 8);
}

#[test]
fn a_bad_request_is_answered_with_a_state_and_changes_no_key() {
    let (mut sender, mut receiver) = pair(KeyLength::Aes128);
    let other = derive_key_encrypting_key(b"battery staple", &SALT, KeyLength::Aes128);
    let (_, foreign) = Encryption::initiate(other, SALT, [9; 32], QUICK);
    let mut salted = foreign.as_bytes().to_vec();
    salted[16] ^= 1;
    let mut gcm = foreign.as_bytes().to_vec();
    gcm[8] = 4;
    for (message, state, word) in [
        (foreign.as_bytes(), KeyMaterialState::BadSecret, [4, 0, 0, 0]),
        (&salted, KeyMaterialState::BadSecret, [4, 0, 0, 0]),
        (&gcm, KeyMaterialState::BadCryptoMode, [5, 0, 0, 0]),
        (&[], KeyMaterialState::BadSecret, [4, 0, 0, 0]),
    ] {
        let mut response = Vec::new();
        assert_eq!(receiver.receive_request(message, &mut response), state);
        assert_eq!(response, word);
    }
    send(&mut sender, &mut receiver, 0, 10, false);
}

#[test]
fn a_refused_or_unasked_response_never_stops_encryption() {
    let (mut sender, mut receiver) = pair(KeyLength::Aes128);
    assert_eq!(sender.receive_response(&KeyMaterialState::Unsecured.to_wire()), None);
    send(&mut sender, &mut receiver, 0, 81, true);
    assert_eq!(sender.receive_response(&[1, 2, 3]), None);
    assert_eq!(sender.receive_response(&[9, 9, 9, 9]), None);
    assert_eq!(sender.receive_response(&KeyMaterialState::NoSecret.to_wire()), Some(KeyMaterialState::NoSecret));
    assert_eq!(sender.state(), KeyMaterialState::NoSecret);
    let mut payload = [0; 16];
    assert_ne!(sender.encrypt(sequence(81), &mut payload), KeyFlag::Plain);
    assert_ne!(payload, [0; 16]);
}

#[test]
fn states_are_read_in_either_byte_order() {
    for state in [
        KeyMaterialState::Unsecured,
        KeyMaterialState::Securing,
        KeyMaterialState::Secured,
        KeyMaterialState::NoSecret,
        KeyMaterialState::BadSecret,
        KeyMaterialState::BadCryptoMode,
    ] {
        let mut word = state.to_wire();
        assert_eq!(KeyMaterialState::from_wire(word), Some(state));
        word.reverse();
        assert_eq!(KeyMaterialState::from_wire(word), Some(state));
    }
    assert_eq!(KeyMaterialState::from_wire([6, 0, 0, 0]), None);
}

proptest! {
    #[test]
    fn no_bytes_make_key_material_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), fix in any::<bool>()) {
        if fix && bytes.len() > 16 {
            bytes[..16].copy_from_slice(&[0x12, 0x20, 0x29, 3, 0, 0, 0, 0, 2, 0, 2, 0, 0, 0, 4, 4]);
        }
        let (_, mut receiver) = pair(KeyLength::Aes128);
        let mut response = Vec::new();
        prop_assert_ne!(receiver.receive_request(&bytes, &mut response), KeyMaterialState::Secured);
        prop_assert_eq!(response.len(), 4);
        let _ = receiver.receive_response(&bytes);
    }
}
