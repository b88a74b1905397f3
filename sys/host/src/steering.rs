//! One port, many shards: which socket of a REUSEPORT group gets a datagram.
//!
//! A classic BPF program, run by the kernel for each datagram (or GRO aggregate) of the group, gives the index of a socket in bind
//! order. It sees the UDP payload at offset 0. A load beyond its end makes the result 0; an index beyond the group makes the
//! kernel fall back to its hash of addresses and ports. For every program there is a function here that says the same in Rust.
//!
//! ```text
//! SRT socket id, 30 bits:   29 ……… 22 │ 21 ……………… 0
//!                           shard      │ random, not 0        (bit 30 marks groups, bit 31 is never set)
//! ```

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use crate::socket::set_raw;

/// Most shards that can share a port: eight bits of an SRT socket id.
pub const MAX_SHARDS: usize = 256;

/// Lowest of the shard bits in an SRT socket id.
const SHARD_SHIFT: u32 = 22;
const RANDOM_MASK: u32 = (1 << SHARD_SHIFT) - 1;

/// SRT header: destination socket id (draft-sharabayko-srt §3).
const SRT_DESTINATION: u32 = 12;
/// SRT handshake: the sender's own socket id (draft-sharabayko-srt §3.2.1).
const SRT_HANDSHAKE_SOCKET: u32 = 40;
/// RTP header: SSRC (RFC 3550 §5.1).
const RTP_SSRC: u32 = 8;
/// RTCP packet: SSRC of the sender (RFC 3550 §6.4).
const RTCP_SSRC: u32 = 4;

/// Version of RTP, the top two bits of its first byte (RFC 3550 §5.1). A transport packet begins with 0x47, or with a time code
/// of 30 bits behind two that are 0 in all live streams.
const RTP_VERSION: u32 = 2;
const RTP_VERSION_SHIFT: u32 = 6;

/// Knuth's multiplicative constant, 2³² ÷ φ: spreads numbers that are close together.
const SPREAD: u32 = 0x9e37_79b1;

/// By what the datagrams of a shared port are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steering {
    /// SRT: by the shard in the destination socket id; handshakes to id 0 by the caller's own id.
    Srt,
    /// RTP: by SSRC; anything else on the same port (raw transport stream) by source address.
    Rtp,
    /// RTCP: by the SSRC of the sender.
    Rtcp,
    /// Anything (raw transport stream): by source address, whatever the port.
    Source,
}

/// Why a program was not attached.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// 0 shards, or more than [`MAX_SHARDS`].
    #[error("1 to 256 shards can share a port, not {0}")]
    ShardCount(usize),
    /// The kernel refused.
    #[error("cannot attach the steering program: {0}")]
    System(io::Error),
}

/// The shard an SRT socket id belongs to.
#[inline]
pub const fn shard_of_socket_id(id: u32) -> usize {
    ((id >> SHARD_SHIFT) & 0xff) as usize
}

/// An SRT socket id of `shard`, from 22 bits of `random`. It is never 0, and bits 30 and 31 are clear.
///
/// # Panics
///
/// If `shard` is not below [`MAX_SHARDS`].
#[inline]
pub const fn compose_socket_id(shard: usize, random: u32) -> u32 {
    assert!(shard < MAX_SHARDS);
    let random = random & RANDOM_MASK;
    (shard as u32) << SHARD_SHIFT | if random == 0 { 1 } else { random }
}

#[inline]
const fn spread(word: u32, shards: usize) -> usize {
    (word.wrapping_mul(SPREAD) >> 16) as usize % shards
}

/// The shard that gets the handshakes of a caller, by the caller's own socket id.
#[inline]
pub const fn shard_of_handshake(caller_id: u32, shards: usize) -> usize {
    spread(caller_id, shards)
}

/// The shard that gets an RTP source.
#[inline]
pub const fn shard_of_ssrc(ssrc: u32, shards: usize) -> usize {
    spread(ssrc, shards)
}

