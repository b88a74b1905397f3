use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use proptest::prelude::*;

use super::cipher::{apply_counter_mode, counter_mode};
use super::*;
use crate::protocol::srt::packet::{Header, PacketPosition, SequenceNumber, parse};

const SALT: [u8; SALT_LEN] =
    [0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96, 0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f];
const RTT: Duration = Duration::from_millis(30);
const QUICK: KeyRefresh = KeyRefresh { after_packets: 100, announce_packets: 20 };

/// How many packets there is room for where they are received.
const SPAN: u64 = 64;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn kek(bytes: &[u8]) -> KeyEncryptingKey {
    KeyEncryptingKey(bytes.iter().copied().collect())
}

const LENGTHS: [KeyLength; 3] = [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256];
const CIPHERS: [Cipher; 2] = [Cipher::AesCtr, Cipher::AesGcm];

fn pair(cipher: Cipher, length: KeyLength) -> (Encryption, Encryption) {
    let key = derive_key_encrypting_key(b"correct horse", &SALT, length);
    let (caller, message) = Encryption::initiate(key.clone(), cipher, SALT, [7; 32], QUICK);
    let listener = Encryption::accept(key, &message, [8; 32], QUICK).expect("the same passphrase");
    (caller, listener)
}

fn header(number: u64) -> DataHeader {
    DataHeader { sequence: SequenceNumber::new(number), message_number: 1, socket_id: 7, ..DataHeader::default() }
}

/// What goes out, header and all.
fn encrypt(sender: &mut Encryption, number: u64, payload: &[u8]) -> (DataHeader, Vec<u8>) {
    let mut header = header(number);
    let mut bytes = [payload, &[0; 16][..sender.cipher().tag_len()]].concat();
    sender.encrypt(&mut header, &mut bytes);
    (header, bytes)
}

