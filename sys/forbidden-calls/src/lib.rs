//! For tests of hosts without io_uring: a thread that the kernel refuses it to, as the seccomp profiles of containers do.
//!
//! ```
//! use headworks_forbidden_calls::forbid_io_uring;
//!
//! std::thread::spawn(|| {
//!     forbid_io_uring().unwrap();
//!     // Neither this thread nor any thread or process that it starts gets a ring.
//! })
//! .join()
//! .unwrap();
//! ```

use std::io;

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// From now on `io_uring_setup` answers `EPERM` to this thread and to all that it starts, for as long as they live.
///
/// # Errors
///
/// The kernel has no seccomp.
pub fn forbid_io_uring() -> io::Result<()> {
    let statement = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut program = [
        // The number of the call is the first word of `struct seccomp_data`.
        statement(LOAD_WORD, 0, 0),
        statement(JUMP_IF_EQUAL, 1, libc::SYS_io_uring_setup as u32),
        statement(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        statement(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes no pointer. It is what allows a filter without privileges.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `filter` names `program` with its length; the kernel copies it in the call.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
