//! Sixteen lanes of arithmetic, one trait for every instruction set, so that each kernel is written
//! once. AVX-512 and AVX2 give the same bits; the portable form rounds twice where they fuse.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod portable;

/// Lanes of a vector: rows of a tile, tokens of a KV block.
pub const LANES: usize = 16;

/// Sixteen floats (`F`), sixteen 32-bit integers (`I`), 64 bytes (`B`): one register of AVX-512.
///
/// # Safety
/// Of every method: the instruction set is there ([`Isa::run`] sees to it), pointers are good for what
/// is read or written (16 values, or a line of 64 bytes), unaligned ones too.
#[allow(clippy::missing_safety_doc)] // said once, above
pub trait Simd: Copy {
    /// Sixteen floats.
    type F: Copy;
    /// Sixteen integers.
    type I: Copy;
    /// Sixty-four bytes.
    type B: Copy;
    /// Whether several rows of activations share one look at the weights.
    const SHARES: bool = true;

    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, value: Self::F);
    unsafe fn load_f16(from: *const u16) -> Self::F;
    unsafe fn store_f16(to: *mut u16, value: Self::F);
    unsafe fn load_bf16(from: *const u16) -> Self::F;
    unsafe fn load_u8(from: *const u8) -> Self::F;
    unsafe fn load_i8(from: *const i8) -> Self::F;
    /// Rounded to the nearest integer, ties to even, kept within i8.
    unsafe fn store_i8(to: *mut i8, value: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; `b` where one is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; `b` where one is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    unsafe fn round(a: Self::F) -> Self::F;
    /// `2ⁿ` for whole n from −126 to 127.
    unsafe fn power_of_two(n: Self::F) -> Self::F;
    /// `then` where `a` is above `bound` or NaN, 0 elsewhere.
    unsafe fn where_above(a: Self::F, bound: f32, then: Self::F) -> Self::F;
    /// Lanes from `first` up to `end` as they are, `other` elsewhere.
    unsafe fn keep(a: Self::F, first: usize, end: usize, other: f32) -> Self::F;
    /// The sum of all lanes, always in the same order.
    unsafe fn sum(a: Self::F) -> f32;
    /// The largest lane.
    unsafe fn largest(a: Self::F) -> f32;

    unsafe fn splat_int(value: i32) -> Self::I;
    unsafe fn to_float(a: Self::I) -> Self::F;

    unsafe fn bytes(from: *const u8) -> Self::B;
    unsafe fn and(a: Self::B, mask: u8) -> Self::B;
    unsafe fn or(a: Self::B, b: Self::B) -> Self::B;
    /// Right by `bits` in pairs of bytes: only bits that stay in their byte are of use.
    unsafe fn shift_right<const BITS: u32>(a: Self::B) -> Self::B;
    /// Left by `bits`, likewise.
    unsafe fn shift_left<const BITS: u32>(a: Self::B) -> Self::B;
    /// To each lane: its four codes (unsigned) times the four bytes (signed) of group `G` in `row`.
    /// `WIDE` where codes have more than seven bits.
    unsafe fn dot<const WIDE: bool, const G: usize>(
        sum: Self::I,
        codes: Self::B,
        row: *const i8,
    ) -> Self::I;
    /// Asks for the line at `at`, which need not be there.
    unsafe fn prefetch(at: *const u8);
}

/// Work that is written for any instruction set.
pub trait Work {
    /// Does it.
    ///
    /// # Safety
    /// The instruction set of `S` is there; what else, the implementation says.
    unsafe fn run<S: Simd>(self);
}

/// An instruction set that this build has kernels for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with VNNI: 16 lanes and byte products in one instruction.
    Avx512,
    /// AVX2 with FMA, F16C and AVX-VNNI.
    AvxVnni,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// Plain Rust: the reference.
    Portable,
}

impl Isa {
    /// The best that this machine has.
    pub fn detect() -> Isa {
        let found = Isa::available();
        found[0]
    }

    /// All that this machine has, best first.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni");
            if avx2 && avx512 {
                found.push(Isa::Avx512);
            }
            if avx2 && is_x86_feature_detected!("avxvnni") {
                found.push(Isa::AvxVnni);
            }
            if avx2 {
                found.push(Isa::Avx2);
            }
        }
        found.push(Isa::Portable);
        found
    }

    /// Its name in facts.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512-vnni",
            Isa::AvxVnni => "avx2-vnni",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }

    /// Does `work` with this instruction set.
    ///
    /// # Safety
    /// It is one of [`Isa::available`]; and what `work` asks for.
    #[inline]
    pub unsafe fn run<W: Work>(self, work: W) {
        match self {
            // SAFETY: the caller has found it to be available.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512::run(work) },
            // SAFETY: as above. Byte products are the tiles' alone, so VNNI makes no difference here.
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni | Isa::Avx2 => unsafe { avx2::run(work) },
            // SAFETY: plain Rust is always there.
            _ => unsafe { work.run::<portable::Portable>() },
        }
    }
}