fn decrypt(receiver: &Encryption, header: &DataHeader, bytes: &[u8]) -> Result<Vec<u8>, Undecryptable> {
    let mut bytes = bytes.to_vec();
    let length = receiver.decrypt(header, &mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
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
    let key = StreamKey::new(Cipher::AesCtr, &bytes, &SALT);
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
    key.seal(GcmForm::default(), &header(0x1234_5678), &mut payload);
    assert_eq!(payload, expected);
}

#[test]
fn a_key_material_message_has_the_layout_of_the_draft() {
    let key = derive_key_encrypting_key(b"correct horse", &SALT, KeyLength::Aes192);
    for (cipher, [cipher_field, authentication]) in [(Cipher::AesCtr, [2, 0]), (Cipher::AesGcm, [4, 1])] {
        let (_, message) = Encryption::initiate(key.clone(), cipher, SALT, [7; 32], QUICK);
        let bytes = message.as_bytes();
        assert_eq!(bytes[..16], [0x12, 0x20, 0x29, 1, 0, 0, 0, 0, cipher_field, authentication, 2, 0, 0, 0, 4, 6]);
        assert_eq!(bytes[16..32], SALT);
        assert_eq!(bytes.len(), 32 + 24 + 8);
        assert_eq!(KeyMaterial::parse(bytes), Ok(message.clone()));
        assert_eq!((message.keys(), message.key_length(), message.salt()), (KeyFlag::Even, KeyLength::Aes192, &SALT));
        assert_eq!(message.cipher(), cipher);
    }
}

#[test]
fn malformed_key_material_is_refused_with_the_reason() {
    let key = derive_key_encrypting_key(b"correct horse", &SALT, KeyLength::Aes128);
    let (_, message) = Encryption::initiate(key, Cipher::AesCtr, SALT, [7; 32], QUICK);
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
        (8, 4, KeyMaterialError::Cipher),
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
    for (cipher, length) in CIPHERS.into_iter().flat_map(|cipher| LENGTHS.map(|length| (cipher, length))) {
        let (mut caller, mut listener) = pair(cipher, length);
        let payload = b"from the caller, more than one block";
        let (header, bytes) = encrypt(&mut caller, 5, payload);
        assert_eq!((header.key, bytes.len()), (KeyFlag::Even, payload.len() + cipher.tag_len()));
        assert!(!bytes.starts_with(payload));
        assert_eq!(decrypt(&listener, &header, &bytes), Ok(payload.to_vec()));
        let (header, bytes) = encrypt(&mut listener, 5, b"and back");
        assert_eq!(decrypt(&caller, &header, &bytes), Ok(b"and back".to_vec()));
    }
}

/// Packet 0x12345678 of 37 bytes, 0 to 36, as haicrypt seals it: `HaiCrypt_Tx_Data` of libsrt's newest master with its AEAD preview
/// (OpenSSL 3.0), passphrase "correct horse", header words 12345678 c800002a 00010002 0a0b0c0d. The version of the peer that it was made
/// for (`HaiCrypt_UpdateGcm153`), what `HaiCrypt_Tx_ManageKeys` gave, and the payload with its tag.
const SEALED_BY_HAICRYPT: [(u32, &str, &str); 7] = [
    (
        0x0001_0504,
        "122029010000000004010200000004047cbfacc505a79a43d544ab05561c1a4f8d01f52eceab136b5279b6bd34a71eeaa0a878b702993dae",
        "c764177544be1578d3fc4a422767d4a7419e6afda349e2152b205053e86df4df45689e51970b684728e29cc459d8e5fedff2866cdf",
    ),
    (
        0x0001_0504,
        "1220290100000000040102000000040636d32e9f8b4fa52fac2fdfd61559fbab6ac9496ad490429b424ccfa8fc8618dbb55b1c6c63996aa00ef2aaa0dc96d421",
        "056c457d044a6d37ff829e66864aacfa2eedadc3b7494e6fd0a7dc3e16cc4a564fd895b3947372f5697b6a8af5bf4cdc6018a3668e",
    ),
    (
        0x0001_0600,
        "12202901000000000401020000000408f8c41db90b4920a78cb96a3a66c813ca355cb6dabcec4f854751beeaac4d62a9f8f19b65aa58976d06df70c3cfea9fbd95dc202820dc8371",
        "8542b50e4a0e8f24c9c8b40207ee8b04f1b4c5693cbacb06639bc0a525f055901bd89b9eb2971561f3f0d25050c46e8b917f059f5a",
    ),
    (
        0x0001_0503,
        "12202901000000000401020000000404adc55c80f7f1fe1e4751e8da9090c4f3bd7839c0eff2cfcbc74c945a40f8955b20c150cf45747bc6",
        "186f02568ceac9ab0ac3c601069824907f585e9ac34928f12d0102c368cc35634a0a03da9a613e770dcf4a2272d92d13f8e7c56751",
    ),
    (
        0x0001_0502,
        "12202901000000000401020000000406e5483a1cfe6f3e72c2be59d081acfabbb0e91e3351895ed06192118374c2fc0f325ae8c3e689f38715d38d09575d766a",
        "78abcb30eb9a6c749ae5673d91e3b7940d68947146ac457e25500f9ddff6b5ff03a94a0f1de0f26cc5a3fecf8e88dd49ebf356d849",
    ),
    (
        0x0001_0503,
        "12202901000000000401020000000408b297a0e9ca14fb374ba4e006b3278ef05f1d189abc0b6fa5d558c698042dc83b54bb94ea082465607281958b404e8e60f6e14ed662ceac87",
        "d1296d0950b56a721b4a8e4250ad9f9dbdc65de63d369bb1008e1c7196e23c8ef6ddb0be3168b363746d8d3de4cadd4fccb3f7667e",
    ),
    // By libsrt 1.5.3 itself.
    (
        0x0001_0503,
        "1220290100000000040102000000040444a34803ab9f835061a27d40859183f99c6cbad8e4df7788b7d2fe93bdb19832cb6ba604617bd44d",
        "991b7baef73aaaa362ae9bcefd0d62c3bdf2266c59b4a66f2e1a67c02ffaa0a0e7367123bf9d58ce65cab8c84b1e4c8f835bc5a52d",
    ),
];

#[test]
fn aes_gcm_is_what_haicrypt_makes_of_it_in_both_forms() {
    let words = hex("12345678c800002a000100020a0b0c0d");
    let Ok(Header::Data(header)) = parse(&words) else { panic!("a data packet") };
    let plain: Vec<u8> = (0..37).collect();
    for (peer_version, message, sealed) in SEALED_BY_HAICRYPT {
        let message = KeyMaterial::parse(&hex(message)).expect("from libsrt");
        assert_eq!(message.cipher(), Cipher::AesGcm);
        let key = derive_key_encrypting_key(b"correct horse", message.salt(), message.key_length());
        let mut receiver = Encryption::accept(key, &message, [8; 32], QUICK).expect("the same passphrase");
        receiver.set_peer_version(peer_version);
        assert_eq!(decrypt(&receiver, &header, &hex(sealed)), Ok(plain.clone()));
        let again = DataHeader { retransmitted: true, ..header };
        assert_eq!(decrypt(&receiver, &again, &hex(sealed)), Ok(plain.clone()), "sent again");
        // It begins with the caller's key, so what it would send is the same to the byte.
        let mut bytes = [&plain[..], &[0; 16]].concat();
        let mut sent = DataHeader { key: KeyFlag::Plain, ..header };
        receiver.encrypt(&mut sent, &mut bytes);
        assert_eq!((sent, bytes), (header, hex(sealed)));
        receiver.set_peer_version(if peer_version < 0x0001_0504 { 0x0001_0504 } else { 0x0001_0503 });
        assert_eq!(decrypt(&receiver, &header, &hex(sealed)), Err(Undecryptable::NotAuthentic), "the other form");
    }
}

#[test]
fn under_aes_gcm_nothing_that_was_changed_is_taken() {
    for peer_version in [0x0001_0504, 0x0001_0503] {
        let (mut sender, mut receiver) = pair(Cipher::AesGcm, KeyLength::Aes128);
        sender.set_peer_version(peer_version);
        receiver.set_peer_version(peer_version);
        let (header, bytes) = encrypt(&mut sender, 5, b"payload");
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(decrypt(&receiver, &header, &bytes), Err(Undecryptable::NotAuthentic), "byte {at}");
        }
        for length in 0..bytes.len() {
            assert_eq!(
                decrypt(&receiver, &header, &bytes[..length]),
                Err(Undecryptable::NotAuthentic),
                "{length} bytes"
            );
        }
        for header in [
            DataHeader { sequence: SequenceNumber::new(6), ..header },
            DataHeader { position: PacketPosition::First, ..header },
            DataHeader { in_order: true, ..header },
            DataHeader { message_number: 2, ..header },
            DataHeader { timestamp_us: 1, ..header },
            DataHeader { socket_id: 8, ..header },
        ] {
            assert_eq!(decrypt(&receiver, &header, &bytes), Err(Undecryptable::NotAuthentic), "{header:?}");
        }
        assert_eq!(decrypt(&receiver, &header, &bytes), Ok(b"payload".to_vec()));
        let (header, bytes) = encrypt(&mut sender, 6, b"");
        assert_eq!((decrypt(&receiver, &header, &bytes), bytes.len()), (Ok(Vec::new()), 16));
    }
}

