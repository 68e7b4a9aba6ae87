//! Memory that a burst of work has left behind, given back to the kernel once there is nothing to do.
//!
//! Owns: when that is worth it. glibc by itself returns only what lies at the end of a heap, and after a hundred pods
//! had come and gone a kubelet that used 4 MB held 33 MB.
//! Called by: the runtime of every component process, whenever one of its threads has run out of work.
//! Never: wakes anybody: an idle process has something small to do every few seconds anyway.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Looking takes a few microseconds, giving back some milliseconds.
const SECONDS_BETWEEN: u64 = 5;
/// Less would be asked for again at the next request.
#[cfg(target_env = "gnu")]
const WORTH_BYTES: usize = 3 << 20;

/// Gives free memory back if there is much and it has not been looked at for a while.
pub fn give_back(started: Instant, looked: &AtomicU64) {
    let now = started.elapsed().as_secs();
    let last = looked.load(Ordering::Relaxed);
    if now < last + SECONDS_BETWEEN || looked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
    {
        return;
    }
    trim();
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc's own functions of its allocator")]
fn trim() {
    // SAFETY: both take glibc's locks themselves and touch nothing but free memory.
    unsafe {
        if libc::mallinfo2().fordblks > WORTH_BYTES {
            libc::malloc_trim(0);
        }
    }
}

/// Other allocators return what is free by themselves.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
