//! EBML elements (RFC 8794): an identifier, a length, and the bytes.

/// A length that is not known yet: the element ends where one begins that cannot be inside it (RFC 8794 §6.2).
const UNKNOWN_LENGTH: [u8; 8] = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];

/// Appends the front of an element whose end is not known.
pub fn open(out: &mut Vec<u8>, id: u32) {
    put_id(out, id);
    out.extend(UNKNOWN_LENGTH);
}

/// Appends an element that holds others.
pub fn master(out: &mut Vec<u8>, id: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut children = Vec::new();
    fill(&mut children);
    binary(out, id, &children);
}

/// Appends bytes.
pub fn binary(out: &mut Vec<u8>, id: u32, bytes: &[u8]) {
    head(out, id, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends the front of an element of which `len` bytes follow.
pub fn head(out: &mut Vec<u8>, id: u32, len: usize) {
    put_id(out, id);
    put_length(out, len as u64);
}

/// Appends a text.
pub fn text(out: &mut Vec<u8>, id: u32, text: &str) {
    binary(out, id, text.as_bytes());
}

/// Appends an unsigned integer in as few bytes as it takes.
pub fn unsigned(out: &mut Vec<u8>, id: u32, value: u64) {
    let bytes = value.to_be_bytes();
    let skipped = (value.leading_zeros() as usize / 8).min(7);
    binary(out, id, &bytes[skipped..]);
}

/// Appends a floating-point number.
pub fn float(out: &mut Vec<u8>, id: u32, value: f64) {
    binary(out, id, &value.to_be_bytes());
}

/// Identifiers bring their own length mark.
fn put_id(out: &mut Vec<u8>, id: u32) {
    let bytes = id.to_be_bytes();
    out.extend(&bytes[id.leading_zeros() as usize / 8..]);
}

/// As few bytes as it takes; all ones is reserved for the unknown length.
fn put_length(out: &mut Vec<u8>, length: u64) {
    let len = (1..8).find(|len| length < (1 << (7 * len)) - 1).unwrap_or(8);
    let marked = length | 1 << (7 * len);
    out.extend(&marked.to_be_bytes()[8 - len..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    #[test]
    fn elements_are_written_as_short_as_they_can_be() {
        assert_eq!(of(|out| unsigned(out, 0xd7, 0)), [0xd7, 0x81, 0]);
        assert_eq!(of(|out| unsigned(out, 0x2ad7b1, 10_000)), [0x2a, 0xd7, 0xb1, 0x82, 0x27, 0x10]);
        assert_eq!(of(|out| text(out, 0x86, "A_AC3")), *b"\x86\x85A_AC3");
        assert_eq!(of(|out| head(out, 0xa3, 126)), [0xa3, 0xfe]);
        // 127 in one byte would be the unknown length.
        assert_eq!(of(|out| head(out, 0xa3, 127)), [0xa3, 0x40, 0x7f]);
        assert_eq!(of(|out| head(out, 0xa3, 0x3fff)), [0xa3, 0x20, 0x3f, 0xff]);
        assert_eq!(of(|out| float(out, 0xb5, 48_000.0)), [0xb5, 0x88, 0x40, 0xe7, 0x70, 0, 0, 0, 0, 0]);
        let nested = of(|out| master(out, 0xe0, |out| unsigned(out, 0xb0, 320)));
        assert_eq!(nested, [0xe0, 0x84, 0xb0, 0x82, 0x01, 0x40]);
    }
}
