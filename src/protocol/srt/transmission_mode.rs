//! How a connection carries what it is given (draft-sharabayko-srt §4.2; libsrt: `SRTO_TRANSTYPE` with `SRTO_MESSAGEAPI`). Both sides
//! have to mean the same, and say it with a flag and the name of their congestion control.

use super::handshake::{HandshakeExtension, RejectReason, flags};
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter};

/// The three ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TransmissionMode {
    /// Each payload at its time, and what is too late not at all.
    #[default]
    Live,
    /// Messages, each of them whole and in order, whenever that is possible (libsrt: file mode with the message API).
    Message,
    /// A stream of bytes, all of them, whenever that is possible: a file.
    Buffer,
}

impl TransmissionMode {
    /// Whether every byte arrives, as late as it may be: no TSBPD, nothing given up, and a sender that looks for the rate that the path
    /// bears.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Live)
    }

    /// The flags of the handshake extension that we show.
    pub const fn flags(self) -> u32 {
        let always = flags::CRYPT | flags::RETRANSMISSION;
        match self {
            Self::Live => {
                always
                    | flags::TSBPD_SENDER
                    | flags::TSBPD_RECEIVER
                    | flags::TOO_LATE_PACKET_DROP
                    | flags::PERIODIC_LOSS_REPORT
                    | flags::PACKET_FILTER
            }
            Self::Message => always,
            Self::Buffer => always | flags::STREAM,
        }
    }

    /// The name of the congestion control, as it is written on the wire, where it is (a missing one is `live`): in words of four bytes,
    /// each reversed.
    pub const fn congestion_on_the_wire(self) -> Option<&'static [u8; 4]> {
        if self.is_reliable() { Some(b"elif") } else { None }
    }

    /// Judges what a caller has said; `congestion` is its extension, as it was on the wire.
    ///
    /// # Errors
    /// [`RejectReason::MessageApi`] when one side sends messages and the other bytes; else [`RejectReason::Congestion`] when only one of
    /// them is live.
    pub fn agree(self, extension: &HandshakeExtension, congestion: Option<&[u8]>) -> Result<(), RejectReason> {
        if (extension.flags & flags::STREAM != 0) != (self == Self::Buffer) {
            return Err(RejectReason::MessageApi);
        }
        self.agree_on_congestion(congestion)
    }

    /// The same of a listener's answer, where libsrt leaves the flag of byte streams out: it has refused who means something else.
    ///
    /// # Errors
    /// The same.
    pub fn agree_to_answer(
        self,
        extension: &HandshakeExtension,
        congestion: Option<&[u8]>,
    ) -> Result<(), RejectReason> {
        if extension.flags & flags::STREAM != 0 && self != Self::Buffer {
            return Err(RejectReason::MessageApi);
        }
        self.agree_on_congestion(congestion)
    }

    fn agree_on_congestion(self, congestion: Option<&[u8]>) -> Result<(), RejectReason> {
        let congestion = congestion.filter(|wire| !wire.is_empty() && *wire != b"evil");
        if congestion == self.congestion_on_the_wire().map(|wire| &wire[..]) {
            Ok(())
        } else {
            Err(RejectReason::Congestion)
        }
    }

    /// What somebody who means another mode is refused with, for people.
    pub const fn expectation(self) -> &'static str {
        match self {
            Self::Live => {
                "it wants to send or receive a file (libsrt: SRTO_TRANSTYPE=SRTT_FILE, SRTO_MESSAGEAPI or SRTO_CONGESTION), and this port is for live \
                 streams (files: headworks file receive)"
            }
            Self::Message => {
                "it is live, or sends bytes: this port is for messages in file mode (libsrt: SRTT_FILE with SRTO_MESSAGEAPI)"
            }
            Self::Buffer => "it is live, or sends messages: this port is for files (libsrt: SRTO_TRANSTYPE=SRTT_FILE)",
        }
    }

    pub(crate) fn snapshot(self, to: &mut SnapshotWriter<'_>) {
        to.u8(match self {
            Self::Live => 0,
            Self::Message => 1,
            Self::Buffer => 2,
        });
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        match from.u8()? {
            0 => Ok(Self::Live),
            1 => Ok(Self::Message),
            2 => Ok(Self::Buffer),
            _ => Err(RestoreError::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TransmissionMode::{Buffer, Live, Message};
    use super::*;

    #[test]
    fn only_the_same_mode_is_agreed_on_and_the_other_is_told_why() {
        let judged = |ours: TransmissionMode, theirs: TransmissionMode| {
            let extension = HandshakeExtension {
                version: 0x0001_0501,
                flags: theirs.flags(),
                receive_latency_ms: 0,
                send_latency_ms: 0,
            };
            ours.agree(&extension, theirs.congestion_on_the_wire().map(|wire| &wire[..]))
        };
        for mode in [Live, Message, Buffer] {
            assert_eq!(judged(mode, mode), Ok(()));
        }
        for (ours, theirs, reason) in [
            (Live, Buffer, RejectReason::MessageApi),
            (Buffer, Live, RejectReason::MessageApi),
            (Message, Buffer, RejectReason::MessageApi),
            (Buffer, Message, RejectReason::MessageApi),
            (Live, Message, RejectReason::Congestion),
            (Message, Live, RejectReason::Congestion),
        ] {
            assert_eq!(judged(ours, theirs), Err(reason), "{ours:?} is asked for {theirs:?}");
        }
    }

    #[test]
    fn in_an_answer_the_flag_of_byte_streams_may_go_unsaid() {
        let answer = |mode: TransmissionMode| HandshakeExtension {
            version: 0x0001_0501,
            flags: mode.flags(),
            receive_latency_ms: 0,
            send_latency_ms: 0,
        };
        let file = Some(&b"elif"[..]);
        for mode in [Message, Buffer] {
            assert_eq!(Buffer.agree_to_answer(&answer(mode), file), Ok(()));
        }
        assert_eq!(Message.agree_to_answer(&answer(Buffer), file), Err(RejectReason::MessageApi));
        assert_eq!(Live.agree_to_answer(&answer(Buffer), file), Err(RejectReason::MessageApi));
        assert_eq!(Buffer.agree_to_answer(&answer(Live), None), Err(RejectReason::Congestion));
    }

    #[test]
    fn a_congestion_control_that_nobody_knows_is_refused_and_live_may_go_unsaid() {
        let live = HandshakeExtension { version: 0, flags: Live.flags(), receive_latency_ms: 0, send_latency_ms: 0 };
        for wire in [None, Some(&b""[..]), Some(b"evil")] {
            assert_eq!(Live.agree(&live, wire), Ok(()));
            assert_eq!(Message.agree(&live, wire), Err(RejectReason::Congestion));
        }
        for wire in [&b"elif"[..], b"rebuc\0\0\0", b"fil"] {
            assert_eq!(Live.agree(&live, Some(wire)), Err(RejectReason::Congestion));
        }
    }
}
