//! The device that computes: what there is, and the fact that says so. Opens nothing but a device.

use std::str::FromStr;

use candle_core::Device;

use crate::error::{Error, Kind, Result};
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
    /// Its memory, bytes; 0: not known.
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

/// A device that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The first card that this build can use, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A card that speaks CUDA, from 0.
    Cuda(u32),
    /// A card that speaks Metal, from 0.
    Metal(u32),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Wanted, String> {
        let (name, number) = text.split_once(':').unwrap_or((text, "0"));
        match (name, number.parse(), text.contains(':')) {
            ("auto", _, false) => Ok(Wanted::Auto),
            ("cpu", _, false) => Ok(Wanted::Cpu),
            ("cuda", Ok(ordinal), _) => Ok(Wanted::Cuda(ordinal)),
            ("metal", Ok(ordinal), _) => Ok(Wanted::Metal(ordinal)),
            _ => Err("is auto, cpu, cuda:N or metal:N".to_owned()),
        }
    }
}

/// Makes the wanted device ready.
///
/// # Errors
/// [`Kind::Config`] for a device that this build or this machine lacks.
pub fn open(wanted: Wanted) -> Result<(Device, Ready)> {
    match wanted {
        Wanted::Cpu => Ok(cpu()),
        Wanted::Cuda(ordinal) => card("cuda", ordinal),
        Wanted::Metal(ordinal) => card("metal", ordinal),
        Wanted::Auto if cfg!(feature = "cuda") => card("cuda", 0).or_else(|_| Ok(cpu())),
        Wanted::Auto if cfg!(feature = "metal") => card("metal", 0).or_else(|_| Ok(cpu())),
        Wanted::Auto => Ok(cpu()),
    }
}

fn card(kind: &str, ordinal: u32) -> Result<(Device, Ready)> {
    let built = [("cuda", cfg!(feature = "cuda")), ("metal", cfg!(feature = "metal"))];
    if !built.contains(&(kind, true)) {
        return Err(Error::new(
            Kind::Config,
            format!(
                "--device {kind}:{ordinal}: this build computes on the CPU only; build one with \
                 `cargo build --release --features {kind}`, or choose --device cpu"
            ),
        ));
    }
    let device = match kind {
        "cuda" => Device::new_cuda(ordinal as usize),
        _ => Device::new_metal(ordinal as usize),
    };
    let device = device.map_err(|error| {
        let text = format!("--device {kind}:{ordinal} can't be made ready; is there such a card?");
        Error::new(Kind::Config, text).because(error)
    })?;
    // candle tells neither name nor memory of a card.
    let card = Card { ordinal, name: format!("{kind}:{ordinal}"), memory_bytes: 0 };
    let ready = if kind == "cuda" { Ready::Cuda(card) } else { Ready::Metal(card) };
    Ok((device, ready))
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
    fn devices_are_named_as_flags_name_them() {
        let names = [
            ("auto", Wanted::Auto),
            ("cpu", Wanted::Cpu),
            ("cuda:3", Wanted::Cuda(3)),
            ("cuda", Wanted::Cuda(0)),
            ("metal:1", Wanted::Metal(1)),
        ];
        for (name, wanted) in names {
            assert_eq!(name.parse(), Ok(wanted));
        }
        for wrong in ["", "gpu", "cpu:0", "auto:1", "cuda:", "cuda:-1", "cuda:x", "CUDA:0"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    fn a_device_that_this_build_lacks_is_refused_with_what_to_do() {
        for (wanted, name) in [(Wanted::Cuda(1), "cuda"), (Wanted::Metal(1), "metal")] {
            let error = open(wanted).map(|_| ()).expect_err(name);
            assert_eq!(error.kind(), Kind::Config);
            let text = error.to_string();
            assert!(text.contains(&format!("--features {name}")), "{text}");
            assert!(text.contains(&format!("{name}:1")), "{text}");
        }
        assert_eq!(open(Wanted::Auto).expect("the CPU").1.name(), "cpu");
    }

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