#[test]
fn only_what_nobody_else_can_make_is_proof() {
    let proves = |cipher, peer_version, flag| {
        let (_, mut receiver) = pair(cipher, KeyLength::Aes256);
        receiver.set_peer_version(peer_version);
        (receiver.is_proof(flag), receiver.name())
    };
    assert_eq!(proves(Cipher::AesGcm, 0x0001_0504, KeyFlag::Even), (true, "AES-256-GCM".to_owned()));
    assert_eq!(proves(Cipher::AesGcm, 0x0001_0504, KeyFlag::Odd), (false, "AES-256-GCM".to_owned()));
    assert_eq!(proves(Cipher::AesGcm, 0x0001_0503, KeyFlag::Even), (false, "AES-256-GCM (libsrt 1.5.3)".to_owned()));
    assert_eq!(proves(Cipher::AesCtr, 0x0001_0504, KeyFlag::Even), (false, "AES-256-CTR".to_owned()));
}

#[test]
fn a_wrong_passphrase_unwraps_nothing() {
    let (_, message) = Encryption::initiate(
        derive_key_encrypting_key(b"correct horse", &SALT, KeyLength::Aes256),
        Cipher::AesCtr,
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
    let (_, listener) = pair(Cipher::AesCtr, KeyLength::Aes128);
    let mut payload = [1, 2, 3];
    for (key, error) in [
        (KeyFlag::Plain, Undecryptable::Plain),
        (KeyFlag::Odd, Undecryptable::NoKey(KeyFlag::Odd)),
        (KeyFlag::Both, Undecryptable::NoKey(KeyFlag::Both)),
    ] {
        assert_eq!(listener.decrypt(&DataHeader { key, ..header(0) }, &mut payload), Err(error));
    }
    assert_eq!(payload, [1, 2, 3]);
}

/// Sends `count` packets; the receiver answers every request, unless `deaf`. Returns the key of every packet.
fn send(sender: &mut Encryption, receiver: &mut Encryption, from: u64, count: u64, deaf: bool) -> Vec<KeyFlag> {
    let mut flags = Vec::new();
    for number in from..from + count {
        let (header, bytes) = encrypt(sender, number, b"payload");
        flags.push(header.key);
        let now = Instant::from_millis(number);
        let request = sender.poll_request(now, RTT).map(<[u8]>::to_vec);
        if let Some(request) = request.filter(|_| !deaf) {
            let mut response = Vec::new();
            assert_eq!(receiver.receive_request(&request, &mut response), KeyMaterialState::Secured);
            assert_eq!(response, request);
            assert_eq!(sender.receive_response(&response), Some(KeyMaterialState::Secured));
        }
        if !deaf {
            assert_eq!(decrypt(receiver, &header, &bytes), Ok(b"payload".to_vec()), "packet {number}");
            receiver.taken(header.key, SPAN);
        }
    }
    flags
}

#[test]
fn keys_change_on_time_and_every_packet_stays_readable() {
    for cipher in CIPHERS {
        let (mut sender, mut receiver) = pair(cipher, KeyLength::Aes256);
        let flags = send(&mut sender, &mut receiver, 0, 350, false);
        assert!(flags[..100].iter().all(|flag| *flag == KeyFlag::Even));
        assert!(flags[100..200].iter().all(|flag| *flag == KeyFlag::Odd));
        assert!(flags[200..300].iter().all(|flag| *flag == KeyFlag::Even));
        assert_eq!(sender.keys_made, 4);
        // A packet sent again after the change is still under a key that the receiver has.
        let (mut sender, mut receiver) = pair(cipher, KeyLength::Aes128);
        send(&mut sender, &mut receiver, 0, 99, false);
        let (header, early) = encrypt(&mut sender, 99, b"payload");
        send(&mut sender, &mut receiver, 100, 30, false);
        let again = DataHeader { retransmitted: true, ..header };
        assert_eq!(decrypt(&receiver, &again, &early), Ok(b"payload".to_vec()));
    }
}

#[test]
fn an_unanswered_announcement_is_repeated_and_holds_the_change_back() {
    let (mut sender, mut receiver) = pair(Cipher::AesCtr, KeyLength::Aes128);
    let flags = send(&mut sender, &mut receiver, 0, 125, true);
    assert!(flags.iter().all(|flag| *flag == KeyFlag::Even), "it may have no key under the other flag");
    let mut now = Instant::from_millis(10_000);
    let mut ask = |sender: &mut Encryption| {
        let mut requests = 0;
        while let Some(due) = sender.next_timeout(RTT) {
            now = now.max(due);
            assert!(sender.poll_request(now, RTT).is_some());
            assert_eq!(sender.poll_request(now, RTT), None);
            requests += 1;
        }
        requests
    };
    assert_eq!(ask(&mut sender), 9, "once it was asked before");
    send(&mut sender, &mut receiver, 125, QUICK.announce_packets, true);
    assert_eq!(ask(&mut sender), 10);
}

#[test]
fn the_first_key_is_announced_until_the_peer_has_it_whatever_else_is_answered() {
    let derive = || derive_key_encrypting_key(b"correct horse", &SALT, KeyLength::Aes128);
    let (mut sender, message) = Encryption::initiate(derive(), Cipher::AesCtr, SALT, [7; 32], QUICK);
    let announced = message.clone();
    sender.announce_first(message);
    let mut now = Instant::from_millis(1_000);
    let mut requests = |sender: &mut Encryption, count: usize| {
        let mut sent = Vec::new();
        while sent.len() < count
            && let Some(due) = sender.next_timeout(RTT)
        {
            now = now.max(due);
            assert!(sender.poll_request(now, RTT).is_some());
            sent.push(now);
        }
        sent
    };
    let sent = requests(&mut sender, 30);
    assert_eq!(sent[9].saturating_since(sent[0]), RTT * 3 / 2 * 9);
    assert_eq!(sent[29].saturating_since(sent[9]), Duration::from_secs(20));
    assert_eq!(sender.receive_response(&KeyMaterialState::NoSecret.to_wire()), Some(KeyMaterialState::NoSecret));
    assert_eq!(requests(&mut sender, 2).len(), 2, "somebody else may have said so");
    assert_eq!(sender.receive_response(announced.as_bytes()), Some(KeyMaterialState::Secured));
    assert_eq!(requests(&mut sender, 1), []);
}

#[test]
fn no_key_is_used_before_the_peer_has_it() {
    let (mut sender, mut receiver) = pair(Cipher::AesCtr, KeyLength::Aes128);
    let flags = send(&mut sender, &mut receiver, 0, 1_000, true);
    assert!(flags.iter().all(|flag| *flag == KeyFlag::Even));
    // It is asked again, hears of it at last, and the keys go on.
    let request = sender.poll_request(Instant::from_millis(90_000), RTT).expect("asked again").to_vec();
    let mut response = Vec::new();
    assert_eq!(receiver.receive_request(&request, &mut response), KeyMaterialState::Secured);
    assert_eq!(sender.receive_response(&response), Some(KeyMaterialState::Secured));
    let flags = send(&mut sender, &mut receiver, 1_000, 150, false);
    assert_eq!((flags[0], flags[149]), (KeyFlag::Odd, KeyFlag::Even));
    // Of the third one it has the flag, and under it the first.
    let flags = send(&mut sender, &mut receiver, 1_150, 1_000, true);
    assert!(flags.iter().all(|flag| *flag == KeyFlag::Even));
}

#[test]
fn a_key_is_not_waited_with_until_nonces_begin_anew() {
    let (mut sender, mut receiver) = pair(Cipher::AesGcm, KeyLength::Aes128);
    send(&mut sender, &mut receiver, 0, 125, true);
    sender.sent_under_active = KEY_PACKETS_MAX - 2;
    assert_eq!(encrypt(&mut sender, 125, b"payload").0.key, KeyFlag::Even);
    assert_eq!(encrypt(&mut sender, 126, b"payload").0.key, KeyFlag::Odd);
}

#[test]
fn a_key_is_forgotten_once_no_packet_under_it_has_room_any_more_so_that_it_does_not_pass_for_the_next_of_its_flag() {
    let (mut sender, mut receiver) = pair(Cipher::AesCtr, KeyLength::Aes128);
    send(&mut sender, &mut receiver, 0, 99, false);
    let (late, bytes) = encrypt(&mut sender, 99, b"payload");
    send(&mut sender, &mut receiver, 100, SPAN - 1, false);
    assert_eq!(decrypt(&receiver, &late, &bytes), Ok(b"payload".to_vec()));
    let next = 100 + SPAN - 1;
    send(&mut sender, &mut receiver, next, 1, false);
    assert_eq!(decrypt(&receiver, &late, &bytes), Err(Undecryptable::NoKey(KeyFlag::Even)));

    // The third key goes to somebody else, who answers, and the sender goes on with it.
    let mut announced = Vec::new();
    let (header, bytes) = (next + 1..)
        .map(|number| {
            let packet = encrypt(&mut sender, number, b"payload");
            if let Some(request) = sender.poll_request(Instant::from_millis(number), RTT) {
                announced = request.to_vec();
                sender.receive_response(&announced);
            }
            packet
        })
        .take(100)
        .find(|(header, _)| header.key == KeyFlag::Even)
        .expect("a third key");
    assert_eq!(decrypt(&receiver, &header, &bytes), Err(Undecryptable::NoKey(KeyFlag::Even)));
    assert_eq!(receiver.receive_request(&announced, &mut Vec::new()), KeyMaterialState::Secured);
    assert_eq!(decrypt(&receiver, &header, &bytes), Ok(b"payload".to_vec()));
}

#[test]
fn a_packet_that_somebody_makes_up_under_the_other_key_has_none_forgotten() {
    use KeyFlag::{Even, Odd};
    let mut old_key = old_key::OldKey::new();
    let mut taken = |flag, count: u64| (0..count).find_map(|_| old_key.taken(flag, SPAN));
    assert_eq!(taken(Even, 500), None);
    // The second key was announced, and is not yet in use.
    assert_eq!([taken(Odd, 1), taken(Even, 500), taken(Odd, SPAN - 1), taken(Even, 500)], [None; 4]);
    // Packets that come late begin the count anew.
    assert_eq!([taken(Odd, SPAN - 1), taken(Even, 1), taken(Odd, SPAN - 1)], [None; 3]);
    assert_eq!(taken(Odd, 1), Some(Even));
    assert_eq!([taken(Odd, 500), taken(Even, SPAN - 1)], [None; 2]);
    assert_eq!(taken(Even, 1), Some(Odd));
    // A key that has come since was not in use before.
    old_key.replaced(Even);
    assert_eq!((0..500).find_map(|_| old_key.taken(Odd, SPAN)), None);
}

#[test]
fn a_bad_request_is_answered_with_a_state_and_changes_no_key() {
    let (mut sender, mut receiver) = pair(Cipher::AesCtr, KeyLength::Aes128);
    let other = derive_key_encrypting_key(b"battery staple", &SALT, KeyLength::Aes128);
    let (_, foreign) = Encryption::initiate(other, Cipher::AesCtr, SALT, [9; 32], QUICK);
    let mut salted = foreign.as_bytes().to_vec();
    salted[16] ^= 1;
    let mut gcm = foreign.as_bytes().to_vec();
    gcm[8..10].copy_from_slice(&[4, 1]);
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
    let (mut sender, mut receiver) = pair(Cipher::AesCtr, KeyLength::Aes128);
    assert_eq!(sender.receive_response(&KeyMaterialState::Unsecured.to_wire()), None);
    send(&mut sender, &mut receiver, 0, 81, true);
    assert_eq!(sender.receive_response(&[1, 2, 3]), None);
    assert_eq!(sender.receive_response(&[9, 9, 9, 9]), None);
    assert_eq!(sender.receive_response(&KeyMaterialState::NoSecret.to_wire()), Some(KeyMaterialState::NoSecret));
    assert_eq!(sender.state(), KeyMaterialState::NoSecret);
    assert!(sender.next_timeout(Duration::from_millis(10)).is_some(), "the keys are announced again all the same");
    let (header, payload) = encrypt(&mut sender, 81, &[0; 16]);
    assert_ne!(header.key, KeyFlag::Plain);
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
        let (_, mut receiver) = pair(Cipher::AesCtr, KeyLength::Aes128);
        let mut response = Vec::new();
        prop_assert_ne!(receiver.receive_request(&bytes, &mut response), KeyMaterialState::Secured);
        prop_assert_eq!(response.len(), 4);
        let _ = receiver.receive_response(&bytes);
    }
}