/// The shard that gets datagrams of a source address.
#[inline]
pub fn shard_of_source(source: IpAddr, shards: usize) -> usize {
    match source.to_canonical() {
        IpAddr::V4(source) => spread(source.to_bits(), shards),
        IpAddr::V6(source) => {
            let bits = source.to_bits();
            let folded = bits >> 96 ^ bits >> 64 ^ bits >> 32 ^ bits;
            spread(folded as u32, shards)
        }
    }
}

/// One instruction of classic BPF, `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

// `linux/bpf_common.h`, `linux/filter.h`.
const LOAD_WORD: u16 = 0x20;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const SHIFT_RIGHT: u16 = 0x74;
const MULTIPLY: u16 = 0x24;
const MODULO: u16 = 0x94;
const XOR_X: u16 = 0xac;
const COPY_TO_X: u16 = 0x07;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN_A: u16 = 0x16;
/// Loads from here on count from the network header instead of the payload (`SKF_NET_OFF`, -0x100000).
const NETWORK_HEADER: u32 = 0xfff0_0000;

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

const fn jump_if_equal(k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code: JUMP_IF_EQUAL, jump_true, jump_false, k }
}

/// `A` → [`spread`] of it → return.
const fn spread_and_return(shards: u32) -> [Instruction; 4] {
    [op(MULTIPLY, SPREAD), op(SHIFT_RIGHT, 16), op(MODULO, shards), op(RETURN_A, 0)]
}

fn program(steering: Steering, shards: u32) -> Vec<Instruction> {
    let mut program = match steering {
        Steering::Srt => vec![
            op(LOAD_WORD, SRT_DESTINATION),
            jump_if_equal(0, 3, 0),
            op(SHIFT_RIGHT, SHARD_SHIFT),
            op(AND, 0xff),
            op(RETURN_A, 0),
            op(LOAD_WORD, SRT_HANDSHAKE_SOCKET),
        ],
        Steering::Rtp => {
            let source = load_source();
            let past_source = source.len() as u8 + 1;
            let mut program =
                vec![op(LOAD_BYTE, 0), op(SHIFT_RIGHT, RTP_VERSION_SHIFT), jump_if_equal(RTP_VERSION, past_source, 0)];
            program.extend(source);
            program.extend([op(JUMP, 1), op(LOAD_WORD, RTP_SSRC)]);
            program
        }
        Steering::Rtcp => vec![op(LOAD_WORD, RTCP_SSRC)],
        Steering::Source => load_source(),
    };
    program.extend(spread_and_return(shards));
    program
}

/// The source address → `A`, the words of an IPv6 address folded into one.
fn load_source() -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_BYTE, NETWORK_HEADER),
        op(SHIFT_RIGHT, 4),
        jump_if_equal(6, 2, 0),
        // IPv4: the source address; then past the ten instructions for IPv6.
        op(LOAD_WORD, NETWORK_HEADER + 12),
        op(JUMP, 10),
    ];
    program.push(op(LOAD_WORD, NETWORK_HEADER + 8));
    for word in 1..4 {
        program.extend([op(COPY_TO_X, 0), op(LOAD_WORD, NETWORK_HEADER + 8 + 4 * word), op(XOR_X, 0)]);
    }
    program
}

/// Attaches the program to the REUSEPORT group of `socket`; once for the group, after all of its sockets are bound in shard
/// order. From then on none may be closed: the last would move into its place.
///
/// # Errors
///
/// See [`SteeringError`].
pub fn attach_steering(socket: impl AsFd, shards: usize, steering: Steering) -> Result<(), SteeringError> {
    if shards == 0 || shards > MAX_SHARDS {
        return Err(SteeringError::ShardCount(shards));
    }
    if shards == 1 {
        // There is nothing to choose, and no group either until a second socket joins.
        return Ok(());
    }
    let mut instructions = program(steering, shards as u32);
    let program = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_mut_ptr().cast() };
    // SAFETY: what the kernel takes for this option: a count and a pointer to that many instructions, which `Instruction` has the
    // layout of and which are read during the call only. The padding between the two members is not read.
    unsafe { set_raw(socket.as_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program) }
        .map_err(SteeringError::System)
}

const _: () = assert!(
    size_of::<Instruction>() == size_of::<libc::sock_filter>()
        && align_of::<Instruction>() == align_of::<libc::sock_filter>()
);

#[cfg(test)]
mod tests;
