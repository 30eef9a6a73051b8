//! [`give_back`]: memory that was needed for a moment goes back to the system.
//!
//! Comparing everything takes several times the memory of the plan. glibc keeps what was freed in between of what is
//! still used, malloc_trim(3) gives it back; without it the agent would stay as large as it once was.

/// Gives back what is free. Other C libraries do it by themselves, or cannot.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
