#![forbid(unsafe_code)]
//! **Headworks** takes broadcast contribution feeds off the network and puts coded frames into shared memory.
//!
//! # The floors
//!
//! Imports go down only, and rooms of one floor do not see each other (`tests/tidy.rs` keeps it so).
//!
//! | floor | room | what it does |
//! |---|---|---|
//! | 8 | [`cli`] | what a person types |
//! | 7 | [`control`] | people and machines asking over HTTP, in a thread of its own |
//! | 6 | [`egress`] | readers of rings that make something of frames |
//! | 5 | [`shard`] | time, sockets, cores: the only floor that does data-path I/O or reads a clock |
//! | 4 | [`output`] | frames into rings, and the directory that readers find them by |
//! | 3 | [`pipeline`] | joins protocol, container and codec into access units on one timeline |
//! | 2 | [`protocol`], [`container`], [`codec`] | machines without socket, clock or thread |
//! | 1 | [`media`] | the words they share: track, payload, access unit |
//! | 0 | [`base`] | time values, sequence numbers, packets, bits |
//! | – | `sys/*` | the kernel and shared memory; all `unsafe`; knows nothing of media |
//!
//! [`config`] stands beside them: read from the pipeline upwards, importing nothing.
//!
//! # The path of one packet
//!
//! ```text
//! sys/uring                        a completion names a slot of packet memory   (sys/mmsg: recvmmsg fills slots;
//!                                                                                   sys/xdp: an XDP program fills them;
//!                                                                                   sys/dpdk: copied from DPDK's buffers)
//! shard/net/backend.rs             → a batch of datagrams, not copied, whichever way they came   (aggregates.rs: several as one)
//! shard/turn.rs                    THE loop
//! shard/sessions.rs                whose is it?   (nobody's: turn/arrivals.rs, access.rs, admission.rs)
//! pipeline/ingest.rs               one source, from datagram to access units
//!   protocol/srt/connection.rs       decrypt, then a place in the receive buffer; out again in order   (of several connections that are one
//!                                                                                   stream: group.rs)
//!   protocol/srt/fec/decoder.rs        where a packet filter is agreed on: what is lost, made again of sums
//!   container/mpegts/demux.rs        188-byte packets → PES pieces          (pipeline/transport.rs joins them)
//!   codec/h264/access_unit.rs        where access units begin and end, what they say of themselves
//! pipeline/assembler.rs            time stamps, damage, arrival; the open frame
//! output/frame_ring.rs             → the ring: the one copy in user space
//! output/staging.rs                whole, and not yet due: unseen until then; publish
//! output/waker.rs                  a thread wakes the readers, once per stream and turn
//! ```
//!
//! RTP is the same with `protocol/rtp/source.rs`, and `pipeline/elementary.rs` where it carries one elementary stream.
//!
//! A stream that is fetched (`streams.NAME.srt`) has a socket of its own: `shard/turn/calling.rs` drives its call (`shard/calls.rs`), which
//! shakes hands by `protocol/srt/caller.rs` or `rendezvous.rs` and is tried again as `pipeline/breaker.rs` says; its session then
//! takes the way of a source of the RTP ports, whose stream the desk names.
//!
//! Files (`headworks file`) take none of these ways: `cli/file/endpoint.rs` has a socket, and connections in buffer mode, whose sender finds
//! its rate by `protocol/srt/congestion.rs`; a thread reads or writes the disk.
//!
//! # Threads
//!
//! One per shard (`hw-shard-N`), pinned; one for everything that may block (`hw-house`: files, rings, key derivation,
//! admission), and one for each name that is being looked up (`hw-resolve`), as a resolver may block for long; one per NUMA node of shards that wakes readers (`hw-waker`); one that writes the log (`hw-log`), which nobody waits for; one for HTTP; and,
//! where it is configured, one that hands rings to readers without the right to the files (`hw-broker`). Shards share read-only configuration and nothing else; they are spoken to through
//! [`shard::mailbox`].
//!
//! # Where this differs from the first design, and why
//!
//! - **A shard's turn keeps its thread**, and sleeps in its own net when it is idle too, for fifty milliseconds at most and until
//!   the first datagram, instead of parking in glommio or giving way to its other tasks: glommio 0.9 was seen, on a busy host,
//!   to sleep on for good beside an armed timer and a readable eventfd, and before its first task, which `shard/executor.rs` explains.
//!   glommio gives placement; tasks beside the turn will need another shell.
//! - **Who owns a stream is decided on the housekeeping thread**, which must be asked for rings and keys anyway, instead of in a
//!   table between shards. The owner answers the caller from its own socket, and the shard that got the handshake keeps the
//!   answer for repetitions. New streams go to shards that turn; but a caller whose handshakes the kernel steers to a shard that hangs
//!   hears nothing, for nobody else reads that socket, until the watchdog has ended the process and the next one answers it.
//! - **Names of peers are looked up on a thread each** (`hw-resolve`), not by housekeeping: a resolver that does not answer keeps its asker
//!   for many seconds, in which no stream would be let in and no ring made.
//! - **A stream that is fetched is named by the desk once its session is there**, as a source of the RTP ports is: what comes before its
//!   rings waits, and a call that fails takes up no place.
//! - **One lane into each shard** instead of one per pair: steering by socket id leaves so few datagrams on the wrong shard that
//!   more lanes would only be more memory.
//! - **An SRT peer that moves is not asked to hurry.** Nothing from its new address is taken in before the proof, not even into a buffer of
//!   its own, since it sends again what was not acknowledged; and no proof counts until its old address has been silent for twice
//!   as long as of late, or whoever can read a stream in plain could take it away in a pause (`protocol/srt/connection/elsewhere.rs`). A
//!   packet under AES-GCM is its own proof and is taken in wherever it comes from, but whoever repeats one before it arrives must not
//!   get the answers either: these follow when the old address has fallen silent.
//! - **Deadlines stand in one dense array** (`shard/timers.rs`) that is scanned once per turn: deadlines move with every packet,
//!   and a heap would pay per packet what the scan pays per turn.
//! - **Packets wait up to a second for the ring of a new track**, not a quarter of one: one thread makes all rings, and on a
//!   busy host a ring was seen to take longer. With the rings made ahead nobody waits at all.
//! - **A ring holds at least four of the largest frames**, so that a reader has time to copy one; with the default frame limit
//!   that is 64 MiB for a video track.
//! - **The batch window stretches to four milliseconds** while a shard finds fewer than 256 datagrams in a turn and all of them come
//!   by SRT, which holds them for its latency anyway, and none is missing: a turn wakes a cold core and touches the cold state of every session,
//!   which was measured at 30 µs with eight feeds (17.0 % of a core with windows of 500 µs, 13.0 % with 2 ms;
//!   on another day 13.6 % with 2 ms, 11.4 % with 4 ms). With a source
//!   that is read as it comes (RTP), and for a second after packets were missing, windows stay at `shards.batch_window`: a loss that is
//!   seen and asked for four milliseconds later may be one attempt short.
//! - **Frames wait for their time, not packets.** SRT holds what it receives until it is due, 120 ms or more. As packets they had left
//!   the caches by then, and the walk through container and codec fetched each byte from memory again; so payloads go on as they
//!   come, as long as none is missing before them, and finished frames lie unseen in their ring until their last packet is due.
//!   What is due when stays the same, except that a frame whose end only the next packet shows is no longer late by that. Measured
//!   with 25 feeds of 50 Mbit/s, three interleaved runs of 5 s: 36.0 % of a core with packets waiting, 32.8 % with frames. Taking
//!   the seven transport packets of a datagram at one go, where they hold nothing but the middle of a picture, made it 29.7 %.
//! - **A session's memory is asked for while the ones before it are served**, link by link of the chain from the session to the memory
//!   of its next frame ([`shard::sessions`]): with many slow feeds a session has one packet a turn and has left the caches since the
//!   last. With 100 feeds of 5 Mbit/s two interleaved pairs of runs of 5 s took 664 and 562 ms without, 508 and 484 ms with it; with 25
//!   of 50 Mbit/s nothing was seen beyond noise. So is, in a second chain, what publishing the frame needs that is due, which has lain in its
//!   ring for the latency: a frame's publication was mostly loads of one cold line after the other.
//! - **The kernel is lent four times the slots it used lately**, not all that its ring could hold: it fills them in the order
//!   they were lent, and those lent long ago are cold.
//! - **Without io_uring a shard has a plain thread**, since glommio cannot do without it, and sleeps for its window by the clock,
//!   a millisecond at most: `recvmmsg` has no way to sleep until so many datagrams have come. `headworks send` and `relay` still
//!   need io_uring.
//! - **AF_XDP has the ordinary sockets beside it.** They send everything, since a receiver sends little and the kernel knows the way; and
//!   the XDP program leaves to them what finds no slot, or belongs to another shard than the queue it came in by: so nothing is lost
//!   for want of a slot, and nothing has to be handed from shard to shard. `auto` never chooses it: it wants privileges, goes past the
//!   host's firewall and owns a card's queues.
//! - **Packets that are held leave their aggregate** (`shards.gro`). One datagram keeps the 64 KiB of all that came with it, so a
//!   well-filled aggregate is shared while its datagrams pass through, and a stream that holds something at the end of a turn gets copies
//!   from then on. The large slots can then be few, and a stream's quota need not be reckoned slot by slot.
//! - **A turn serves its sessions every 512 datagrams**, not only at its end: a burst is passed on while it is in the cache, and no source
//!   has to keep all of it.
//! - **DPDK's packets are copied into packet memory**, once, and it has one shard: `sys/dpdk` says what it would take to do without either.
//!   Its host is an edge and no stack, made of `smoltcp`'s wire formats and of no more of it: addresses are configured, and what the
//!   kernel would do for a host that only receives is a few hundred lines.
//! - **A loss is asked for again when what was sent again for it should have come**, and once more soon after each report in case that was
//!   lost, beside the periodic reports of libsrt, which come each half of a round trip and at 20 ms at the soonest. At a latency of two
//!   or three round trips that is the attempt that would have been too late. It takes 1.4 to 2.4 times as many loss reports as libsrt
//!   sends at 2 to 20 % of loss, and no more is sent again for them (`benches/residual`). Senders that answer every report, libsrt
//!   before 1.4.4, get the periodic ones alone.
//! - **A slow feed gets half of the acknowledgements**: one in 20 ms instead of 10 while fewer than 16 packets have come. Each costs a system
//!   call's work and a receipt; a hundred feeds of 5 Mbit/s had one for every five packets. Three interleaved pairs of runs of 5 s took 912,
//!   963 and 942 ms before, 721, 828 and 852 ms after it and after sessions that were touched got a bit each instead of being sorted.
//! - **A packet of a slow feed costs 1.7 times that of a fast one**, where 15 % more was wanted (100 feeds of 5 Mbit/s beside
//!   10 of 50). Of 82 and 124 ms of a core a second with a profiler beside, some 20 of the difference are the kernel's, most of it four thousand
//!   more acknowledgements sent over loopback and their receipts, and some 25 are 6,400 more frames, each opened, described and published whatever its
//!   size, and sessions that have left the caches when their next packet comes. Less would take frames or acknowledgements that feeds share, and they do not. One
//!   acknowledgement in 40 ms instead of 20 was tried: round trip and clock of the peer were followed so much more slowly that the simulation's
//!   bounds on losses and on a clock that runs 200 ppm slow no longer held.
//! - **A batch window begins when the turn before is over**, also where packets are worth something as they come. To count that turn in was
//!   tried by RTP: 99 % of the frames were published after 0.6 ms instead of 0.7 to 0.8, at 1.42 instead of 1.12 of what the bare loop takes, and
//!   readers on the same core were awake no sooner. `shards.batch_window` is there for who wants it.
//! - **`auto` prefers io_uring where it works**, though `recvmmsg` has cost as much in the figures that there are (0.90 to 1.05 of it): it alone
//!   sleeps until so many datagrams have come, and the kernel's part of it still becomes cheaper.
//! - **Datagram arrival rates in SRT acknowledgements are counted over 100 ms** rather than taken from the median of 16 gaps:
//!   packets of one kernel aggregate carry one time stamp.
//!
//! # What a card of 25 or 100 Gbit/s would change
//!
//! Every figure of this project was measured over loopback or veth. None of the following has been measured; it is what to look for first.
//!
//! - **The kernel's part moves to the receiver.** Over loopback the sender's system call carries a datagram through IP and UDP into our
//!   socket. From a card an interrupt does, on a core that the card's queue is bound to: some hundred nanoseconds a packet, 119,000
//!   packets a second for 25 feeds. It falls on the bare loop and on every rival alike, so the ratios come closer to 1 and the
//!   differences stay. Interrupts belong on a core beside the shard's, where `tuning/tune` puts them and `headworks check` wants them: on
//!   the shard's own the kernel's part would come out of its turn, whenever a packet comes, and make batches late. What is given away for
//!   that, datagrams that lie in the shard's own first caches, may weigh more while a core has room to spare; that has not been measured.
//! - **The first touch is dearer.** A card writes into the last-level cache, a sender on the next core into memory that is warm nearer by.
//!   The copy from the kernel's buffer into packet memory pays that; with AF_XDP without copies, or DPDK, decryption does.
//! - **Little is aggregated.** Packets of a paced feed of 50 Mbit/s are 210 µs apart, and GRO joins what stands side by side in one
//!   queue's poll; `shards.gro` is for feeds that are not paced. Batches are made by the card's coalescing instead: `rx-usecs` of 50
//!   to 100 costs a tenth of a batch window in latency, and spares most interrupts.
//! - **Feeds are spread by address and port.** Two feeds from behind one address translator may share a queue, and a queue's core is not
//!   the owner's. The steering program still puts each datagram on its owner's socket, with a wake across cores; AF_XDP leaves it
//!   to that program too. Only rules in the card (`ethtool -N`) would bring a feed to its core at once.
//! - **Loss has more places**: the card's ring (`rx_missed_errors`, `ethtool -g`), the poll's budget (`softnet_stat`), then the socket
//!   buffer, which is the only one that is counted here.
//! - **The link is not the limit.** At 10 to 20 CPU seconds for 100 Gbit (25 feeds, 4 feeds) a core bears 5 to 10 Gbit/s of SRT before its
//!   interrupts are paid, so 25 Gbit/s are some five cores' work, and 100 Gbit/s a matter of memory bandwidth: each byte is written by the card,
//!   copied by the kernel, decrypted, copied into its ring and read by its readers.

pub mod base;
pub mod cli;
pub mod codec;
pub mod config;
pub mod container;
pub mod control;
pub mod egress;
pub mod media;
pub mod output;
pub mod pipeline;
pub mod protocol;
pub mod shard;
