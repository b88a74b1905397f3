//! The XDP program: which frames leave the kernel's way for packet memory.
//!
//! A frame is taken if it is a UDP datagram over IPv4 or IPv6, untagged, whole (no fragment), without IP options or extension
//! headers, not longer than a slot, for an address and port of the map of ports, if it belongs to the shard of the queue that
//! it came in by, and if that shard has lent the kernel a slot for it. Everything else goes on up the kernel's stack, and
//! comes to the ordinary socket of that port, or to whomever it is for: ARP, ICMP, other ports, multicast, fragments.
//!
//! So nothing is lost for want of a slot: what finds none waits in the socket's buffer.

use std::net::{IpAddr, Ipv6Addr};

use crate::assembler::Register::*;
use crate::assembler::{Assembler, Condition, Helper, Instruction, Operation, Size};

/// Bytes before a frame in packet memory for the time of its arrival (CLOCK_MONOTONIC, nanoseconds).
pub(crate) const METADATA_SIZE: usize = 8;
/// Bytes that the kernel leaves free at the beginning of each slot (`XDP_PACKET_HEADROOM`).
pub(crate) const HEADROOM: usize = 256;

/// Key of the map of ports: the address (IPv4 as mapped address), the port in network order, nothing.
pub(crate) const PORT_KEY_SIZE: usize = 20;
/// Value of the map of ports: how the shard is found, and which it is where that is known.
pub(crate) const PORT_VALUE_SIZE: usize = 8;

/// Bytes of an entry of the map of queues.
pub(crate) const QUEUE_SIZE: usize = 128;
/// In it: slots lent so far (u64, written by the shard), the shard of the queue (u32), whether a driver has had no room for
/// times (u32, written by the program), slots taken so far (u64, written by the program).
pub(crate) const QUEUE_LENT: usize = 0;
pub(crate) const QUEUE_SHARD: usize = 8;
pub(crate) const QUEUE_UNTIMED: usize = 12;
pub(crate) const QUEUE_TAKEN: usize = 64;

/// To which shard a datagram of a port belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// To the shard of whichever queue it came in by.
    Any,
    /// To this one.
    Shard(u32),
    /// To the one that its SRT destination socket id names (`headworks_host::shard_of_socket_id`). Handshakes, which have no
    /// destination yet, are not taken.
    SrtSocketId,
    /// To the one that an RTP source's SSRC leads to (`headworks_host::shard_of_ssrc`). What is no RTP is not taken.
    RtpSsrc,
}

const BY_QUEUE: u32 = 0;
const BY_NUMBER: u32 = 1;
const BY_SRT_SOCKET_ID: u32 = 2;
const BY_RTP_SSRC: u32 = 3;

impl Owner {
    /// As it stands in the map of ports.
    pub(crate) fn encode(self) -> [u8; PORT_VALUE_SIZE] {
        let (way, shard) = match self {
            Self::Any => (BY_QUEUE, 0),
            Self::Shard(shard) => (BY_NUMBER, shard),
            Self::SrtSocketId => (BY_SRT_SOCKET_ID, 0),
            Self::RtpSsrc => (BY_RTP_SSRC, 0),
        };
        let mut value = [0; PORT_VALUE_SIZE];
        value[..4].copy_from_slice(&way.to_ne_bytes());
        value[4..].copy_from_slice(&shard.to_ne_bytes());
        value
    }
}

/// An address and port as they stand in the map of ports.
pub(crate) fn port_key(address: IpAddr, port: u16) -> [u8; PORT_KEY_SIZE] {
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut key = [0; PORT_KEY_SIZE];
    key[..16].copy_from_slice(&address.octets());
    key[16..18].copy_from_slice(&port.to_be_bytes());
    key
}

/// Descriptors of the maps that the program reads.
pub(crate) struct Maps {
    pub(crate) ports: i32,
    pub(crate) queues: i32,
    pub(crate) sockets: i32,
}

/// `struct xdp_md`.
const CONTEXT_DATA: i16 = 0;
const CONTEXT_DATA_END: i16 = 4;
const CONTEXT_METADATA: i16 = 8;
const CONTEXT_QUEUE: i16 = 16;
/// `enum xdp_action`: on to the kernel's stack.
const PASS: i32 = 2;

const ETHERNET: i16 = 14;
const ETHERNET_TYPE: i16 = 12;
const TYPE_IPV4: i32 = 0x0800;
const TYPE_IPV6: i32 = 0x86dd;
const IPV4_LENGTH: i16 = 20;
const IPV6_LENGTH: i16 = 40;
const UDP_LENGTH: i16 = 8;
const UDP: i32 = 17;
/// More fragments follow, or this is not the first.
const FRAGMENT: i32 = 0x3fff;

