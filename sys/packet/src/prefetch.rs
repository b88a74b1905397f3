//! Asking the processor for memory ahead of its use.

const LINE: usize = 64;

/// Asks for the cache line in which `value` begins. Changes nothing but how long the next look at it takes; nothing of it is read,
/// so that a chain of references is asked for one link at a time, as each is there.
#[inline]
pub fn prefetch<T: ?Sized>(value: &T) {
    line(std::ptr::from_ref(value).cast());
}

/// The same for all of `value`.
#[inline]
pub fn prefetch_all<T: ?Sized>(value: &T) {
    let address = std::ptr::from_ref(value).cast::<u8>();
    let before = address.addr() % LINE;
    for offset in (0..before + size_of_val(value)).step_by(LINE) {
        line(address.wrapping_sub(before).wrapping_add(offset));
    }
}

/// Asks for one cache line.
#[inline]
pub(crate) fn line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads no value and cannot fault, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
