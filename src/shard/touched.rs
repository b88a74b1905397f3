//! The sessions that something happened to, each once and in their order: a bit for each, since a turn with many feeds finds most of
//! them, several times over, and sorting their numbers was seen to cost as much as decoding transport packets.

const BITS: usize = u64::BITS as usize;

/// Session indices to be served.
#[derive(Debug, Default)]
pub struct Touched {
    words: Vec<u64>,
}

impl Touched {
    /// Something happened to a session.
    #[inline]
    pub fn add(&mut self, index: usize) {
        let word = index / BITS;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (index % BITS);
    }

    /// Appends them to `indices`, in order, and forgets them.
    #[inline]
    pub fn take(&mut self, indices: &mut Vec<usize>) {
        for (place, word) in self.words.iter_mut().enumerate() {
            let mut bits = std::mem::take(word);
            while bits != 0 {
                indices.push(place * BITS + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_comes_out_once_and_in_order() {
        let mut touched = Touched::default();
        [130, 0, 64, 63, 130, 0, 1].into_iter().for_each(|index| touched.add(index));
        let mut indices = Vec::new();
        touched.take(&mut indices);
        assert_eq!(indices, [0, 1, 63, 64, 130]);
        indices.clear();
        touched.take(&mut indices);
        assert_eq!(indices, [0_usize; 0]);
        touched.add(7);
        touched.take(&mut indices);
        assert_eq!(indices, [7]);
    }
}
