//! A device with its one queue pair: frames in and out, each in a buffer of DPDK's.

use std::ffi::CString;
use std::io::Error;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::eal;
use crate::ffi::{self, Frame};
use crate::options::DpdkError;

/// Frames of one call.
pub(crate) const BURST: usize = 64;

/// DPDK's lists of devices, ports and pools are not promised to be for several threads at a time.
static LISTS: Mutex<()> = Mutex::new(());

fn lists() -> MutexGuard<'static, ()> {
    LISTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device that DPDK has found, or made. It is let go of when this and the queue over it are dropped.
#[derive(Debug)]
pub struct Device {
    name: String,
    port: u16,
    handle: NonNull<ffi::Handle>,
    /// It has been opened; that can be done once.
    is_taken: AtomicBool,
}

// SAFETY: `handle` is used by `Drop` alone, which holds `LISTS`.
unsafe impl Send for Device {}
// SAFETY: what is shared is a number, a name and an atomic.
unsafe impl Sync for Device {}

impl Device {
    /// Starts DPDK, if this process has not yet, and finds a device: a network card by its PCI address, a virtual one by driver and
    /// parameters. A virtual one over a network interface looks for that in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// See [`DpdkError`].
    pub fn find(device: &str, eal_arguments: &[String]) -> Result<Arc<Self>, DpdkError> {
        eal::start(device, eal_arguments)?;
        let text = CString::new(device).map_err(|_| DpdkError::Text(device.to_owned()))?;
        let (mut port, mut handle) = (0, std::ptr::null_mut());
        let _guard = lists();
        // SAFETY: DPDK has started, `LISTS` is held; a text that ends in a zero, and places for a number and a pointer.
        let result = unsafe { ffi::headworks_dpdk_probe(text.as_ptr(), &raw mut port, &raw mut handle) };
        let no_device =
            |errno: i32| DpdkError::NoDevice { device: device.to_owned(), errno: Error::from_raw_os_error(errno) };
        if result < 0 {
            return Err(no_device(-result));
        }
        let handle = NonNull::new(handle).ok_or_else(|| no_device(0))?;
        Ok(Arc::new(Self { name: device.to_owned(), port, handle, is_taken: AtomicBool::new(false) }))
    }

    /// What it was found by.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _guard = lists();
        // SAFETY: found by `find`, and its port is closed: an `OpenDevice` holds this one until it has closed it. `LISTS` is held.
        unsafe { ffi::headworks_dpdk_remove(self.handle.as_ptr()) };
    }
}

/// This thread is known to DPDK, which has a cache of buffers for it, until this is dropped. There are 128 places in a process.
struct KnownThread {
    /// It leaves on the thread that it has entered on.
    _thread: PhantomData<*const ()>,
}

impl KnownThread {
    /// `None` if the thread is known already, so that somebody else sees to it, or if there is no place left: it only does without a
    /// cache then.
    fn enter() -> Option<Self> {
        let _guard = lists();
        // SAFETY: DPDK has started, or there were no device. `LISTS` is held.
        let has_entered = unsafe { ffi::headworks_dpdk_enter_thread() } == 1;
        has_entered.then(|| Self { _thread: PhantomData })
    }
}

impl Drop for KnownThread {
    fn drop(&mut self) {
        let _guard = lists();
        // SAFETY: entered by this very thread (`!Send`), which nobody else lets leave. `LISTS` is held.
        unsafe { ffi::headworks_dpdk_leave_thread() };
    }
}

/// A device that runs. It stays on the thread that has opened it.
pub(crate) struct OpenDevice {
    pool: NonNull<ffi::Pool>,
    pub(crate) mac: [u8; 6],
    pub(crate) driver: String,
    /// Frames that its receive ring holds.
    pub(crate) ring: u16,
    /// The thread's cache is needed until the pool is gone, which `drop` sees to.
    _thread: Option<KnownThread>,
    device: Arc<Device>,
}

