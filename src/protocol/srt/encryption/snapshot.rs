//! Keys in a snapshot: in the clear, since whoever goes on with the connection needs every one of them.

use super::cipher::{Cipher, GcmForm, KeySet, StreamKey};
use super::key_material::{KeyEncryptingKey, KeyMaterial, KeyMaterialState};
use super::old_key::OldKey;
use super::{Announcement, Encryption, KeyRefresh};
use crate::protocol::srt::packet::KeyFlag;
use crate::protocol::srt::snapshot::{RestoreError, SnapshotReader, SnapshotWriter, snapshot_fields, valid};

impl Encryption {
    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self {
            kek,
            cipher,
            form,
            salt,
            receiving,
            old_key,
            sending,
            active,
            sent_under_active,
            refresh,
            seed,
            keys_made,
            announcement,
            successor_ready,
            state,
        } = self;
        kek.snapshot(to);
        cipher.snapshot(to);
        to.bool(*form == GcmForm::Srt153);
        to.array(salt);
        receiving.snapshot(to);
        old_key.snapshot(to);
        sending.snapshot(to);
        to.bool(*active == KeyFlag::Odd);
        to.count(*sent_under_active);
        refresh.snapshot(to);
        to.array(seed);
        to.count(*keys_made);
        to.option(announcement.as_ref(), |to, Announcement { message, tries_left, sent }| {
            message.snapshot(to);
            to.u8(*tries_left);
            to.option(*sent, SnapshotWriter::instant);
        });
        to.bool(*successor_ready);
        to.array(&state.to_wire());
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let kek = KeyEncryptingKey::restore(from)?;
        let cipher = Cipher::restore(from)?;
        let form = if from.bool()? { GcmForm::Srt153 } else { GcmForm::Current };
        let salt = from.array()?;
        let length = kek.0.len();
        let keys = |bytes: &[u8]| (bytes.len() == length).then(|| StreamKey::new(cipher, bytes, &salt));
        let restored = Self {
            receiving: KeySet::restore(from, keys)?,
            old_key: OldKey::restore(from)?,
            sending: KeySet::restore(from, keys)?,
            kek,
            cipher,
            form,
            salt,
            active: if from.bool()? { KeyFlag::Odd } else { KeyFlag::Even },
            sent_under_active: from.count()?,
            refresh: KeyRefresh::restore(from)?,
            seed: from.array()?,
            keys_made: from.count()?,
            announcement: from.option(|from| {
                Ok(Announcement {
                    message: KeyMaterial::restore(from)?,
                    tries_left: from.u8()?,
                    sent: from.option(SnapshotReader::instant)?,
                })
            })?,
            successor_ready: from.bool()?,
            state: KeyMaterialState::from_wire(from.array()?).ok_or(RestoreError::Invalid)?,
        };
        let other = if restored.active == KeyFlag::Even { KeyFlag::Odd } else { KeyFlag::Even };
        valid(restored.sending.get(restored.active).is_some())?;
        valid(!restored.successor_ready || restored.sending.get(other).is_some())?;
        Ok(restored)
    }
}

impl OldKey {
    fn snapshot(self, to: &mut SnapshotWriter<'_>) {
        let Self { flag, in_a_row, in_use } = self;
        to.key_flag(flag);
        to.count(in_a_row);
        to.option(in_use, |to, flag| to.bool(flag == KeyFlag::Odd));
    }

    fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let of = |is_odd| if is_odd { KeyFlag::Odd } else { KeyFlag::Even };
        Ok(Self { flag: from.key_flag()?, in_a_row: from.count()?, in_use: from.option(SnapshotReader::bool)?.map(of) })
    }
}

impl KeyEncryptingKey {
    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        to.bytes(&self.0);
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        let kek = Self(from.bytes()?.try_into().map_err(|_| RestoreError::Invalid)?);
        valid(super::KeyLength::from_bytes(kek.0.len()).is_some())?;
        Ok(kek)
    }
}

impl Cipher {
    pub(crate) fn snapshot(self, to: &mut SnapshotWriter<'_>) {
        to.bool(self == Self::AesGcm);
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Ok(if from.bool()? { Self::AesGcm } else { Self::AesCtr })
    }
}

impl KeyMaterial {
    pub(crate) fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        to.bytes(self.as_bytes());
    }

    pub(crate) fn restore(from: &mut SnapshotReader<'_>) -> Result<Self, RestoreError> {
        Self::parse(from.bytes()?).map_err(|_| RestoreError::Invalid)
    }
}

impl KeyRefresh {
    snapshot_fields! {
        count after_packets, count announce_packets;
        if |it| it.announce_packets < it.after_packets / 2
    }
}

impl KeySet {
    fn snapshot(&self, to: &mut SnapshotWriter<'_>) {
        let Self { even, odd } = self;
        for key in [even, odd] {
            // What they are made with is the connection's.
            to.option(key.as_ref(), |to, key| to.bytes(&key.bytes));
        }
    }

    fn restore(from: &mut SnapshotReader<'_>, key: impl Fn(&[u8]) -> Option<StreamKey>) -> Result<Self, RestoreError> {
        let mut next = || from.option(|from| key(from.bytes()?).ok_or(RestoreError::Invalid));
        Ok(Self { even: next()?, odd: next()? })
    }
}
