//! What rings take of shared memory, and what was promised to streams whose rings are still to come; all in bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The books; by the directories of rings and streams.
#[derive(Debug, Default)]
pub(super) struct MemoryBook {
    /// Bytes of each ring's files.
    rings: BTreeMap<PathBuf, u64>,
    /// What each stream that is written may take at least.
    promised: BTreeMap<PathBuf, u64>,
}

impl MemoryBook {
    /// A ring is there.
    pub fn insert(&mut self, ring: PathBuf, size: u64) {
        self.rings.insert(ring, size);
    }

    /// The ring in `directory` is gone, or all rings below it are.
    pub fn remove(&mut self, directory: &Path) {
        self.rings.retain(|ring, _| !ring.starts_with(directory));
    }

    /// The rings of a stream may take so much together, those that it has included.
    pub fn promise(&mut self, stream: &Path, bytes: u64) {
        self.promised.insert(stream.to_owned(), bytes);
    }

    /// Nothing is promised to a stream any more; its rings are still there.
    pub fn release(&mut self, stream: &Path) {
        self.promised.remove(stream);
    }

    /// What all rings take.
    pub fn taken(&self) -> u64 {
        self.rings.values().sum()
    }

    /// What the rings of a stream take.
    pub fn taken_by(&self, stream: &Path) -> u64 {
        self.rings
            .range(stream.to_owned()..)
            .take_while(|(ring, _)| ring.starts_with(stream))
            .map(|(_, size)| size)
            .sum()
    }

    /// What the rings of a stream take, the one in `ring` left out.
    pub fn taken_beside(&self, stream: &Path, ring: &Path) -> u64 {
        self.taken_by(stream) - self.rings.get(ring).copied().unwrap_or(0)
    }

    /// What a stream takes or was promised.
    pub fn held_by(&self, stream: &Path) -> u64 {
        self.taken_by(stream).max(self.promised.get(stream).copied().unwrap_or(0))
    }

    /// What was promised and is not taken yet.
    pub fn outstanding(&self) -> u64 {
        self.promised.iter().map(|(stream, bytes)| bytes.saturating_sub(self.taken_by(stream))).sum()
    }

    /// What is taken or promised.
    pub fn committed(&self) -> u64 {
        self.taken() + self.outstanding()
    }

    /// What a ring of this size adds to what is committed, in place of the one there if there is one.
    pub fn growth(&self, stream: &Path, ring: &Path, size: u64) -> u64 {
        (self.taken_beside(stream, ring) + size).saturating_sub(self.held_by(stream))
    }

    /// How many rings of a size there are.
    pub fn count_of(&self, size: u64) -> usize {
        self.rings.values().filter(|&&its| its == size).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_counts_until_it_is_taken_and_what_goes_beyond_it_counts_too() {
        let mut book = MemoryBook::default();
        let (one, two) = (Path::new("/rings/one"), Path::new("/rings/one-more"));
        book.promise(one, 100);
        book.promise(two, 100);
        assert_eq!((book.taken(), book.outstanding(), book.committed()), (0, 200, 200));
        let (video, audio) = (one.join("video0"), one.join("audio0"));
        assert_eq!((book.growth(one, &video, 80), book.growth(one, &video, 120)), (0, 20));
        book.insert(video.clone(), 80);
        assert_eq!((book.taken_by(one), book.taken_by(two)), (80, 0));
        assert_eq!((book.taken(), book.outstanding(), book.committed()), (80, 120, 200));
        assert_eq!(
            (book.growth(one, &audio, 40), book.growth(one, &video, 100), book.growth(one, &video, 10)),
            (20, 0, 0)
        );
        book.insert(audio, 40);
        assert_eq!(
            (book.taken_beside(one, &video), book.growth(one, &video, 81)),
            (40, 1),
            "in place of the one of 80"
        );
        assert_eq!((book.held_by(one), book.committed()), (120, 220));
        book.release(one);
        book.release(two);
        assert_eq!(book.committed(), 120, "rings stay when their stream has ended");
        book.remove(&video);
        assert_eq!(book.taken(), 40);
        book.remove(one);
        assert_eq!(book.committed(), 0);
    }
}
