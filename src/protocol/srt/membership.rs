//! The group extension of a handshake: of which bonding group a connection is a leg.
//!
//! libsrt's `docs/features/bonding-intro.md` and `docs/features/socket-groups.md` say what groups are for; the two words are laid out in
//! `srtcore/handshake.h` (`HS_GROUP_TYPE`, `HS_GROUP_FLAGS`, `HS_GROUP_WEIGHT`). The draft names the extension and no more.

use super::handshake::RejectReason;
use super::snapshot::{RestoreError, SnapshotReader, SnapshotWriter};

/// The bit that tells a group's id from a socket's (libsrt: `SRTGROUP_MASK`).
pub const GROUP_ID_BIT: u32 = 1 << 30;

/// Length of the extension's content, in bytes.
pub const MEMBERSHIP_LEN: usize = 8;

/// "Synchronise by message number", which no libsrt takes (`SRT_GFLAG_SYNCONMSG`).
const FLAG_SYNC_ON_MESSAGE: u8 = 1;

/// What a group's sender does with its legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GroupType {
    /// Sends every packet over every leg.
    Broadcast,
    /// Sends over the leg of greatest weight, and over others while that is in doubt.
    Backup,
}

impl GroupType {
    /// The word for it: `broadcast`, `backup`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Backup => "backup",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Broadcast => 1,
            Self::Backup => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Broadcast),
            2 => Some(Self::Backup),
            _ => None,
        }
    }
}

/// What a side says of the group that its end of a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The id of the group at the side that says it; bit 30 is set. A group has another id at each side.
    pub group_id: u32,
    /// What the sender does with its legs.
    pub group_type: GroupType,
    /// How much a leg is preferred in a backup group; the greater the more.
    pub weight: u16,
}

impl Membership {
    /// Reads the extension's content. More words than two are of a later version, and ignored as libsrt does.
    ///
    /// # Errors
    /// What libsrt answers (`CUDT::interpretGroup`): [`RejectReason::Rogue`] for a wrong length or what is no group's id,
    /// [`RejectReason::Group`] for a type or a flag that is not known.
    pub fn parse(content: &[u8]) -> Result<Self, RejectReason> {
        let Some((&[a, b, c, d, group_type, flags, e, f], _)) = content.split_first_chunk::<MEMBERSHIP_LEN>() else {
            return Err(RejectReason::Rogue);
        };
        if !content.len().is_multiple_of(4) {
            return Err(RejectReason::Rogue);
        }
        let group_type = GroupType::from_code(group_type).ok_or(RejectReason::Group)?;
        let group_id = u32::from_be_bytes([a, b, c, d]);
        if group_id & GROUP_ID_BIT == 0 || group_id >> 31 != 0 {
            return Err(RejectReason::Rogue);
        }
        if flags & FLAG_SYNC_ON_MESSAGE != 0 {
            return Err(RejectReason::Group);
        }
        Ok(Self { group_id, group_type, weight: u16::from_be_bytes([e, f]) })
    }

    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        to.array(&self.encode());
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Self::parse(&from.array::<MEMBERSHIP_LEN>()?).map_err(|_| RestoreError::Invalid)
    }

    /// The extension's content.
    pub fn encode(&self) -> [u8; MEMBERSHIP_LEN] {
        let [a, b, c, d] = self.group_id.to_be_bytes();
        let [e, f] = self.weight.to_be_bytes();
        [a, b, c, d, self.group_type.code(), 0, e, f]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_is_two_words_and_read_back_as_it_was_written() {
        let membership = Membership { group_id: 0x4000_1234, group_type: GroupType::Backup, weight: 500 };
        assert_eq!(membership.encode(), [0x40, 0, 0x12, 0x34, 2, 0, 0x01, 0xf4]);
        assert_eq!(Membership::parse(&membership.encode()), Ok(membership));
        let longer = [&membership.encode()[..], &[0xff; 4]].concat();
        assert_eq!(Membership::parse(&longer), Ok(membership), "words that a later version adds");
    }

    #[test]
    fn what_is_no_membership_is_refused_as_libsrt_does() {
        let good = [0x40, 0, 0, 1, 1, 0, 0, 0];
        let with = |index: usize, value: u8| {
            let mut content = good;
            content[index] = value;
            Membership::parse(&content)
        };
        assert_eq!(Membership::parse(&[]), Err(RejectReason::Rogue));
        assert_eq!(Membership::parse(&good[..4]), Err(RejectReason::Rogue));
        assert_eq!(with(0, 0x00), Err(RejectReason::Rogue), "the id of a socket");
        assert_eq!(with(0, 0xc0), Err(RejectReason::Rogue), "no id at all");
        assert_eq!(with(4, 0), Err(RejectReason::Group), "undefined");
        assert_eq!(with(4, 3), Err(RejectReason::Group), "balancing");
        assert_eq!(with(5, 1), Err(RejectReason::Group), "to be synchronised by message number");
        assert!(with(5, 2).is_ok(), "a flag that does not matter");
    }
}
