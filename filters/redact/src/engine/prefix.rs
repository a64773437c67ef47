//! Keys that their makers gave a prefix to be known by, and JSON Web Tokens. It never takes a name with
//! such a prefix (`sk-learn-contrib`, `hf_hub_download`) for a key.

use super::{Family, Find, Scan, longest_run};

/// Bytes of a key that are looked at to tell it from a name.
const LOOK_BYTES_MAX: usize = 64;

/// A well-known prefix; how many bytes follow it at least; how many of them at least are letters and
/// digits in a row.
struct Prefix(&'static str, usize, usize);

/// The prefixes by their first byte, longer ones first where one begins another.
const fn prefixes(first: u8) -> &'static [Prefix] {
    match first {
        b's' => &[
            Prefix("sk-ant-", 8, 6),
            Prefix("sk-proj-", 12, 8),
            Prefix("sk-or-v1-", 16, 16),
            Prefix("sk-svcacct-", 12, 8),
            Prefix("sk-", 16, 16),
            Prefix("sk_live_", 12, 12),
            Prefix("sk_test_", 12, 12),
            Prefix("shpat_", 24, 24),
            Prefix("shpss_", 24, 24),
        ],
        b'g' => &[
            Prefix("ghp_", 16, 16),
            Prefix("gho_", 16, 16),
            Prefix("ghu_", 16, 16),
            Prefix("ghs_", 16, 16),
            Prefix("ghr_", 16, 16),
            Prefix("github_pat_", 16, 16),
            Prefix("glpat-", 16, 8),
            Prefix("gldt-", 16, 8),
            Prefix("glrt-", 16, 8),
            Prefix("gsk_", 20, 20),
            Prefix("glsa_", 20, 20),
        ],
        b'x' => &[
            Prefix("xoxb-", 10, 6),
            Prefix("xoxa-", 10, 6),
            Prefix("xoxp-", 10, 6),
            Prefix("xoxr-", 10, 6),
            Prefix("xoxs-", 10, 6),
            Prefix("xoxe-", 10, 6),
            Prefix("xapp-", 10, 6),
            Prefix("xai-", 20, 20),
        ],
        b'A' => &[Prefix("AKIA", 16, 16), Prefix("ASIA", 16, 16), Prefix("AIza", 30, 8)],
        b'G' => &[Prefix("GOCSPX-", 16, 6)],
        b'S' => &[Prefix("SG.", 30, 8)],
        b'd' => &[Prefix("dop_v1_", 32, 32), Prefix("dckr_pat_", 16, 8)],
        b'h' => &[Prefix("hf_", 20, 20), Prefix("hvs.", 20, 16)],
        b'l' => &[Prefix("lin_api_", 20, 20)],
        b'n' => &[Prefix("npm_", 20, 20), Prefix("nvapi-", 20, 12)],
        b'p' => &[Prefix("pypi-", 16, 16), Prefix("pplx-", 20, 20)],
        b'r' => &[Prefix("r8_", 20, 20), Prefix("rk_live_", 12, 12), Prefix("rpa_", 20, 20)],
        b't' => &[Prefix("tskey-", 16, 8)],
        b'w' => &[Prefix("whsec_", 16, 16)],
        b'y' => &[Prefix("ya29.", 16, 8)],
        _ => &[],
    }
}

/// For each first byte, the bytes that follow it in a known key, as bits. All of them are ASCII.
static SECONDS: [[u32; 4]; 256] = {
    let mut table = [[0; 4]; 256];
    let mut first = 0;
    while first < table.len() {
        let known = prefixes(first as u8);
        let mut place = 0;
        while place < known.len() {
            let second = known[place].0.as_bytes()[1] as usize;
            table[first][second / 32] |= 1 << (second % 32);
            place += 1;
        }
        first += 1;
    }
    table[b'e' as usize][b'y' as usize / 32] |= 1 << (b'y' % 32);
    table
};

/// Whether a known key may begin with this byte.
pub(super) fn may_begin(byte: u8) -> bool {
    SECONDS[usize::from(byte)] != [0; 4]
}

/// Whether a known key may begin with these two bytes.
pub(super) fn may_begin_with(first: u8, second: u8) -> bool {
    let bits = SECONDS[usize::from(first)].get(usize::from(second / 32));
    bits.is_some_and(|bits| bits >> (second % 32) & 1 == 1)
}

/// The key that begins here.
pub(super) fn find(scan: &mut Scan, at: usize) -> Option<Find> {
    if scan.bytes[at] == b'e' {
        return find_jwt(scan, at);
    }
    let known = prefixes(scan.bytes[at]).iter().filter(|known| scan.begins(at, known.0.as_bytes()));
    let end = known.filter_map(|known| key_end(scan, at, known)).next()?;
    Some(Find::new(at, end, Family::ApiKey))
}

/// End of a key, if what follows its prefix is one.
fn key_end(scan: &Scan, at: usize, known: &Prefix) -> Option<usize> {
    let &Prefix(text, min, run) = known;
    let start = at + text.len();
    let upper_only = matches!(text, "AKIA" | "ASIA");
    let dotted = text.ends_with('.');
    let is_key = |byte: u8| match byte {
        b'A'..=b'Z' | b'0'..=b'9' => true,
        b'a'..=b'z' | b'_' | b'-' => !upper_only,
        b'.' => dotted,
        _ => false,
    };
    let look = &scan.bytes[start..start + scan.count(start, LOOK_BYTES_MAX, is_key)];
    let whole = look.len() >= min && longest_run(look) >= run;
    let cut = look.len() >= 2 && scan.is_cut(start + look.len());
    if !(whole || cut) {
        return None;
    }
    // An access key id has its length, and ends there.
    if upper_only && whole {
        let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        return scan.behind(start + min).is_none_or(|byte| !goes_on(byte)).then_some(start + min);
    }
    let end = scan.run(start, is_key);
    Some(scan.trimmed(start, end))
}

/// A JSON Web Token: header, payload and signature in base64url. One that is cut counts as well.
fn find_jwt(scan: &mut Scan, at: usize) -> Option<Find> {
    if at < scan.no_jwt_before || !scan.begins(at, b"eyJ") {
        return None;
    }
    let header = scan.run(at, is_base64url);
    let found = jwt_end(scan, at, header);
    if found.is_none() {
        // No start further on in this part can do better.
        scan.no_jwt_before = header;
    }
    found.map(|end| Find::new(at, end, Family::Jwt))
}

fn jwt_end(scan: &Scan, at: usize, header: usize) -> Option<usize> {
    if header - at < 8 {
        return None;
    }
    if scan.is_cut(header) {
        return Some(header);
    }
    if scan.byte(header) != Some(b'.') {
        return None;
    }
    let payload = scan.run(header + 1, is_base64url);
    let cut = scan.is_cut(payload);
    let signed =
        scan.byte(payload) == Some(b'.') && scan.byte(payload + 1).is_some_and(is_base64url);
    let long = payload - header > 4;
    let nested = scan.begins(header + 1, b"eyJ");
    if !cut && !(long && (signed || nested)) {
        return None;
    }
    let end = scan.run(payload, |byte| is_base64url(byte) || byte == b'.');
    Some(scan.trimmed(at, end))
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}