impl OpenDevice {
    pub(crate) fn open(device: Arc<Device>, frame_size: usize, ring: u16) -> Result<Self, DpdkError> {
        // Relaxed: who comes second only learns that he does.
        if device.is_taken.swap(true, Ordering::Relaxed) {
            return Err(DpdkError::Open(device.name.clone()));
        }
        // Before the guard, which it takes when it goes.
        let thread = KnownThread::enter();
        let _guard = lists();
        let wanted =
            ffi::Wanted { frame_size: frame_size as u32, receive_descriptors: ring, send_descriptors: ring.min(1_024) };
        let mut started = ffi::Started {
            pool: std::ptr::null_mut(),
            mac: [0; 6],
            receive_descriptors: 0,
            send_descriptors: 0,
            driver: [0; 32],
        };
        // SAFETY: a port that was found and that nobody else has opened (`is_taken`), and places that are there. `LISTS` is held.
        let result = unsafe { ffi::headworks_dpdk_open(device.port, &raw const wanted, &raw mut started) };
        let Some(pool) = NonNull::new(started.pool).filter(|_| result >= 0) else {
            let (device, errno) = (device.name.clone(), Error::from_raw_os_error(-result));
            return Err(DpdkError::Device { device, what: "its queues", errno });
        };
        let driver = started.driver.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
        Ok(Self { pool, mac: started.mac, driver, ring: started.receive_descriptors, _thread: thread, device })
    }

    /// Has the card take these groups, or more than these where it cannot choose.
    pub(crate) fn take_groups(&self, mut macs: Vec<[u8; 6]>) -> Result<(), DpdkError> {
        // SAFETY: the port is open, and `macs` holds as many addresses as is said.
        let result = unsafe { ffi::headworks_dpdk_take_groups(self.device.port, macs.as_mut_ptr(), macs.len() as u32) };
        if result >= 0 {
            return Ok(());
        }
        let (device, errno) = (self.device.name.clone(), Error::from_raw_os_error(-result));
        Err(DpdkError::Device { device, what: "multicast groups", errno })
    }

    /// Shows up to `count` frames that have come in, each with whether it is longer than what is shown; gives their number.
    #[inline]
    pub(crate) fn receive(&mut self, count: usize, mut show: impl FnMut(&[u8], bool)) -> usize {
        let none = Frame { buffer: std::ptr::null_mut(), bytes: std::ptr::null(), length: 0, whole: 0 };
        let mut frames = [none; BURST];
        let count = count.min(BURST) as u32;
        // SAFETY: the port is open and of this thread (`!Send`, by `pool`), and `frames` has room for `count`.
        let received = unsafe { ffi::headworks_dpdk_receive(self.device.port, frames.as_mut_ptr(), count) };
        let received = &frames[..received as usize];
        for frame in received {
            // SAFETY: DPDK has given the buffer away until it is freed below, `length` bytes of it are filled, and the card writes
            // to it no more.
            let bytes = unsafe { std::slice::from_raw_parts(frame.bytes, frame.length as usize) };
            show(bytes, frame.whole > frame.length);
            // SAFETY: received above, and not looked at any more.
            unsafe { ffi::headworks_dpdk_free(frame.buffer) };
        }
        received.len()
    }

    /// A buffer to be filled, if there is one left.
    pub(crate) fn take(&mut self) -> Option<OutgoingFrame> {
        let (mut bytes, mut room) = (std::ptr::null_mut(), 0);
        // SAFETY: the pool is there as long as the device is open, and both places are.
        let buffer = unsafe { ffi::headworks_dpdk_take(self.pool.as_ptr(), &raw mut bytes, &raw mut room) };
        let (buffer, bytes) = (NonNull::new(buffer)?, NonNull::new(bytes)?);
        Some(OutgoingFrame { buffer, bytes, room, is_datagram: false })
    }

    /// Hands frames to the card in their order. Those that it has taken are no more in `frames`; gives how many of them were
    /// datagrams.
    pub(crate) fn send(&mut self, frames: &mut Vec<OutgoingFrame>) -> u64 {
        let mut buffers = [std::ptr::null_mut(); BURST];
        let count = frames.len().min(BURST);
        for (buffer, frame) in buffers.iter_mut().zip(frames.iter()) {
            *buffer = frame.buffer.as_ptr();
        }
        // SAFETY: `count` buffers of the port's own pool that nobody else has (`OutgoingFrame` owns each).
        let taken = unsafe { ffi::headworks_dpdk_send(self.device.port, buffers.as_mut_ptr(), count as u32) } as usize;
        let mut datagrams = 0;
        for frame in frames.drain(..taken.min(count)) {
            datagrams += u64::from(frame.is_datagram);
            // The card frees it.
            std::mem::forget(frame);
        }
        datagrams
    }

