//! `bpf(2)`: maps, programs, links. Each is a descriptor, and gone when nobody has it open.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::assembler::Instruction;

/// `enum bpf_cmd`.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;

/// `enum bpf_map_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum MapKind {
    Hash = 1,
    Array = 2,
    Sockets = 17,
}

/// `BPF_F_MMAPABLE`.
pub(crate) const MAPPABLE: u32 = 1 << 10;

/// `BPF_PROG_TYPE_XDP`, `BPF_XDP`.
const PROGRAM_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// Bytes of the verifier's log that are asked for; an error shows the end of them.
const LOG_SIZE: usize = 64 << 10;
/// What the program calls is open to all licences.
const LICENCE: &std::ffi::CStr = c"Apache-2.0";

/// How a program is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    /// By the kernel for any driver, after it has made a socket buffer of the frame (`XDP_FLAGS_SKB_MODE`).
    Generic = 1 << 1,
    /// By the driver, before that (`XDP_FLAGS_DRV_MODE`).
    Native = 1 << 2,
}

impl Mode {
    /// The usual word for it: `native`, `generic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// What `bpf(2)` takes for each command (`union bpf_attr`), as far as it is used.
///
/// # Safety
///
/// `repr(C)`, without padding, the members of the command's part of the union in their order from the first one on.
unsafe trait Attribute {}

#[repr(C)]
struct CreateMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

#[repr(C)]
struct UpdateElement {
    map: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct LoadProgram {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct CreateLink {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

// SAFETY: as `linux/bpf.h` has it; the sizes add up (`const` below), so there is no padding.
unsafe impl Attribute for CreateMap {}
// SAFETY: the same.
unsafe impl Attribute for UpdateElement {}
// SAFETY: the same.
unsafe impl Attribute for LoadProgram {}
// SAFETY: the same.
unsafe impl Attribute for CreateLink {}

const _: () = assert!(
    size_of::<CreateMap>() == 44
        && size_of::<UpdateElement>() == 32
        && size_of::<LoadProgram>() == 72
        && size_of::<CreateLink>() == 16
);

/// # Safety
///
/// The addresses in `attribute` are good for what `command` does with them.
unsafe fn bpf<T: Attribute>(command: libc::c_int, attribute: &T) -> Result<libc::c_int, Errno> {
    // SAFETY: pointer and size of one live value, which the kernel only reads; the rest is the caller's word.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attribute), size_of::<T>() as libc::c_uint) };
    if result >= 0 {
        return Ok(result as libc::c_int);
    }
    // SAFETY: errno is this thread's own.
    Err(Errno::from_raw_os_error(unsafe { *libc::__errno_location() }))
}

/// # Safety
///
/// `descriptor` was opened just now and is nobody else's.
unsafe fn own(descriptor: libc::c_int) -> OwnedFd {
    // SAFETY: by the caller's word. The kernel opens descriptors of bpf(2) with close-on-exec.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Names that tools show: fifteen letters at most.
fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

pub(crate) fn create_map(
    kind: MapKind,
    title: &str,
    key_size: usize,
    value_size: usize,
    max_entries: usize,
    flags: u32,
) -> Result<OwnedFd, Errno> {
    let attribute = CreateMap {
        kind: kind as u32,
        key_size: key_size as u32,
        value_size: value_size as u32,
        max_entries: max_entries as u32,
        flags,
        inner_map: 0,
        numa_node: 0,
        name: name(title),
    };
    // SAFETY: there is no address in it; the answer is a new descriptor.
    unsafe { bpf(MAP_CREATE, &attribute).map(|descriptor| own(descriptor)) }
}

/// Puts a value into a map under a key, both of exactly the sizes that the map was made with.
///
/// # Safety
///
/// The map has keys of `K` bytes and values of `V` bytes: the kernel reads as many.
pub(crate) unsafe fn update<const K: usize, const V: usize>(
    map: BorrowedFd<'_>,
    key: &[u8; K],
    value: &[u8; V],
) -> Result<(), Errno> {
    let attribute = UpdateElement {
        map: map.as_raw_fd() as u32,
        unused: 0,
        key: key.as_ptr() as u64,
        value: value.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the addresses are those of two live arrays, whose sizes are the map's by the caller's word; the kernel only reads them.
    unsafe { bpf(MAP_UPDATE_ELEM, &attribute).map(drop) }
}

/// Why a program was not loaded.
pub(crate) struct LoadError {
    pub(crate) errno: Errno,
    /// What the verifier has said.
    pub(crate) log: String,
}

pub(crate) fn load_xdp(program: &[Instruction], title: &str) -> Result<OwnedFd, LoadError> {
    match load(program, title, &mut []) {
        Ok(loaded) => Ok(loaded),
        // The log is written where it is asked for only, and costs time.
        Err(Errno::PERM) => Err(LoadError { errno: Errno::PERM, log: String::new() }),
        Err(_) => {
            let mut log = vec![0; LOG_SIZE];
            load(program, title, &mut log).map_err(|errno| {
                let text = log.split(|&byte| byte == 0).next().unwrap_or_default();
                LoadError { errno, log: String::from_utf8_lossy(text).trim().to_owned() }
            })
        }
    }
}

fn load(program: &[Instruction], title: &str, log: &mut [u8]) -> Result<OwnedFd, Errno> {
    let attribute = LoadProgram {
        kind: PROGRAM_XDP,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        licence: LICENCE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: 0,
        name: name(title),
        interface: 0,
        attach_type: ATTACH_XDP,
    };
    // SAFETY: the addresses are those of live arrays with the lengths beside them, of which the kernel writes the log only, which
    // is borrowed mutably; the answer is a new descriptor.
    unsafe { bpf(PROG_LOAD, &attribute).map(|descriptor| own(descriptor)) }
}

/// Has an interface run a program for as long as the link is open.
pub(crate) fn link_xdp(program: BorrowedFd<'_>, interface: u32, mode: Mode) -> Result<OwnedFd, Errno> {
    let attribute =
        CreateLink { program: program.as_raw_fd() as u32, interface, attach_type: ATTACH_XDP, flags: mode as u32 };
    // SAFETY: there is no address in it; the answer is a new descriptor.
    unsafe { bpf(LINK_CREATE, &attribute).map(|descriptor| own(descriptor)) }
}
