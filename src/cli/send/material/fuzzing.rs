//! Body of the fuzz target: a file that somebody wants sent.

use super::{Cursor, DATAGRAM_LEN, Material, Pace, packets_of};

/// Reads `data` as a file and sends it twice and a bit. Datagrams must be due in their order, and each round as long as the one
/// before.
pub fn fuzz_material(data: &[u8]) {
    let Some((&pace, file)) = data.split_first() else { return };
    let Some(packets) = packets_of(file) else { return };
    let pace = if pace == 0 { Pace::Clock } else { Pace::Rate(u64::from(pace) * 1_000_000) };
    let Ok(material) = Material::new(packets, pace) else { return };
    let mut cursor = Cursor::new();
    let mut out = [0; DATAGRAM_LEN];
    let mut due_ns = 0;
    for taken in 0..material.datagrams() * 2 + 1 {
        assert_eq!((cursor.taken(&material), cursor.rounds()), (taken, taken / material.datagrams()));
        assert!(cursor.due_ns(&material) >= due_ns, "a datagram is due before the one before it");
        due_ns = cursor.due_ns(&material);
        assert!(cursor.take(&material, &mut out) > 0);
    }
    assert_eq!(due_ns, 2 * material.period_ns() + material.due_ns[0]);
}
