//! The racing copy: between private memory and shared memory that another process may be writing or reading at the same time.
//!
//! A plain `memcpy` would be undefined behaviour (a data race), and compilers use that freedom: gcc is known to reorder through the
//! two views of the data. So the copy is assembly the compiler cannot see into; what it may have torn is found by the
//! protocol's checks *after* the copy, never trusted before. Under Miri, and on processors without a hand-written copy,
//! the shared side is accessed as relaxed atomic words instead.
//!
//! Typical sizes are 184 bytes (one transport stream packet) when writing and whole frames when reading: vector moves up to
//! 1 KiB, the processor's own string move above.

/// Copies `bytes` to `shared`.
///
/// # Safety
/// `shared .. shared + bytes.len()` is writable memory of a live shared mapping, no Rust reference to it exists,
/// and this is the only writer. Under the word-atomic fallback the 8-byte words that cover the range belong to the mapping too.
#[inline]
pub unsafe fn to_shared(shared: *mut u8, bytes: &[u8]) {
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    // SAFETY: the caller promises `shared`; the source is a live slice, which cannot overlap memory without references.
    unsafe {
        assembly::copy(shared, bytes.as_ptr(), bytes.len());
    }
    #[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), miri))]
    // SAFETY: the same promises.
    unsafe {
        words::to_shared(shared, bytes);
    }
}

