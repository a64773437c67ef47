//! From the bytes of a filter to compiled code, in a child process with limits of time and memory: a
//! compiler is not hardened against hostile input and leaves memory behind. The child is this very
//! binary. It opens nothing; bytes come in by its stdin and leave by its stdout.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

use super::component::{Failure, as_component, first_line};
use super::host;
use crate::error::{Error, Kind, Result};
use crate::limits::{
    COMPILE_CPU_S, COMPILE_MEMORY_BYTES, COMPILE_MS, COMPILED_BYTES_MAX, FILTER_FILE_BYTES_MAX,
};
use crate::narration::clean;

/// Name of the hidden subcommand that the child is.
pub const SUBCOMMAND: &str = "compile-filter";

/// Who compiles.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// This process: for tests and benchmarks, which are another binary.
    Here,
    /// A child process of this binary.
    Child(PathBuf),
}

impl Compiler {
    /// A child of this very binary, which may have been replaced on disk since.
    pub fn own() -> Self {
        let running = PathBuf::from("/proc/self/exe");
        if running.exists() {
            return Compiler::Child(running);
        }
        std::env::current_exe().map_or(Compiler::Here, Compiler::Child)
    }

    /// Compiled code of the component, or core module, in `bytes`.
    pub fn compile(&self, engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Compiler::Here => precompile(engine, bytes),
            Compiler::Child(binary) => in_child(binary, bytes),
        }
    }
}

fn precompile(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let component = as_component(bytes)?;
    engine
        .precompile_component(&component)
        .map_err(|e| Failure(format!("is no valid component: {}", first_line(&e))))
}

/// The child: compiles what comes by stdin, with an engine like the worker's.
pub fn child() -> Result<()> {
    let limited = limit_myself();
    let broken = |e| Error::new(Kind::Internal, "the pipe of the compiler broke").because(e);
    let mut bytes = Vec::new();
    let stdin = std::io::stdin().lock();
    stdin.take(FILTER_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(broken)?;
    let engine = host::compiling_engine()?;
    limited.map_err(|e| Error::new(Kind::Internal, "the compiler can't be limited").because(e))?;
    match precompile(&engine, &bytes) {
        Ok(code) => std::io::stdout().write_all(&code).map_err(broken),
        Err(Failure(reason)) => Err(Error::new(Kind::Filter, reason)),
    }
}

/// Bounds what this process may use from now on. Reserved address space is not counted.
fn limit_myself() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let bounds = [
        (Resource::Data, COMPILE_MEMORY_BYTES),
        (Resource::Cpu, COMPILE_CPU_S),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ];
    for (resource, bound) in bounds {
        setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(bound) })?;
    }
    Ok(())
}

fn in_child(binary: &std::path::Path, bytes: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut child = Command::new(binary)
        .arg(SUBCOMMAND)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            Failure(format!("can't be compiled: {} can't be run: {e}", binary.display()))
        })?;
    let outcome = talk(&mut child, bytes);
    if outcome.is_err() {
        let _ = child.kill(); // it may have ended by itself
    }
    let ended = child.wait();
    let (code, complaint) = outcome?;
    match ended {
        Ok(status) if status.success() => Ok(code),
        Ok(status) if status.code() == Some(i32::from(Kind::Filter.exit_code())) => {
            let prefix = "rbees-workerd: ";
            let line = complaint.lines().find_map(|line| line.strip_prefix(prefix));
            Err(Failure(line.unwrap_or("is no valid component").to_owned()))
        }
        Ok(status) => Err(Failure(format!(
            "can't be compiled within {COMPILE_CPU_S} s and {} MiB: the compiler ended with {status}: {}",
            COMPILE_MEMORY_BYTES >> 20,
            clean::line(complaint.trim(), 200)
        ))),
        Err(e) => Err(Failure(format!("can't be compiled: its compiler is lost: {e}"))),
    }
}

/// Hands the bytes over and takes what comes back, each pipe by a thread of its own.
fn talk(child: &mut Child, bytes: &[u8]) -> Result<(Vec<u8>, String), Failure> {
    let lost = || Failure("can't be compiled: the compiler has no pipes".into());
    let (mut stdin, stdout) =
        (child.stdin.take().ok_or_else(lost)?, child.stdout.take().ok_or_else(lost)?);
    let stderr = child.stderr.take().ok_or_else(lost)?;
    let bytes = bytes.to_vec();
    thread::spawn(move || drop(stdin.write_all(&bytes))); // a child that has ended reads nothing
    let (done, code) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut code = Vec::new();
        let read = stdout.take(COMPILED_BYTES_MAX + 1).read_to_end(&mut code);
        drop(done.send(read.map(|_| code)));
    });
    let complaint = thread::spawn(move || {
        let mut text = Vec::new();
        drop(stderr.take(64 * 1024).read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    let code = match code.recv_timeout(Duration::from_millis(COMPILE_MS)) {
        Ok(Ok(code)) if code.len() as u64 <= COMPILED_BYTES_MAX => code,
        Ok(Ok(_)) => {
            return Err(Failure(format!("compiles to more than {COMPILED_BYTES_MAX} bytes")));
        }
        Ok(Err(e)) => return Err(Failure(format!("can't be compiled: {e}"))),
        Err(_) => {
            return Err(Failure(format!("can't be compiled within {} s", COMPILE_MS / 1_000)));
        }
    };
    Ok((code, complaint.join().unwrap_or_default()))
}
