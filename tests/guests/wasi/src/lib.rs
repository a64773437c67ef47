//! A guest of `wasm32-wasip2` that tries what WASI offers and says in `human` what came of it. Told to
//! by its configuration, it panics.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::ToSocketAddrs as _;
use std::time::{Duration, Instant, SystemTime};

#[allow(unsafe_code)]
mod contract {
    wit_bindgen::generate!({ world: "narration-filter", path: "../../../wit/0.1.0" });
    export!(Prober with_types_in self);
    use super::Prober;
}

use contract::exports::rbees::narration::filter::{Context, Description, Guest, Narration};

struct Prober;

impl Guest for Prober {
    fn describe() -> Description {
        Description {
            name: "wasi".to_owned(),
            version: "1".to_owned(),
            kinds: None,
            redacts: false,
            config_schema: "{}".to_owned(),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        assert!(!config.contains("panic"), "this is what the operator has to see");
        Ok(())
    }

    fn narrate(_: Context, mut narration: Narration) -> Narration {
        narration.human = findings();
        narration
    }
}

fn findings() -> String {
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(3_600)); // must not hold anybody up
    let mut found = vec![
        ("arguments", std::env::args().count() > 0),
        ("variables", std::env::vars().count() > 0),
        ("read", std::fs::read("/etc/hostname").is_ok()),
        ("list", std::fs::read_dir("/").is_ok()),
        ("write", std::fs::write("/tmp/x", "x").is_ok()),
        ("connect", std::net::TcpStream::connect("127.0.0.1:80").is_ok()),
        ("listen", std::net::TcpListener::bind("127.0.0.1:0").is_ok()),
        ("resolve", ("localhost", 80).to_socket_addrs().is_ok_and(|mut all| all.next().is_some())),
        ("stdin", std::io::stdin().lines().next().is_some_and(|line| line.is_ok())),
        ("thread", std::thread::Builder::new().spawn(|| {}).is_ok()),
    ];
    found.retain(|(_, had)| *had);
    let had: Vec<&str> = found.iter().map(|(what, _)| *what).collect();
    let clock = began.elapsed() < Duration::from_secs(3_600)
        && SystemTime::UNIX_EPOCH.elapsed().is_ok_and(|since| since.as_secs() > 1_700_000_000);
    let random = RandomState::new().hash_one(1) != RandomState::new().hash_one(1);
    format!("had [{}] clock {clock} random {random}", had.join(" "))
}
