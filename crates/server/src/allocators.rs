//! How memory that was freed goes back to the kernel.
//!
//! Two allocators are at work: mimalloc for what is written in Rust, the C library's for RocksDB. Both keep freed memory for
//! what comes next, mimalloc for a second, the C library in one arena for every few threads. That is fast, and with a small
//! `memory_limit` it was twice as much memory as everything in use. So under a small limit both give it back at once.

/// From this limit on speed counts for more: what is kept back is then little of it.
const KEPT_FROM_BYTES: usize = 1 << 30;

/// To be called before there are other threads.
pub fn suit(memory_limit_bytes: usize) {
    if memory_limit_bytes < KEPT_FROM_BYTES {
        use_small_pages();
        purge_at_once();
        share_one_arena();
    }
}

/// Huge pages make large state faster, and leave holes: where memory is short the holes would be most of it.
fn use_small_pages() {
    #[cfg(target_os = "linux")]
    // SAFETY: this call takes numbers alone and changes nothing but how this process's memory is backed from now on. Where
    // the kernel does not know it, it answers an error and nothing is lost.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}

/// `mi_option_purge_delay` of mimalloc's versions 2 and 3.
const PURGE_DELAY: libc::c_int = 15;

unsafe extern "C" {
    fn mi_option_set(option: libc::c_int, value: libc::c_long);
    #[cfg(test)]
    fn mi_option_get(option: libc::c_int) -> libc::c_long;
}

fn purge_at_once() {
    // SAFETY: mimalloc is linked in as the global allocator, this is its documented way to set an option, and the option
    // takes any number of milliseconds.
    unsafe { mi_option_set(PURGE_DELAY, 0) }
}

fn share_one_arena() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: this call takes numbers alone. It is made before other threads have arenas of their own.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of an option is no name: if another version counts differently, this is not what it was.
    #[test]
    fn the_option_is_the_delay_of_purges() {
        // SAFETY: reading an option changes nothing.
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 1000, "mimalloc's default");
        purge_at_once();
        assert_eq!(delay(), 0);
    }
}