// The stack: the key of the port, the number of the queue, the shard of a port that has one.
const KEY: i16 = -24;
const QUEUE: i16 = -32;
const PORT_SHARD: i16 = -28;

/// As in `headworks_host`: shard bits of an SRT socket id, and the constant by which SSRCs are spread.
const SRT_DESTINATION: i16 = 12;
const SRT_SHARD_SHIFT: i32 = 22;
const SRT_SHARD_MASK: i32 = 0xff;
const RTP_VERSION: i32 = 2;
const RTP_SSRC: i16 = 8;
const SPREAD: i32 = 0x9e37_79b1_u32 as i32;

/// The program, for slots of `slot_size` bytes and so many shards.
///
/// Registers: `R6` the context; `R7` the frame, then the port's owner, then the queue's entry; `R8` the frame's end; `R9` the UDP
/// payload.
pub(crate) fn program(maps: &Maps, slot_size: usize, shards: u32) -> Vec<Instruction> {
    let longest = (slot_size - HEADROOM - METADATA_SIZE) as i32;
    let mut it = Assembler::default();
    it.copy(R6, R1)
        .load(R7, R6, CONTEXT_DATA, Size::Word)
        .load(R8, R6, CONTEXT_DATA_END, Size::Word)
        .address(R1, R7, longest)
        .jump_if(R8, Condition::Greater, R1, "pass")
        .address(R1, R7, (ETHERNET + IPV4_LENGTH + UDP_LENGTH).into())
        .jump_if(R1, Condition::Greater, R8, "pass")
        .load(R1, R7, ETHERNET_TYPE, Size::Half)
        .network_order(R1, 16)
        .jump_if_value(R1, Condition::Equal, TYPE_IPV6, "ipv6")
        .jump_if_value(R1, Condition::NotEqual, TYPE_IPV4, "pass");
    ipv4(&mut it);
    ipv6(&mut it);
    // Whose is this address and port?
    it.label("port")
        .store_value(R10, KEY + 18, 0, Size::Half)
        .map(R1, maps.ports)
        .address(R2, R10, KEY.into())
        .call(Helper::MapLookup)
        .jump_if_value(R0, Condition::Equal, 0, "pass")
        .load(R7, R0, 0, Size::Word)
        .load(R1, R0, 4, Size::Word)
        .store(R10, PORT_SHARD, R1, Size::Word)
        .load(R1, R6, CONTEXT_QUEUE, Size::Word)
        .store(R10, QUEUE, R1, Size::Word)
        .map(R1, maps.queues)
        .address(R2, R10, QUEUE.into())
        .call(Helper::MapLookup)
        .jump_if_value(R0, Condition::Equal, 0, "pass")
        .load(R2, R0, QUEUE_SHARD as i16, Size::Word);
    owner(&mut it, shards);
    take(&mut it, maps);
    it.label("pass").value(Operation::Move, R0, PASS).exit();
    it.finish()
}

/// Judges an IPv4 header, and puts its destination into the key.
fn ipv4(it: &mut Assembler) {
    it.load(R1, R7, ETHERNET, Size::Byte)
        // Version 4, a header of five words.
        .jump_if_value(R1, Condition::NotEqual, 0x45, "pass")
        .load(R1, R7, ETHERNET + 6, Size::Half)
        .network_order(R1, 16)
        .value(Operation::And, R1, FRAGMENT)
        .jump_if_value(R1, Condition::NotEqual, 0, "pass")
        .load(R1, R7, ETHERNET + 9, Size::Byte)
        .jump_if_value(R1, Condition::NotEqual, UDP, "pass")
        .store_value(R10, KEY, 0, Size::Double)
        .store_value(R10, KEY + 8, 0, Size::Half)
        .store_value(R10, KEY + 10, 0xffff, Size::Half)
        .load(R1, R7, ETHERNET + 16, Size::Word)
        .store(R10, KEY + 12, R1, Size::Word)
        .load(R1, R7, ETHERNET + IPV4_LENGTH + 2, Size::Half)
        .store(R10, KEY + 16, R1, Size::Half)
        .address(R9, R7, (ETHERNET + IPV4_LENGTH + UDP_LENGTH).into())
        .jump("port");
}

