//! The file of `--config`: the same options as the flags, by the same names, in TOML. Paths in it start
//! from its own folder. Reads within bounds; never repeats a line, which might hold a secret.

use std::path::Path;

use super::{ServeFlags, otlp, wrong};
use crate::error::Result;
use crate::files;
use crate::limits::CONFIG_FILE_BYTES_MAX;

/// The options that the file at `path` sets.
///
/// # Errors
/// Names the line, and what was expected there.
pub fn read(path: &Path) -> Result<ServeFlags> {
    let text = text("--config", path, CONFIG_FILE_BYTES_MAX, "a few lines of TOML")?;
    let mut flags: ServeFlags = toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or_else(String::new, |before| {
                format!(", line {}", before.matches('\n').count() + 1)
            });
        wrong(format!("--config {}{line}: {}", path.display(), error.message()))
    })?;
    if std::env::var_os("RBEES_API_TOKEN").is_some() {
        flags.api_token_file = None; // the environment wins over the file, here too
    }
    if otlp::in_environment() {
        flags.otlp_endpoint = None;
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    for path in [
        &mut flags.model,
        &mut flags.filters,
        &mut flags.filter_cache,
        &mut flags.record,
        &mut flags.api_token_file,
    ] {
        *path = path.take().map(|path| folder.join(path));
    }
    Ok(flags)
}

/// The text of a small file; `expected` says what it should hold, for an error.
pub fn text(flag: &str, path: &Path, bytes_max: u64, expected: &str) -> Result<String> {
    files::text(path, bytes_max).map_err(|e| {
        wrong(format!("{flag} {} can't be read: {e}; {expected} is expected", path.display()))
    })
}

impl ServeFlags {
    /// These options where `flags` leaves them open.
    pub(super) fn under(self, flags: ServeFlags) -> ServeFlags {
        ServeFlags {
            config: flags.config,
            model: flags.model.or(self.model),
            worker_id: flags.worker_id.or(self.worker_id),
            host: flags.host.or(self.host),
            port: flags.port.or(self.port),
            filters: flags.filters.or(self.filters),
            record: flags.record.or(self.record),
            filters_poll: flags.filters_poll.or(self.filters_poll),
            filter_cache: flags.filter_cache.or(self.filter_cache),
            narration: flags.narration.or(self.narration),
            callback_url: flags.callback_url.or(self.callback_url),
            advertise: flags.advertise.or(self.advertise),
            heartbeat_s: flags.heartbeat_s.or(self.heartbeat_s),
            exit_with_parent: flags.exit_with_parent.or(self.exit_with_parent),
            device: flags.device.or(self.device),
            slots: flags.slots.or(self.slots),
            kv_mib: flags.kv_mib.or(self.kv_mib),
            prefix_cache: flags.prefix_cache.or(self.prefix_cache),
            queue: flags.queue.or(self.queue),
            timeout_ms: flags.timeout_ms.or(self.timeout_ms),
            queue_timeout_ms: flags.queue_timeout_ms.or(self.queue_timeout_ms),
            grace_ms: flags.grace_ms.or(self.grace_ms),
            stall_ms: flags.stall_ms.or(self.stall_ms),
            keep_alive_ms: flags.keep_alive_ms.or(self.keep_alive_ms),
            reader_stall_ms: flags.reader_stall_ms.or(self.reader_stall_ms),
            otlp_endpoint: flags.otlp_endpoint.or(self.otlp_endpoint),
            api_token_file: flags.api_token_file.or(self.api_token_file),
            host_name: flags.host_name.or(self.host_name),
            cors_origin: flags.cors_origin.or(self.cors_origin),
            model_alias: flags.model_alias.or(self.model_alias),
            insecure: flags.insecure.or(self.insecure),
        }
    }
}
