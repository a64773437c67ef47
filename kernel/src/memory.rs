//! Memory for weights, keys and values: zeros that begin at a line of the cache, in large pages where
//! the system has them, since a step reads all of it. A page is the system's until it is written.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::layout::LINE;
use super::simd::LANES;

/// Bytes of a large page.
const LARGE_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// What small matrices are taken from together, bytes: else none of them would fill a large page.
const CHUNK_BYTES: usize = 16 * LARGE_PAGE_BYTES;

/// A line of memory, so that tiles begin where lines of the cache do.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u8; LINE]);

/// A piece of the process's memory.
pub struct Region {
    first: NonNull<u8>,
    bytes: usize,
    mapped: (NonNull<u8>, usize),
}

// SAFETY: it is plain memory; whoever hands out parts of it sees to it that they do not meet.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// `bytes` zeros; `None` where they can't be had.
    pub fn new(bytes: usize) -> Option<Self> {
        let room =
            bytes.checked_add(LARGE_PAGE_BYTES).filter(|&room| isize::try_from(room).is_ok())?;
        let mapped = map(room)?;
        let skipped = mapped.as_ptr().align_offset(LARGE_PAGE_BYTES);
        // SAFETY: at most a large page is skipped, and `room` has one more than is asked for.
        let first = unsafe { mapped.add(skipped) };
        advise(first, bytes);
        Some(Region { first, bytes, mapped: (mapped, room) })
    }

    /// Where it begins.
    pub fn first(&self) -> NonNull<u8> {
        self.first
    }

    /// All of it.
    pub fn whole(&mut self) -> &mut [u8] {
        // SAFETY: `bytes` are there, written by zeros or by whoever had this reference before.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.bytes) }
    }
}

#[cfg(unix)]
fn map(bytes: usize) -> Option<NonNull<u8>> {
    // SAFETY: a new mapping of nothing touches nobody's memory.
    let first = unsafe {
        let (rights, what) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        libc::mmap(std::ptr::null_mut(), bytes, rights, what, -1, 0)
    };
    if first == libc::MAP_FAILED { None } else { NonNull::new(first.cast()) }
}

#[cfg(unix)]
fn unmap(first: NonNull<u8>, bytes: usize) {
    // SAFETY: the mapping is the region's own, and the region ends with this.
    unsafe { libc::munmap(first.as_ptr().cast(), bytes) };
}

#[cfg(not(unix))]
fn map(bytes: usize) -> Option<NonNull<u8>> {
    let layout = std::alloc::Layout::from_size_align(bytes, LINE).ok()?;
    // SAFETY: the layout is not empty, as a large page is added to every size.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
}

#[cfg(not(unix))]
fn unmap(first: NonNull<u8>, bytes: usize) {
    if let Ok(layout) = std::alloc::Layout::from_size_align(bytes, LINE) {
        // SAFETY: `map` has had it for the same layout.
        unsafe { std::alloc::dealloc(first.as_ptr(), layout) };
    }
}

/// Asks for large pages. A system that has none goes on with small ones.
fn advise(first: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the range is the new region's own, and the advice changes no content.
    unsafe {
        libc::madvise(first.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (first, bytes);
}

impl Drop for Region {
    fn drop(&mut self) {
        unmap(self.mapped.0, self.mapped.1);
    }
}

/// Where the matrices of a model are put, one behind the other.
#[derive(Default)]
pub struct Arena {
    chunk: Option<Arc<Region>>,
    used: usize,
}

/// Lines of an arena, nobody else's.
pub struct Lines {
    region: Arc<Region>,
    first: usize,
    count: usize,
}

impl Arena {
    /// `count` lines of zeros; `None` where they can't be had.
    pub fn lines(&mut self, count: usize) -> Option<Lines> {
        let bytes = count.checked_mul(LINE)?;
        if bytes > CHUNK_BYTES / 4 {
            return Some(Lines { region: Arc::new(Region::new(bytes)?), first: 0, count });
        }
        let left = self.chunk.as_ref().map_or(0, |chunk| chunk.bytes - self.used);
        if left < bytes {
            (self.chunk, self.used) = (Some(Arc::new(Region::new(CHUNK_BYTES)?)), 0);
        }
        let region = Arc::clone(self.chunk.as_ref()?);
        let first = self.used;
        self.used += bytes;
        Some(Lines { region, first, count })
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: `lines` gave this part to nobody else, within the region; lines are plain bytes.
        unsafe {
            let first = self.region.first.add(self.first).cast();
            std::slice::from_raw_parts(first.as_ptr(), self.count)
        }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above; and this is the only way to it.
        unsafe {
            let first = self.region.first.add(self.first).cast();
            std::slice::from_raw_parts_mut(first.as_ptr(), self.count)
        }
    }
}

/// Floats that begin at a line of the cache: vectors of them never lie across two.
#[derive(Default)]
pub struct Floats {
    vectors: Vec<Vector>,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Vector([f32; LANES]);

impl Floats {
    /// Makes them `len`. Those that were there stay, the others are any that once were, or 0.
    pub fn resize(&mut self, len: usize) {
        let vectors = len.div_ceil(LANES);
        if self.vectors.len() < vectors {
            self.vectors.resize(vectors, Vector([0.0; LANES]));
        }
        self.len = len;
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: vectors are floats without gaps, and there are at least `len`.
        unsafe { std::slice::from_raw_parts(self.vectors.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.vectors.as_mut_ptr().cast(), self.len) }
    }
}
