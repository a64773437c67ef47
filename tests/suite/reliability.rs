//! The lines of the reliability plan about HTTP, the drain and the whole. Each test has a quick form,
//! which runs among all others, and a full one (`make soak`) by environment variables. Figures are
//! printed, never asserted: a busy machine must not fail a sound worker.

pub mod chaos;
pub mod client;
pub mod contract;
pub mod drain;
pub mod faults;
pub mod load;
pub mod raw;
pub mod soak;

/// A size out of the environment, else the quick form's.
pub fn size(name: &str, quick: usize) -> usize {
    std::env::var(name).ok().and_then(|given| given.parse().ok()).unwrap_or(quick)
}

/// Lets this process, and the workers it starts, have as many descriptors as the system allows.
pub fn many_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the maximum it can be raised");
}

/// What a process is: resident memory in KiB, threads, descriptors.
pub fn vitals(pid: u32) -> (u64, u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    (field("VmRSS:"), field("Threads:"), descriptors)
}

/// CPU time that a process has used, in clock ticks (1/100 s).
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let after = stat.rsplit(')').next().expect("a name ends");
    let fields: Vec<&str> = after.split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}
