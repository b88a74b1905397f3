//! The program on an interface, with its maps. It is there for as long as this value, or the process, is.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::bpf::{self, MAPPABLE, MapKind, Mode};
use crate::options::XdpError;
use crate::program::{
    self, Maps, Owner, PORT_KEY_SIZE, PORT_VALUE_SIZE, QUEUE_LENT, QUEUE_SHARD, QUEUE_SIZE, QUEUE_TAKEN, QUEUE_UNTIMED,
    port_key,
};

/// Queues that an interface may have.
pub(crate) const QUEUES_MAX: usize = 64;
/// How long what somebody else has is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(200);
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Characters of the verifier's log that an error shows: its last lines say what is wrong.
const LOG_SHOWN: usize = 600;

/// An address and port to be taken, and how the shard is found that they belong to.
pub type Port = (IpAddr, u16, Owner);

/// The program on one interface. Shards share it, each with queues of its own.
pub struct Attachment {
    // Closed first: then nothing is brought any more.
    _link: OwnedFd,
    name: String,
    index: u32,
    mode: Mode,
    queues: QueueTable,
    sockets: OwnedFd,
    _program: OwnedFd,
    _ports: OwnedFd,
}

impl Attachment {
    /// Has the interface run the program, by its driver where that can, for slots of `slot_size` bytes. Until a shard has lent slots
    /// for a queue, all of its packets go the kernel's way.
    ///
    /// # Errors
    ///
    /// See [`XdpError`].
    pub fn new(name: &str, index: u32, ports: &[Port], slot_size: usize, shards: u32) -> Result<Self, XdpError> {
        let failed = |call| XdpError::of(call, name);
        let map = |kind, title, key, value, count, flags| {
            bpf::create_map(kind, title, key, value, count, flags).map_err(failed("bpf (map)"))
        };
        let known = map(MapKind::Hash, "hw_ports", PORT_KEY_SIZE, PORT_VALUE_SIZE, ports.len().max(1), 0)?;
        for &(address, port, owner) in ports {
            // SAFETY: the map was made above, with keys and values of these sizes.
            unsafe { bpf::update(known.as_fd(), &port_key(address, port), &owner.encode()) }
                .map_err(failed("bpf (port)"))?;
        }
        let queues = map(MapKind::Array, "hw_queues", size_of::<u32>(), QUEUE_SIZE, QUEUES_MAX, MAPPABLE)?;
        let sockets = map(MapKind::Sockets, "hw_sockets", size_of::<u32>(), size_of::<u32>(), QUEUES_MAX, 0)?;
        let maps = Maps { ports: known.as_raw_fd(), queues: queues.as_raw_fd(), sockets: sockets.as_raw_fd() };
        let queues = QueueTable::map(queues.as_fd()).map_err(failed("mmap"))?;
        let program = program::program(&maps, slot_size, shards.max(1));
        let program = bpf::load_xdp(&program, "headworks").map_err(|refused| match refused.errno {
            Errno::PERM => XdpError::Privilege { call: "bpf (program)" },
            errno => {
                let from = refused.log.char_indices().rev().nth(LOG_SHOWN - 1).map_or(0, |(at, _)| at);
                XdpError::Program { errno, log: refused.log[from..].to_owned() }
            }
        })?;
        let (link, mode) = match link(&program, index, Mode::Native) {
            Ok(link) => (link, Mode::Native),
            Err(errno @ (Errno::BUSY | Errno::EXIST | Errno::PERM)) => return Err(failed("bpf (link)")(errno)),
            // The driver cannot, or not with this MTU or these offloads; the kernel can for all.
            Err(_) => (link(&program, index, Mode::Generic).map_err(failed("bpf (link)"))?, Mode::Generic),
        };
        Ok(Self { _link: link, name: name.to_owned(), index, mode, queues, sockets, _program: program, _ports: known })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's number.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// By whom the program is run.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Has the program bring what belongs to `shard` to the socket of a queue, as soon as slots are lent.
    pub(crate) fn connect(&self, queue: u32, shard: u32, socket: BorrowedFd<'_>) -> Result<(), XdpError> {
        // Relaxed: the program goes by it when the queue has been lent slots, which is told later and with release (`lend`).
        self.queues.shard(queue).store(shard, Ordering::Relaxed);
        let socket = socket.as_raw_fd() as u32;
        // SAFETY: the map was made in `new`, with keys and values of these sizes.
        unsafe { bpf::update(self.sockets.as_fd(), &queue.to_ne_bytes(), &socket.to_ne_bytes()) }
            .map_err(XdpError::of("bpf (socket)", &self.name))
    }

    /// Tells the program how many slots a queue has been lent since the beginning; 0 has it take nothing any more.
    pub(crate) fn lend(&self, queue: u32, lent: u64) {
        // Release: pairs with the program's addition, before which it reads this; slots and shard are there by then.
        self.queues.lent(queue).store(lent, Ordering::Release);
    }

    /// Whether the program has used up all slots that a queue was lent, or has been lent none yet: what comes now goes the kernel's
    /// way, until more are lent.
    pub(crate) fn is_used_up(&self, queue: u32) -> bool {
        // Relaxed: only this side writes it.
        self.taken(queue) >= self.queues.lent(queue).load(Ordering::Relaxed)
    }

    /// Slots of a queue that the program has used since it was put on the interface.
    pub(crate) fn taken(&self, queue: u32) -> u64 {
        // Acquire: pairs with the program's addition, which orders as the processor does; what it has taken before is on its way.
        self.queues.taken(queue).load(Ordering::Acquire)
    }

    /// Whether the frames of a queue have no times before them, for want of room.
    pub(crate) fn is_untimed(&self, queue: u32) -> bool {
        // Relaxed: the program writes it before it passes the frame on, which was seen with acquire (`ReceiveRing::waiting`).
        self.queues.untimed(queue).load(Ordering::Relaxed) != 0
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment").field("name", &self.name).field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// A program outlives its owner by some milliseconds where a child of that has just been started; so long it is tried again.
fn link(program: &OwnedFd, interface: u32, mode: Mode) -> Result<OwnedFd, Errno> {
    let began = Instant::now();
    loop {
        match bpf::link_xdp(program.as_fd(), interface, mode) {
            Err(Errno::BUSY | Errno::EXIST) if began.elapsed() < RETRY => std::thread::sleep(RETRY_PAUSE),
            outcome => return outcome,
        }
    }
}

/// The map of queues, as memory.
struct QueueTable {
    base: NonNull<u8>,
}

const TABLE_SIZE: usize = QUEUES_MAX * QUEUE_SIZE;

// SAFETY: everything in it is reached by atomics (`lent`, `taken`, `shard`, `untimed`), and the mapping stays until the value is
// dropped.
unsafe impl Send for QueueTable {}
// SAFETY: the same.
unsafe impl Sync for QueueTable {}

impl QueueTable {
    fn map(map: BorrowedFd<'_>) -> Result<Self, Errno> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing that exists.
        let base = unsafe { mmap(std::ptr::null_mut(), TABLE_SIZE, protection, flags, map, 0)? };
        Ok(Self { base: NonNull::new(base.cast()).ok_or(Errno::NOMEM)? })
    }

    fn place(&self, queue: u32, offset: usize) -> NonNull<u8> {
        assert!((queue as usize) < QUEUES_MAX && offset < QUEUE_SIZE);
        // SAFETY: within the mapping, as judged above.
        unsafe { self.base.add(queue as usize * QUEUE_SIZE + offset) }
    }

    fn lent(&self, queue: u32) -> &AtomicU64 {
        // SAFETY: eight bytes of the queue's entry at a multiple of eight, written here and read by the program, by atomics only.
        unsafe { AtomicU64::from_ptr(self.place(queue, QUEUE_LENT).cast().as_ptr()) }
    }

    fn taken(&self, queue: u32) -> &AtomicU64 {
        // SAFETY: as `lent`, but that the program writes it and it is read here.
        unsafe { AtomicU64::from_ptr(self.place(queue, QUEUE_TAKEN).cast().as_ptr()) }
    }

    fn shard(&self, queue: u32) -> &AtomicU32 {
        // SAFETY: four bytes of the entry at a multiple of four, as above.
        unsafe { AtomicU32::from_ptr(self.place(queue, QUEUE_SHARD).cast().as_ptr()) }
    }

    fn untimed(&self, queue: u32) -> &AtomicU32 {
        // SAFETY: four bytes of the entry at a multiple of four, written by the program and read here.
        unsafe { AtomicU32::from_ptr(self.place(queue, QUEUE_UNTIMED).cast().as_ptr()) }
    }
}

impl Drop for QueueTable {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; nothing borrowed from `self` outlives it.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), TABLE_SIZE) };
        debug_assert!(unmapped.is_ok());
    }
}
