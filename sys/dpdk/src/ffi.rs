//! The functions of `shim.c`, by hand.

use std::ffi::{c_char, c_int};

/// `struct rte_mbuf`: only ever behind a pointer.
#[repr(C)]
pub(crate) struct Buffer {
    _private: [u8; 0],
}

/// `struct rte_mempool`, likewise.
#[repr(C)]
pub(crate) struct Pool {
    _private: [u8; 0],
}

/// `struct rte_device`, likewise.
#[repr(C)]
pub(crate) struct Handle {
    _private: [u8; 0],
}

/// A frame that has come in.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) buffer: *mut Buffer,
    pub(crate) bytes: *const u8,
    /// Bytes of the first buffer, and of all.
    pub(crate) length: u32,
    pub(crate) whole: u32,
}

#[repr(C)]
pub(crate) struct Wanted {
    pub(crate) frame_size: u32,
    pub(crate) receive_descriptors: u16,
    pub(crate) send_descriptors: u16,
}

#[repr(C)]
pub(crate) struct Started {
    pub(crate) pool: *mut Pool,
    pub(crate) mac: [u8; 6],
    pub(crate) receive_descriptors: u16,
    pub(crate) send_descriptors: u16,
    pub(crate) driver: [u8; 32],
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct Lost {
    pub(crate) missed: u64,
    pub(crate) errors: u64,
    pub(crate) no_buffer: u64,
}

unsafe extern "C" {
    pub(crate) fn headworks_dpdk_start(count: c_int, arguments: *mut *mut c_char) -> c_int;
    pub(crate) fn headworks_dpdk_enter_thread() -> c_int;
    pub(crate) fn headworks_dpdk_leave_thread();
    pub(crate) fn headworks_dpdk_probe(device: *const c_char, port: *mut u16, handle: *mut *mut Handle) -> c_int;
    pub(crate) fn headworks_dpdk_remove(handle: *mut Handle);
    pub(crate) fn headworks_dpdk_open(port: u16, wanted: *const Wanted, started: *mut Started) -> c_int;
    pub(crate) fn headworks_dpdk_close(port: u16, pool: *mut Pool);
    pub(crate) fn headworks_dpdk_take_groups(port: u16, macs: *mut [u8; 6], count: u32) -> c_int;
    pub(crate) fn headworks_dpdk_receive(port: u16, frames: *mut Frame, count: u32) -> u32;
    pub(crate) fn headworks_dpdk_free(buffer: *mut Buffer);
    pub(crate) fn headworks_dpdk_take(pool: *mut Pool, bytes: *mut *mut u8, room: *mut u32) -> *mut Buffer;
    pub(crate) fn headworks_dpdk_set_length(buffer: *mut Buffer, length: u32);
    pub(crate) fn headworks_dpdk_send(port: u16, buffers: *mut *mut Buffer, count: u32) -> u32;
    pub(crate) fn headworks_dpdk_lost(port: u16, lost: *mut Lost);
}