/// The same for IPv6.
fn ipv6(it: &mut Assembler) {
    it.label("ipv6")
        .address(R1, R7, (ETHERNET + IPV6_LENGTH + UDP_LENGTH).into())
        .jump_if(R1, Condition::Greater, R8, "pass")
        .load(R1, R7, ETHERNET + 6, Size::Byte)
        .jump_if_value(R1, Condition::NotEqual, UDP, "pass")
        .load(R1, R7, ETHERNET + 24, Size::Double)
        .store(R10, KEY, R1, Size::Double)
        .load(R1, R7, ETHERNET + 32, Size::Double)
        .store(R10, KEY + 8, R1, Size::Double)
        .load(R1, R7, ETHERNET + IPV6_LENGTH + 2, Size::Half)
        .store(R10, KEY + 16, R1, Size::Half)
        .address(R9, R7, (ETHERNET + IPV6_LENGTH + UDP_LENGTH).into());
}

/// Whether the datagram belongs to the queue's shard, which is in `R2`.
fn owner(it: &mut Assembler, shards: u32) {
    it.jump_if_value(R7, Condition::Equal, BY_QUEUE as i32, "take")
        .jump_if_value(R7, Condition::Equal, BY_SRT_SOCKET_ID as i32, "srt")
        .jump_if_value(R7, Condition::Equal, BY_RTP_SSRC as i32, "rtp")
        .load(R1, R10, PORT_SHARD, Size::Word)
        .jump_if(R1, Condition::NotEqual, R2, "pass")
        .jump("take");
    it.label("srt")
        .address(R3, R9, (SRT_DESTINATION + 4).into())
        .jump_if(R3, Condition::Greater, R8, "pass")
        .load(R1, R9, SRT_DESTINATION, Size::Word)
        .network_order(R1, 32)
        .jump_if_value(R1, Condition::Equal, 0, "pass")
        .value_32(Operation::ShiftRight, R1, SRT_SHARD_SHIFT)
        .value_32(Operation::And, R1, SRT_SHARD_MASK)
        .jump_if(R1, Condition::NotEqual, R2, "pass")
        .jump("take");
    it.label("rtp")
        .address(R3, R9, (RTP_SSRC + 4).into())
        .jump_if(R3, Condition::Greater, R8, "pass")
        .load(R1, R9, 0, Size::Byte)
        .value(Operation::ShiftRight, R1, 6)
        .jump_if_value(R1, Condition::NotEqual, RTP_VERSION, "pass")
        .load(R1, R9, RTP_SSRC, Size::Word)
        .network_order(R1, 32)
        .value_32(Operation::Multiply, R1, SPREAD)
        .value_32(Operation::ShiftRight, R1, 16)
        .value_32(Operation::Modulo, R1, shards as i32)
        .jump_if(R1, Condition::NotEqual, R2, "pass");
}

/// Takes the frame, if the queue (its entry is in `R0`) has a slot for it.
fn take(it: &mut Assembler, maps: &Maps) {
    it.label("take")
        .copy(R7, R0)
        .load(R1, R7, QUEUE_LENT as i16, Size::Double)
        // While nothing is to be taken the count stands still, so that it can be read.
        .load(R2, R7, QUEUE_TAKEN as i16, Size::Double)
        .jump_if(R2, Condition::Less, R1, "some")
        .jump("pass")
        .label("some")
        .value(Operation::Move, R2, 1)
        .fetch_add(R7, QUEUE_TAKEN as i16, R2)
        .jump_if(R2, Condition::Less, R1, "lent")
        // Not taken after all.
        .value(Operation::Move, R2, -1)
        .fetch_add(R7, QUEUE_TAKEN as i16, R2)
        .jump("pass");
    // When it came stands before the frame, where the driver leaves room for that.
    it.label("lent")
        .copy(R1, R6)
        .value(Operation::Move, R2, -(METADATA_SIZE as i32))
        .call(Helper::AdjustMetadata)
        .jump_if_value(R0, Condition::NotEqual, 0, "untimed")
        .call(Helper::MonotonicTime)
        .load(R1, R6, CONTEXT_METADATA, Size::Word)
        .load(R2, R6, CONTEXT_DATA, Size::Word)
        .address(R3, R1, METADATA_SIZE as i32)
        .jump_if(R3, Condition::Greater, R2, "untimed")
        .store(R1, 0, R0, Size::Double)
        .jump("redirect")
        .label("untimed")
        .store_value(R7, QUEUE_UNTIMED as i16, 1, Size::Word)
        .label("redirect")
        .map(R1, maps.sockets)
        .load(R2, R10, QUEUE, Size::Word)
        // What becomes of it where the queue has no socket.
        .value(Operation::Move, R3, PASS)
        .call(Helper::RedirectMap)
        .exit();
}