    /// Frames that the card has lost because its ring was full or no buffer was left, and those it says were damaged.
    pub(crate) fn lost(&self) -> (u64, u64) {
        let mut lost = ffi::Lost::default();
        // SAFETY: the port is open, and the place is there.
        unsafe { ffi::headworks_dpdk_lost(self.device.port, &raw mut lost) };
        (lost.missed + lost.no_buffer, lost.errors)
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        let _guard = lists();
        // SAFETY: open, and no buffer is anywhere but in its rings: what comes in is freed in `receive`, and the queue's frames
        // stand before the device among its fields, so that they are dropped first. `LISTS` is held.
        unsafe { ffi::headworks_dpdk_close(self.device.port, self.pool.as_ptr()) };
    }
}

/// A frame on its way out, in a buffer of the device's pool.
pub(crate) struct OutgoingFrame {
    buffer: NonNull<ffi::Buffer>,
    bytes: NonNull<u8>,
    room: u32,
    is_datagram: bool,
}

impl OutgoingFrame {
    /// The bytes to be written. What they held before is nobody's secret: frames that came or went.
    #[inline]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `room` bytes of a buffer that is this one's alone; DPDK's memory is mapped and zeroed from the start.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.room as usize) }
    }

    /// Says how many bytes have been written, and whether they are a datagram of the shard.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    #[inline]
    pub(crate) fn finish(&mut self, length: usize, is_datagram: bool) {
        self.is_datagram = is_datagram;
        assert!(length <= self.room as usize, "a frame of {length} bytes in a buffer of {}", self.room);
        // SAFETY: the buffer is this one's, and holds as much.
        unsafe { ffi::headworks_dpdk_set_length(self.buffer.as_ptr(), length as u32) };
    }

    /// Whether it is a datagram of the shard, and no answer of the edge.
    pub(crate) fn is_datagram(&self) -> bool {
        self.is_datagram
    }
}

impl Drop for OutgoingFrame {
    fn drop(&mut self) {
        // SAFETY: taken by `OpenDevice::take`, and not handed to the card, which forgets it (`OpenDevice::send`).
        unsafe { ffi::headworks_dpdk_free(self.buffer.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More threads than DPDK has places for (`RTE_MAX_LCORE`).
    const THREADS: usize = 150;

    fn open_where_there_is_no_memory(device: &Arc<Device>) -> Result<(), DpdkError> {
        device.is_taken.store(false, Ordering::Relaxed);
        OpenDevice::open(Arc::clone(device), 60_000, 4_096).map(drop)
    }

    #[test]
    fn a_thread_that_could_not_open_its_device_leaves_no_place_taken() {
        let arguments = ["--no-huge", "-m", "64"].map(str::to_owned);
        let device = Device::find("net_null0", &arguments).unwrap();
        for _ in 0..THREADS {
            let opened =
                std::thread::scope(|scope| scope.spawn(|| open_where_there_is_no_memory(&device)).join().unwrap());
            assert!(matches!(opened, Err(DpdkError::Device { what: "its queues", .. })), "{opened:?}");
        }
        let has_entered = || KnownThread::enter().is_some();
        assert!(std::thread::spawn(has_entered).join().unwrap(), "no place is left");
    }

    #[test]
    fn a_thread_is_entered_once_and_left_by_whoever_has_entered_it() {
        let arguments = ["--no-huge", "-m", "64"].map(str::to_owned);
        let _device = Device::find("net_null1", &arguments).unwrap();
        let enter_twice = || {
            let first = KnownThread::enter();
            assert!(first.is_some() && KnownThread::enter().is_none());
            drop(first);
            KnownThread::enter().is_some()
        };
        assert!(std::thread::spawn(enter_twice).join().unwrap());
    }
}
