//! What the fuzz targets of the three codecs share.

use crate::codec::{Framer, Step};

/// The first bytes of `data` tell how the rest is cut, flushed and broken; what comes out must keep the promises of
/// [`Framer`].
pub fn exercise<F: Framer>(new: impl Fn() -> F, data: &[u8]) {
    let (plan, stream) = data.split_at(data.len().min(8));
    let mut framer = new();
    let mut check = Check::default();
    let mut rest = stream;
    for turn in 0.. {
        let choice = plan.get(turn % plan.len().max(1)).copied().unwrap_or(184);
        let len = usize::from(choice % 240 + 1).min(rest.len());
        let (piece, tail) = rest.split_at(len);
        rest = tail;
        let mut input = piece;
        loop {
            let mut left = input;
            let Some(step) = framer.push(&mut left) else { break };
            let taken = input.len() - left.len();
            check.step(&step);
            input = &input[taken..];
        }
        match choice {
            240..=247 => {
                while let Some(step) = framer.flush() {
                    check.step(&step);
                }
            }
            248.. => framer.discontinuity(),
            _ => {}
        }
        if rest.is_empty() {
            break;
        }
    }
    while let Some(step) = framer.flush() {
        check.step(&step);
    }
    assert!(!check.open, "a flush closes the access unit");
    assert_eq!(framer.position(), stream.len() as u64);
    assert!(check.bytes <= stream.len() as u64);
    assert!(check.bytes + 3 >= stream.len() as u64, "no more than a start code's zeros wait for ever");
}

#[derive(Default)]
struct Check {
    open: bool,
    bytes: u64,
}

impl Check {
    fn step(&mut self, step: &Step<'_>) {
        match *step {
            Step::Begin { position } => {
                assert!(!self.open);
                assert_eq!(position, self.bytes, "an access unit starts where the bytes given out end");
                self.open = true;
            }
            Step::Append(bytes) => {
                assert!(self.open && !bytes.is_empty());
                self.bytes += bytes.len() as u64;
            }
            Step::End(_) => {
                assert!(self.open);
                self.open = false;
            }
            Step::Skipped { len } => {
                assert!(!self.open && len > 0);
                self.bytes += u64::from(len);
            }
        }
    }
}
