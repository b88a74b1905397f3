//! What the machine itself can do: memory bandwidth of the two cores, and the time others took from us.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;
use std::{fs, thread};

use serde_json::{Value, json};

use crate::load::{READER_CORE, WRITER_CORE, settle};

/// Far more than a core's own caches.
const BUFFER_SIZE: usize = 256 << 20;
const PASSES: usize = 4;

/// Bytes a second that memcpy moves between large buffers.
#[derive(Clone, Copy, Debug)]
pub struct Bandwidth {
    /// By the better of the two cores, the other one idle.
    pub alone: f64,
    /// By both at once, together.
    pub together: f64,
}

impl Bandwidth {
    pub fn measure() -> Self {
        let alone = [WRITER_CORE, READER_CORE].map(|core| copy_on(&[core]));
        Self { alone: alone[0].max(alone[1]), together: copy_on(&[WRITER_CORE, READER_CORE]) }
    }
}

fn copy_on(cores: &[usize]) -> f64 {
    let barrier = Barrier::new(cores.len());
    thread::scope(|scope| {
        let threads: Vec<_> = cores
            .iter()
            .map(|&core| {
                let barrier = &barrier;
                scope.spawn(move || {
                    settle(core);
                    let from = vec![1u8; BUFFER_SIZE];
                    let mut to = vec![2u8; BUFFER_SIZE];
                    barrier.wait();
                    let start = Instant::now();
                    for _ in 0..PASSES {
                        to.copy_from_slice(black_box(&from));
                        black_box(&mut to);
                    }
                    (PASSES * BUFFER_SIZE) as f64 / start.elapsed().as_secs_f64()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a copy does not panic")).sum()
    })
}

/// Ticks of the machine so far: user, nice, system, idle, iowait, irq, softirq, steal.
pub struct Ticks(Vec<u64>);

impl Ticks {
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        let first = text.lines().next().unwrap_or_default();
        Self(first.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect())
    }

    /// Shares of the machine's time since then.
    pub fn since(&self) -> Value {
        let spent: Vec<u64> = Self::now().0.iter().zip(&self.0).map(|(now, then)| now - then).collect();
        let total = spent.iter().sum::<u64>().max(1) as f64;
        let share = |i: usize| spent.get(i).map_or(0.0, |&ticks| ticks as f64 / total);
        json!({ "softirq": share(6), "steal": share(7), "idle": share(3) })
    }
}
