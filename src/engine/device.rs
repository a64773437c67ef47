//! The device that computes: what there is, and the fact that says so. Opens nothing but a device.

use candle_core::Device;

use crate::narration::facts::{Accelerator, Cpu};
use crate::narration::{Fact, fact};

/// A device that has been made ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The CPU.
    Cpu {
        /// Threads that compute.
        threads: u32,
        /// The widest instruction set in use.
        instruction_set: String,
    },
    /// A card that speaks CUDA.
    Cuda(Card),
    /// A card that speaks Metal.
    Metal(Card),
}

/// A graphics card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Which one, from 0.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// Its memory, bytes.
    pub memory_bytes: u64,
}

impl Ready {
    /// The fact to be told of it.
    pub fn fact(&self) -> Fact {
        let accelerator = |card: &Card| Accelerator {
            ordinal: card.ordinal,
            name: card.name.clone(),
            memory_bytes: card.memory_bytes,
        };
        match self {
            Ready::Cpu { threads, instruction_set } => {
                Fact::CpuReady(Cpu { threads: *threads, instruction_set: instruction_set.clone() })
            }
            Ready::Cuda(card) => Fact::CudaReady(accelerator(card)),
            Ready::Metal(card) => Fact::MetalReady(accelerator(card)),
        }
    }

    /// Name as flags and answers have it: `cpu`, `cuda:0`.
    pub fn name(&self) -> String {
        match self {
            Ready::Cpu { .. } => "cpu".to_owned(),
            Ready::Cuda(card) => format!("cuda:{}", card.ordinal),
            Ready::Metal(card) => format!("metal:{}", card.ordinal),
        }
    }
}

/// Makes the CPU ready.
pub fn cpu() -> (Device, Ready) {
    let threads = fact::count(candle_core::utils::get_num_threads());
    (Device::Cpu, Ready::Cpu { threads, instruction_set: instruction_set().to_owned() })
}

/// The widest instruction set that this processor has and candle can use.
fn instruction_set() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512vnni") {
            return "avx512-vnni";
        }
        if std::arch::is_x86_feature_detected!("avx512f") {
            return "avx512";
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return "avx2";
        }
        "sse2"
    }
    #[cfg(target_arch = "aarch64")]
    {
        "neon"
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        "portable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_tells_its_own_fact() {
        let card = Card { ordinal: 1, name: "card".into(), memory_bytes: 7 };
        let cases = [(Ready::Cuda(card.clone()), "cuda"), (Ready::Metal(card), "metal")];
        for (ready, name) in cases {
            assert_eq!(ready.fact().kind(), format!("{name}-ready"));
            assert_eq!(ready.name(), format!("{name}:1"));
            let voice = fact::voice(&ready.fact());
            assert_eq!((voice.actor, voice.action), ("device-manager", "device_init"));
        }
        assert_eq!(cpu().1.fact().kind(), "cpu-ready");
    }
}
