//! The system's clocks and randomness, replaced by those of the simulation.
//!
//! In: a seed, and the simulated time. Out: times and random bytes, for the whole process.
//! The standard library takes the keys of its hash maps from here, and tokio the order in
//! which it wakes tasks and polls the branches of `select!`. h2 counts by the system's clock
//! how long it remembers a stream that was reset.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Whether the system's functions can be replaced here.
pub const CAN_BE_REPLACED: bool = cfg!(all(target_os = "linux", target_pointer_width = "64"));

/// Whether this process is a simulation.
static REPLACED: AtomicBool = AtomicBool::new(false);
/// The state of the random numbers.
static RANDOM: AtomicU64 = AtomicU64::new(0);
/// The simulated time in milliseconds.
static ELAPSED: AtomicU64 = AtomicU64::new(0);

/// Makes all further randomness of the process follow from a seed, and its clocks stand still
/// until [`set_clocks`] moves them.
pub fn replace(seed: u64) {
    RANDOM.store(seed, Ordering::Relaxed);
    REPLACED.store(true, Ordering::Relaxed);
}

/// Sets the clocks to the simulated time since the start.
pub fn set_clocks(elapsed: Duration) {
    ELAPSED.store(elapsed.as_millis() as u64, Ordering::Relaxed);
}

/// The functions of the C library that the standard library calls. A program's own functions
/// of these names take their place.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
#[expect(unsafe_code, reason = "only a symbol of the same name takes a function's place")]
mod symbols {
    use std::slice;
    use std::sync::atomic::Ordering;

    use rustix::time::{ClockId, Timespec};

    use super::{ELAPSED, RANDOM, REPLACED};
    use crate::balancer::BEGAN;
    use crate::rng::Rng;

    /// The C library's number of the wall clock.
    const REALTIME: i32 = 0;
    /// What the monotonic clock says at the start, in seconds: more than a program subtracts.
    const UPTIME: u64 = 1_000_000;

    /// # Safety
    /// `buffer` has room for `length` bytes.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
        // SAFETY: as promised by the caller. Bytes of any value are valid.
        let buffer = unsafe {
            buffer.write_bytes(0, length);
            slice::from_raw_parts_mut(buffer, length)
        };
        fill(buffer);
        isize::try_from(length).unwrap_or(isize::MAX)
    }

    /// # Safety
    /// `time` has room for a time.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn clock_gettime(clock: i32, time: *mut Timespec) -> i32 {
        let now = if REPLACED.load(Ordering::Relaxed) {
            let begun = if clock == REALTIME { BEGAN.0 } else { UPTIME };
            let millis = 1_000 * begun + ELAPSED.load(Ordering::Relaxed);
            Timespec {
                tv_sec: (millis / 1_000) as i64,
                tv_nsec: (millis % 1_000 * 1_000_000) as i64,
            }
        } else {
            // The standard library reads no third clock. This asks the kernel, not the C library.
            let clock = if clock == REALTIME { ClockId::Realtime } else { ClockId::Monotonic };
            rustix::time::clock_gettime(clock)
        };
        // SAFETY: as promised by the caller.
        unsafe { time.write(now) };
        0
    }

    /// Fills a buffer with the next random bytes.
    fn fill(buffer: &mut [u8]) {
        for byte in buffer {
            let state = RANDOM.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            *byte = Rng::new(state).next() as u8;
        }
    }
}