/// Asks the processor for memory that is about to be written, so many cache lines from `shared` on: a ring is far larger than the
/// caches, and what is written next in it has left them. Changes nothing but how long that takes.
#[inline]
pub fn prefetch_for_write(shared: *const u8, lines: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for line in 0..lines {
        // Not the intrinsic: without a newer target CPU the compiler makes a prefetch for reading of it, and the store still has to
        // take the line from the readers' caches. Every 64-bit processor has this one, or does nothing.
        // SAFETY: a prefetch reads no value and cannot fault, whatever the address.
        unsafe {
            core::arch::asm!("prefetchw [{line}]", line = in(reg) shared.wrapping_add(line * 64),
                             options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = (shared, lines);
}

/// Asks the processor for memory of this process that is about to be read, and perhaps changed: all of `value`.
#[inline]
pub fn prefetch_for_read<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = std::ptr::from_ref(value).cast::<i8>();
        let before = address.addr() % 64;
        for offset in (0..before + size_of::<T>()).step_by(64) {
            // SAFETY: a prefetch reads no value and cannot fault, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.wrapping_sub(before).wrapping_add(offset)) };
        }
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = value;
}

/// Copies `length` bytes from `shared` to `private`. What arrives may be torn.
///
/// # Safety
/// `shared .. shared + length` is readable memory of a live shared mapping (the covering words too, see [`to_shared`]);
/// `private .. private + length` is writable, not shared, and does not overlap it.
#[inline]
pub unsafe fn from_shared(private: *mut u8, shared: *const u8, length: usize) {
    #[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
    // SAFETY: as promised by the caller.
    unsafe {
        assembly::copy(private, shared, length);
    }
    #[cfg(any(not(any(target_arch = "x86_64", target_arch = "aarch64")), miri))]
    // SAFETY: as promised by the caller.
    unsafe {
        words::from_shared(private, shared, length);
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod assembly {
    use core::arch::asm;

    /// From here on `rep movsb` wins over vector moves.
    const STRING_MOVE_MIN: usize = 1024;

    /// # Safety
    /// Both ranges are valid for `n` bytes and do not overlap.
    #[inline]
    pub(super) unsafe fn copy(to: *mut u8, from: *const u8, n: usize) {
        if n >= STRING_MOVE_MIN {
            // SAFETY: valid ranges; the direction flag is clear by the ABI.
            unsafe {
                asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _,
                     options(nostack, preserves_flags));
            }
        } else if n >= 16 {
            // 64 at a time, then 16 at a time, then the last 16 bytes again, overlapping what is done.
            // SAFETY: every access lies in [0, n): the loops stop before it, the tail starts at n − 16 ≥ 0.
            unsafe {
                asm!(
                    "lea {end}, [{from} + {n}]",
                    "lea {n}, [{to} + {n}]",
                    "2:",
                    "lea {t}, [{from} + 64]",
                    "cmp {t}, {end}",
                    "ja 3f",
                    "movdqu {a}, [{from}]",
                    "movdqu {b}, [{from} + 16]",
                    "movdqu {c}, [{from} + 32]",
                    "movdqu {d}, [{from} + 48]",
                    "movdqu [{to}], {a}",
                    "movdqu [{to} + 16], {b}",
                    "movdqu [{to} + 32], {c}",
                    "movdqu [{to} + 48], {d}",
                    "mov {from}, {t}",
                    "add {to}, 64",
                    "jmp 2b",
                    "3:",
                    "lea {t}, [{from} + 16]",
                    "cmp {t}, {end}",
                    "ja 4f",
                    "movdqu {a}, [{from}]",
                    "movdqu [{to}], {a}",
                    "mov {from}, {t}",
                    "add {to}, 16",
                    "jmp 3b",
                    "4:",
                    "movdqu {a}, [{end} - 16]",
                    "movdqu [{n} - 16], {a}",
                    end = out(reg) _, t = out(reg) _,
                    n = inout(reg) n => _, to = inout(reg) to => _, from = inout(reg) from => _,
                    a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                    options(nostack)
                );
            }
        } else if n >= 8 {
            // SAFETY: two overlapping words within [0, n), n ≥ 8.
            unsafe {
                asm!("mov {a}, [{from}]", "mov {b}, [{from} + {n} - 8]",
                     "mov [{to}], {a}", "mov [{to} + {n} - 8], {b}",
                     a = out(reg) _, b = out(reg) _, n = in(reg) n, to = in(reg) to, from = in(reg) from,
                     options(nostack, preserves_flags));
            }
        } else if n >= 4 {
            // SAFETY: two overlapping half words within [0, n), n ≥ 4.
            unsafe {
                asm!("mov {a:e}, [{from}]", "mov {b:e}, [{from} + {n} - 4]",
                     "mov [{to}], {a:e}", "mov [{to} + {n} - 4], {b:e}",
                     a = out(reg) _, b = out(reg) _, n = in(reg) n, to = in(reg) to, from = in(reg) from,
                     options(nostack, preserves_flags));
            }
        } else {
            for i in 0..n {
                // SAFETY: byte i < n.
                unsafe {
                    asm!("mov {a}, [{from} + {i}]", "mov [{to} + {i}], {a}",
                         a = out(reg_byte) _, i = in(reg) i, to = in(reg) to, from = in(reg) from,
                         options(nostack, preserves_flags));
                }
            }
        }
    }
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
mod assembly {
    use core::arch::asm;

    /// # Safety
    /// Both ranges are valid for `n` bytes and do not overlap.
    #[inline]
    pub(super) unsafe fn copy(to: *mut u8, from: *const u8, n: usize) {
        // 64 at a time by vector pairs, then words, then bytes.
        // SAFETY: `n` counts down what is left; no access is wider than that.
        unsafe {
            asm!(
                "2:",
                "subs {n}, {n}, #64",
                "b.lo 3f",
                "ldp {a:q}, {b:q}, [{from}]",
                "ldp {c:q}, {d:q}, [{from}, #32]",
                "stp {a:q}, {b:q}, [{to}]",
                "stp {c:q}, {d:q}, [{to}, #32]",
                "add {from}, {from}, #64",
                "add {to}, {to}, #64",
                "b 2b",
                "3:",
                "add {n}, {n}, #64",
                "4:",
                "subs {n}, {n}, #8",
                "b.lo 5f",
                "ldr {t}, [{from}], #8",
                "str {t}, [{to}], #8",
                "b 4b",
                "5:",
                "add {n}, {n}, #8",
                "6:",
                "cbz {n}, 7f",
                "ldrb {t:w}, [{from}], #1",
                "strb {t:w}, [{to}], #1",
                "sub {n}, {n}, #1",
                "b 6b",
                "7:",
                n = inout(reg) n => _, to = inout(reg) to => _, from = inout(reg) from => _,
                t = out(reg) _,
                a = out(vreg) _, b = out(vreg) _, c = out(vreg) _, d = out(vreg) _,
                options(nostack)
            );
        }
    }
}

/// Every access to the shared side is a relaxed 64-bit atomic: no access is mixed in size, so no race is undefined.
#[cfg_attr(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)), allow(dead_code))]
mod words {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// # Safety
    /// See [`super::to_shared`].
    pub(super) unsafe fn to_shared(shared: *mut u8, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let skip = (shared as usize + done) % 8;
            let n = (8 - skip).min(bytes.len() - done);
            // SAFETY: an aligned word that covers bytes of the range; the caller vouches for covering words.
            let word = unsafe { &*shared.wrapping_add(done).wrapping_sub(skip).cast::<AtomicU64>() };
            // One writer: reading the neighbours back and storing them unchanged loses nothing.
            let mut value = if n == 8 { [0; 8] } else { word.load(Relaxed).to_le_bytes() };
            value[skip..skip + n].copy_from_slice(&bytes[done..done + n]);
            word.store(u64::from_le_bytes(value), Relaxed);
            done += n;
        }
    }

    /// # Safety
    /// See [`super::from_shared`].
    pub(super) unsafe fn from_shared(private: *mut u8, shared: *const u8, length: usize) {
        let mut done = 0;
        while done < length {
            let skip = (shared as usize + done) % 8;
            let n = (8 - skip).min(length - done);
            // SAFETY: an aligned word that covers bytes of the range.
            let word = unsafe { &*shared.wrapping_add(done).wrapping_sub(skip).cast::<AtomicU64>() };
            let value = word.load(Relaxed).to_le_bytes();
            // SAFETY: `done + n ≤ length` private bytes.
            unsafe { core::ptr::copy_nonoverlapping(value[skip..].as_ptr(), private.add(done), n) };
            done += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type ToShared = unsafe fn(*mut u8, &[u8]);
    type FromShared = unsafe fn(*mut u8, *const u8, usize);

    fn check(to: ToShared, from: FromShared) {
        let source: Vec<u8> = (0..4096u32).map(|i| (i * 31 + 7) as u8).collect();
        // Miri is slow.
        let (all, some): (_, &[usize]) =
            if cfg!(miri) { (0..20, &[100]) } else { (0..300, &[511, 512, 1000, 1023, 1024, 1025, 2047, 4000]) };
        let sizes = all.chain(some.iter().copied());
        for n in sizes {
            for skew in [0, 1, 7, 8, 13] {
                let mut shared = vec![0u64; (skew + n) / 8 + 2];
                let base = shared.as_mut_ptr().cast::<u8>();
                let mut back = vec![0xEEu8; n + 2];
                // SAFETY: `shared` has more than skew + n bytes, in whole words; `back` has n + 2.
                unsafe {
                    to(base.add(skew), &source[..n]);
                    from(back.as_mut_ptr().add(1), base.add(skew), n);
                }
                assert_eq!(&back[1..=n], &source[..n], "{n} bytes at {skew}");
                assert_eq!((back[0], back[n + 1]), (0xEE, 0xEE));
                let flat: Vec<u8> = shared.iter().flat_map(|w| w.to_le_bytes()).collect();
                assert!(flat[..skew].iter().chain(&flat[skew + n..]).all(|&b| b == 0), "{n} bytes at {skew} spilled");
            }
        }
    }

    #[test]
    fn every_length_and_skew_is_copied_exactly() {
        check(to_shared, from_shared);
    }

    #[test]
    fn the_word_atomic_fallback_copies_the_same() {
        check(words::to_shared, words::from_shared);
    }
}
