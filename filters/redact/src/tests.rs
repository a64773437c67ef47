//! What the redactor promises: each family is found wherever it stands, what only looks like one passes
//! unchanged, what was redacted stays as it is, and the time is linear.

use std::borrow::Cow;

use crate::contract::exports::rbees::narration::filter::Narration;
use crate::contract::rbees::narration::facts::{
    CallbackFailed, Fact, FilterLoaded, ModelLoadStarted, Other, RequestRejected, Violation,
};
use crate::contract::rbees::narration::types::Sinks;
use crate::engine::redact;
use crate::policy::{Policy, SCHEMA};
use crate::walk;

mod cuts;
mod fuzzed;
mod pieces;

use pieces::{Dice, every_secret, pieces};

/// A key as its maker would draw it; put together here so that no scanner of sources takes it for one.
fn key(prefix: &str, length: usize) -> String {
    let drawn = "4fK9wQz7TnB2mXc8RjL5vHs3YpD6gAe1";
    prefix.chars().chain(drawn.chars().cycle().take(length)).collect()
}

fn jwt() -> String {
    ["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"]
        .join(".")
}

fn pem(kind: &str) -> String {
    format!(
        "-----BEGIN {kind}-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSj+/=\n-----END {kind}-----"
    )
}

/// Texts that are secret as a whole, and the family that they are told as.
fn secrets() -> Vec<(String, &'static str)> {
    let mut secrets = Vec::new();
    for (prefix, length) in [
        ("sk-", 32),
        ("sk-ant-api03-", 64),
        ("sk-proj-", 40),
        ("ghp_", 36),
        ("gho_", 36),
        ("ghs_", 36),
        ("github_pat_", 60),
        ("xoxb-123456789012-", 24),
        ("AIza", 35),
        ("hf_", 34),
        ("glpat-", 20),
        ("npm_", 36),
        ("pypi-", 60),
        ("ya29.", 40),
        ("sk_live_", 24),
        ("gsk_", 32),
        ("nvapi-", 40),
    ] {
        secrets.push((key(prefix, length), "api-key"));
    }
    for id in ["AKIAIOSFODNN7EXAMPLE", "ASIAY34FZKBOKMUTVV7A"] {
        secrets.push((id.to_owned(), "api-key"));
    }
    secrets.push((jwt(), "jwt"));
    for kind in [
        "PRIVATE KEY",
        "RSA PRIVATE KEY",
        "EC PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
        "PGP PRIVATE KEY BLOCK",
    ] {
        secrets.push((pem(kind), "private-key"));
    }
    for address in [
        "ada@example.org",
        "a.b+c_d%e@mail.sub.example.co.uk",
        "josé@bücher.example",
        "x%40example.com",
    ] {
        secrets.push((address.to_owned(), "email"));
    }
    for card in [
        "4111111111111111",
        "4111 1111 1111 1111",
        "5500-0055-5555-5559",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "30569309025904",
        "4222222222222",
        "2223003122003222",
        "41 11 11 11 11 11 11 11",
        "411 1111 1111 11111",
        "4111  1111  1111  1111",
        "4111.1111.1111.1111",
        "41111111 11111111",
    ] {
        secrets.push((card.to_owned(), "card"));
    }
    secrets
}

fn clean(text: &str) -> String {
    redact(&Policy::default(), text).into_owned()
}

fn passes(text: &str) {
    let policy = Policy::default();
    let read = redact(&policy, text);
    assert!(matches!(read, Cow::Borrowed(_)), "{text} became {read}");
}

#[test]
fn every_family_is_found_at_the_start_in_the_middle_and_at_the_end() {
    for (secret, family) in secrets() {
        let mark = format!("[redacted:{family}]");
        for (before, after) in [
            ("", ""),
            ("", " is here"),
            ("saw ", " here"),
            ("saw (", "), then"),
            ("saw \"", "\"."),
            ("x=<", ">"),
            ("é ", "é".trim_start_matches('é')),
            ("last ", "."),
            ("one, ", ", two"),
        ] {
            let text = format!("{before}{secret}{after}");
            assert_eq!(clean(&text), format!("{before}{mark}{after}"), "{text}");
        }
    }
}

#[test]
fn values_of_named_keys_go_and_their_names_stay() {
    for (text, expected) in [
        ("api_key=abc", "api_key=[redacted:secret]"),
        ("API-Key: 12ab", "API-Key: [redacted:secret]"),
        ("your api key: 12ab.", "your api key: [redacted:secret]."),
        ("password: hunter2, retry", "password: [redacted:secret], retry"),
        ("DB_PASSWORD=p@ss,w]rd next", "DB_PASSWORD=[redacted:secret] next"),
        ("clientSecret := 'two words'", "clientSecret := '[redacted:secret]'"),
        ("{\"token\":\"abcdef\"}", "{\"token\":\"[redacted:secret]\"}"),
        (r#"{\"password\":\"abc\"}"#, r#"{\"password\":\"[redacted:secret]\"}"#),
        (r#"password="a\"b" x"#, r#"password="[redacted:secret]" x"#),
        ("password=\"half of i…", "password=\"[redacted:secret]"),
        ("?access_token=abc123&x=1", "?access_token=[redacted:secret]&x=1"),
        ("token=abcdef", "token=[redacted:secret]"),
        ("token: a1b2c3d4e5", "token: [redacted:secret]"),
        ("AccountKey=Zm9v;Endpoint=x", "AccountKey=[redacted:secret];Endpoint=x"),
        ("Cookie: sid=1; theme=dark", "Cookie: [redacted:secret]"),
        (
            "password=ab,user=cd,password=\"e f\"",
            "password=[redacted:secret],user=cd,password=\"[redacted:secret]\"",
        ),
        ("secret: Bearer abc", "secret: Bearer [redacted:credential]"),
        ("secret=4111 1111 1111 1111!", "secret=[redacted:secret]!"),
        ("HF_TOKEN=abcdefgh", "HF_TOKEN=[redacted:secret]"),
    ] {
        assert_eq!(clean(text), expected);
    }
}

#[test]
fn a_private_key_is_never_taken_in_part() {
    let pem = pem("RSA PRIVATE KEY");
    for before in [
        "PRIVATE_KEY=",
        "password: ab",
        "/home/ada",
        "k=\"",
        "password='\\",
        "sk-ant-abcdefgh",
        "https://a:",
    ] {
        let read = clean(&format!("{before}{pem} end"));
        assert!(read.ends_with("[redacted:private-key] end"), "{read}");
    }
}

#[test]
fn credentials_in_headers_go_and_their_schemes_stay() {
    for (text, expected) in [
        ("Authorization: Bearer abc", "Authorization: Bearer [redacted:credential]"),
        ("authorization=Basic YTpi", "authorization=Basic [redacted:credential]"),
        ("Authorization: abc", "Authorization: [redacted:credential]"),
        (
            "\"Authorization\": \"Bearer a.b-c\"",
            "\"Authorization\": \"Bearer [redacted:credential]\"",
        ),
        ("sent bearer 4fK9wQz7TnB2, got 401", "sent bearer [redacted:credential], got 401"),
        ("with Basic dXNlcjpwYXNz", "with Basic [redacted:credential]"),
        (
            "Authorization: Digest username=\"a\", nonce=1",
            "Authorization: Digest [redacted:credential]\"a\", nonce=1",
        ),
    ] {
        assert_eq!(clean(text), expected);
    }
}

#[test]
fn passwords_in_urls_go_and_the_rest_stays() {
    for (text, expected) in [
        ("https://ada:pw@host:8080/x", "https://ada:[redacted:password]@host:8080/x"),
        ("redis://:p/w#x@host/0", "redis://:[redacted:password]@host/0"),
        ("pg://a:p~s@h", "pg://a:[redacted:password]@h"),
        ("pg://a:p@ss:w@h", "pg://a:[redacted:password]@h"),
        ("at redis://ada:sesa…", "at redis://ada:[redacted:password]…"),
    ] {
        assert_eq!(clean(text), expected);
    }
}

#[test]
fn home_folders_lose_their_owner() {
    for (text, expected) in [
        ("/home/ada/models/m.gguf", "~/models/m.gguf"),
        ("read /Users/ada.l/m.gguf.", "read ~/m.gguf."),
        (r"C:\Users\ada\m.gguf", r"~\m.gguf"),
        (r"c:\users\Ada Lovelace\m.gguf", r"~\m.gguf"),
        (r"C:\\Users\\ada\\m.gguf", r"~\\m.gguf"),
        ("D:/Users/ada/m", "~/m"),
        ("file:///home/ada/m", "file://~/m"),
        ("/mnt/c/Users/ada/m", "~/m"),
        ("/var/home/ada/m", "~/m"),
        ("'/home/ada'", "'~'"),
        ("/home/ada: no such file", "~: no such file"),
        ("/home/ad…", "~…"),
        (r"C:\Users\ada is full", r"~ is full"),
    ] {
        assert_eq!(clean(text), expected);
    }
}

#[test]
fn what_was_cut_off_does_not_leak() {
    for (text, expected) in [
        ("key ghp_4fK…", "key [redacted:api-key]…"),
        ("key sk-ant-ap…", "key [redacted:api-key]…"),
        ("eyJhbGciOiJI…", "[redacted:jwt]…"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJz…", "[redacted:jwt]…"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEvQ…", "[redacted:private-key]"),
        ("for ada@exam…", "for [redacted:email]…"),
        ("card 4111 1111 1111 1…", "card 4111 1111 1111 1…"),
        ("card 411111111111111…", "card [redacted:card]…"),
        ("Bearer abcd…", "Bearer [redacted:credential]…"),
    ] {
        assert_eq!(clean(text), expected);
    }
}

#[test]
fn what_only_looks_like_a_secret_passes() {
    for text in [
        "",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "sha256:4111111111111111411111111111111141111111111111114111111111111111",
        "0190a5f4-7b1c-7c3e-8d2f-0123456789ab",
        "41111111-1111-4111-8111-411111111111",
        "a1b2c3d4-4111-1111-1111-1111deadbeef",
        "4111111111111112 is no card",
        "1700000000000000 µs",
        "seed 4111111111111111, seed=4111111111111111, \"seed\":4111111111111111",
        "4111111111111111 bytes, 4111111111111111 µs, 4111111111111111ns",
        "timestamp_us: 4111111111111111 resident_bytes=4111111111111111",
        "41.11.11.11.11.11.11.11 and 4.1.1.1 1.1.1.1 1.1.1.1",
        "0.4111111111111111 and 4111111111111111.5",
        "seed 9007199254740993, 18446744073709551615",
        "127.0.0.1:8080 [::1]:8080 0.0.0.0:0",
        "http://127.0.0.1:9000/ready?x=1&max_tokens=128",
        "http://host:80…",
        "http://localhost:8080/users/5/home/page/1",
        "https://example.com/home/page/1",
        "max_tokens: must be between 1 and 2048",
        "max_tokens=128, prompt_tokens: 12, tokens/s: 24.5",
        "time_to_first_token: 1200.25ms, ms per token: 41.123ms",
        "eos_token: <|im_end|>, bos_token=<|im_start|>",
        "token: 42 of 128, token=12",
        "unexpected token: `endfor1234`",
        "password: must be given; secret: none; api_key: null",
        "auth=disabled pass: 2 of 12",
        "pwd=/srv/models",
        "bearer authentication, Bearer token, basic functionality",
        "Basic JavaScript, basic 1234",
        "task-force-of-the-desk-clerks sk-learn-contrib hf_hub_download",
        "pypi-attestations npm_config_cache ghp_short AKIATOOSHORT",
        "SmolLM2-135M-Instruct.Q4_1.gguf TheBloke/Llama-2-7B-Chat-GGUF",
        "gpt2@main pkg@1.2.3 @scope/name user@host image@sha256:abc",
        "eyJust a word, eyJhbGciOiJIUzI1NiJ9.",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
        "/srv/home/x /homes/ada /home/ /home/$USER/x /Users/Shared/x",
        r"C:\Users\Public\x",
        "std::token::Secret::new, a == b, x => y, f(a: u32)",
        "avx512-vnni Q4_1 llama 49152 8192",
        "\"Any room?\" asks http-server. \"Yes,\" answers candle-backend 🐝",
    ] {
        passes(text);
    }
}

#[test]
fn the_policy_keeps_and_takes_what_the_operator_says() {
    let policy = Policy::read(
        r#"{"allow":["help@example.org","hunter2"],"deny":["blue-heron","Größe"],"replacement":"<{family}>"}"#,
    )
    .expect("understood");
    for (text, expected) in [
        ("help@example.org or me@example.org", "help@example.org or <email>"),
        ("password=hunter2 password=hunter3", "password=hunter2 password=<secret>"),
        ("the blue-heron nests, Größe 3", "the <denied> nests, <denied> 3"),
        ("<email>", "<email>"),
        ("password=<secret>", "password=<secret>"),
    ] {
        assert_eq!(redact(&policy, text), expected);
        assert_eq!(redact(&policy, expected), expected);
    }
    let stars = Policy::read(r#"{"replacement":"***"}"#).expect("understood");
    assert_eq!(redact(&stars, "password=abc ada@example.org"), "password=*** ***");
}

#[test]
fn patterns_of_the_operators_are_taken_out_too() {
    let policy =
        Policy::read(r#"{"patterns":["ACME-[0-9]{4,8}","cust_\\w+","[A-Z]{2}\\d{2} ?\\d{4}"]}"#)
            .expect("understood");
    for (text, expected) in [
        (
            "see ACME-12345, ACME-12 and ACME-123456789",
            "see [redacted:pattern], ACME-12 and [redacted:pattern]9",
        ),
        ("for cust_ab12.", "for [redacted:pattern]."),
        ("to DE12 3456 or DE123456", "to [redacted:pattern] or [redacted:pattern]"),
        ("xACME-1234", "x[redacted:pattern]"),
        ("[redacted:pattern]", "[redacted:pattern]"),
    ] {
        assert_eq!(redact(&policy, text), expected);
        assert_eq!(redact(&policy, expected), expected);
    }
}

#[test]
fn a_policy_that_is_not_understood_is_refused_by_name() {
    for (config, named) in [
        (r#"{"patterns":["a|b"]}"#, "patterns[0]: has `|`"),
        (r#"{"patterns":["[0-9"]}"#, "without its ]"),
        (r#"{"patterns":["a*bcd"]}"#, "may be missing"),
        (r#"{"patterns":["ab"]}"#, "at least 3"),
        (r#"{"patterns":["a{200}"]}"#, "more than 127"),
        (r#"{"patterns":["ab[z-a]c"]}"#, "backwards"),
        (r#"{"alow":[]}"#, "alow"),
        (r#"{"allow":"x"}"#, "sequence"),
        (r#"{"allow":[""]}"#, "allow[0]"),
        (r#"{"deny":["abc","ab"]}"#, "deny[1]"),
        (r#"{"replacement":"x"}"#, "replacement"),
        (r#"{"replacement":"gone"}"#, "begin and end"),
        (r#"{"replacement":"{family}"}"#, "begin and end"),
        (r#"{"replacement":"[\"]"}"#, "quotes"),
        ("[1]", "invalid"),
        ("", "EOF"),
    ] {
        let error = Policy::read(config).err().expect(config);
        assert!(error.contains(named), "{config}: {error}");
    }
    assert!(Policy::read("{}").is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(SCHEMA).is_ok());
}

fn told(fact: Fact) -> Narration {
    let mut narration = Narration {
        fact,
        target: "/home/ada/m.gguf".to_owned(),
        sinks: Sinks::STDOUT,
        human: "Mail ada@example.org.".to_owned(),
        cute: Some("🐝 ada@example.org".to_owned()),
        story: Some("\"ada@example.org\"".to_owned()),
    };
    walk::narration(&Policy::default(), &mut narration);
    narration
}

#[test]
fn every_text_of_a_narration_is_read() {
    let path = "/home/ada/m.gguf".to_owned();
    let told = told(Fact::ModelLoadStarted(ModelLoadStarted { path, file_bytes: 1 }));
    assert_eq!(told.target, "~/m.gguf");
    assert_eq!(told.human, "Mail [redacted:email].");
    assert_eq!(told.cute.as_deref(), Some("🐝 [redacted:email]"));
    assert_eq!(told.story.as_deref(), Some("\"[redacted:email]\""));
    assert!(matches!(told.fact, Fact::ModelLoadStarted(load) if load.path == "~/m.gguf"));
    assert_eq!(told.sinks, Sinks::STDOUT);
}

#[test]
fn lists_and_options_of_a_fact_are_read() {
    let violation = |text: &str| Violation { field: text.to_owned(), constraint: text.to_owned() };
    let violations = vec![violation("body"), violation("to ada@example.org")];
    let Fact::RequestRejected(told) =
        told(Fact::RequestRejected(RequestRejected { status: 400, violations })).fact
    else {
        unreachable!("a filter keeps the kind");
    };
    assert_eq!(told.violations[0].field, "body");
    assert_eq!(told.violations[1].constraint, "to [redacted:email]");
}

#[test]
fn urls_and_reasons_are_read_and_digests_pass() {
    let url = "https://pool:pw@host/ready".to_owned();
    let reason = "401: Bearer 4fK9wQz7TnB2".to_owned();
    let failed = CallbackFailed { url, attempt: 1, status: None, reason, retry_in_ms: None };
    let Fact::CallbackFailed(failed) = told(Fact::CallbackFailed(failed)).fact else {
        unreachable!("a filter keeps the kind");
    };
    assert_eq!(failed.url, "https://pool:[redacted:password]@host/ready");
    assert_eq!(failed.reason, "401: Bearer [redacted:credential]");
    let digest = "4111111111111111411111111111111141111111111111114111111111111111".to_owned();
    let name = "redact".to_owned();
    let loaded = FilterLoaded { name, digest: digest.clone(), generation: 1, duration_ms: 1.0 };
    let Fact::FilterLoaded(loaded) = told(Fact::FilterLoaded(loaded)).fact else {
        unreachable!("a filter keeps the kind");
    };
    assert_eq!(loaded.digest, digest);
}

fn other(json: &str) -> String {
    let name = "new-kind".to_owned();
    let Fact::Other(told) = told(Fact::Other(Other { name, json: json.to_owned() })).fact else {
        unreachable!("a filter keeps the kind");
    };
    told.json
}

#[test]
fn a_younger_fact_stays_json() {
    for (json, expected) in [
        (r#"{ "tokens": 12, "rate": 24.50 }"#, r#"{ "tokens": 12, "rate": 24.50 }"#),
        (r#"{"path":"C:\\Users\\ada\\m"}"#, r#"{"path":"~\\m"}"#),
        (
            r#"{"who":"ada\u0040example.org","n":18446744073709551615}"#,
            r#"{"n":18446744073709551615,"who":"[redacted:email]"}"#,
        ),
        (r#"{"password":["ab",{"x":"cd"}]}"#, r#"{"password":["[redacted:secret]",{"x":"cd"}]}"#),
        (r#"{"card":4111111111111111}"#, r#"{"card":"[redacted:card]"}"#),
        (r#"{"seed":4111111111111111}"#, r#"{"seed":4111111111111111}"#),
        (r#"{"ada@example.org":1}"#, r#"{"[redacted:email]":1}"#),
        (r#"{"text":"a \"quoted\" word"}"#, r#"{"text":"a \"quoted\" word"}"#),
        ("not JSON, ada@example.org", "not JSON, [redacted:email]"),
    ] {
        assert_eq!(other(json), expected);
        assert_eq!(other(expected), expected);
    }
}

#[test]
fn what_was_redacted_is_not_redacted_again() {
    let secrets = every_secret();
    let pieces = pieces(&secrets);
    let policies = [
        Policy::default(),
        Policy::read(r#"{"deny":["heron","adapw","x[re","dac"],"allow":["ada@example.org"]}"#)
            .expect("understood"),
        Policy::read(r#"{"replacement":"***","deny":["***","4111","-1"]}"#).unwrap_or_default(),
        Policy::read(r##"{"replacement":"#{family}|x: y#"}"##).expect("understood"),
    ];
    let seed = seed(20_260);
    let mut dice = Dice(seed);
    for round in 0..rounds() {
        let text: String = (0..1 + dice.below(9)).map(|_| dice.pick(&pieces)).collect();
        let policy = &policies[round % policies.len()];
        let once = redact(policy, &text).into_owned();
        let twice = redact(policy, &once);
        assert_eq!(
            twice,
            once,
            "SEED={seed}, round {round}, from {text:?}, policy {}",
            round % policies.len()
        );
    }
}

/// Where dice begin: `SEED`, or as ever.
fn seed(otherwise: u64) -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(otherwise)
}

/// More of them where the environment asks for it: `ROUNDS=20000000`, in release.
fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20_000)
}

/// A line as a worker tells it, with drawn numbers, names and ids, and no secret in it.
fn clean_line(dice: &mut Dice) -> String {
    let hex = dice.word("0123456789abcdef", 64, 1);
    let uuid =
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]);
    let number = dice.below(1_000_000);
    let large = dice.word("0123456789", 1, 12);
    let name = dice.word("abcdefghijklmnopqrstuvwxyzABCDEF-_.0123456789", 3, 24);
    let kind =
        dice.pick(&["Q4_1", "Q8_0", "F16", "llama", "avx2", "neon", "SmolLM2-135M-Instruct"]);
    let word = dice.pick(&[
        "token", "tokens", "bearer", "basic", "secret", "password", "key", "auth", "home", "user",
    ]);
    let shaped = format!("{}{}", 4 + dice.below(2), dice.word("0123456789", 12, 7));
    match dice.below(17) {
        14 => format!("request with seed {shaped}, {word} {number}"),
        15 => format!("Loading {name} ({shaped} bytes), timestamp_us={shaped}"),
        16 => format!("{{\"seed\":{shaped},\"resident_bytes\": {shaped}}} in {shaped} ns"),
        0 => format!(
            "Generating: {number} tokens so far, at {}.{} tokens/s.",
            number % 300,
            number % 10
        ),
        1 => format!(
            "Loaded {kind} ({name}.gguf, {number}M parameters, {large} bytes) in {number} ms."
        ),
        2 => format!("Put filter {name} in service in {number} ms (generation {number}, {hex})."),
        3 => format!("{uuid} req-{} trace {}", &uuid[..8], &hex[..32]),
        4 => format!(
            "The HTTP server listens on 10.0.{}.{}:{}.",
            number % 256,
            number % 251,
            number % 65_536
        ),
        5 => {
            format!("http://pool-{}.svc:{}/workers/{uuid}?n={number}", number % 90, number % 65_536)
        }
        6 => format!("/srv/models/{name}/{kind}-{number}.gguf: {number} of {large} bytes"),
        7 => format!("max_tokens: must be between 1 and {number}, {word}: must be given"),
        8 => format!("seed {large}, sequence {number}, timestamp 17{:014}", number * 7),
        9 => format!("sha256:{hex} {word} {number}"),
        10 => format!(
            "{number} drops of honey, the {word} of {kind} 🍯 at {number}.{} a second",
            number % 100
        ),
        11 => format!(
            "\"After the {number} before it,\" answers {name}. \"A {word}?\" asks http-server."
        ),
        12 => format!(
            "time_to_first_token={number}.{}ms per_token: {number}.5ms tokens_out={number}",
            number % 1_000
        ),
        _ => format!("2026-07-{:02}T10:11:12.{:06}Z {kind} {name} {word}", 1 + number % 28, number),
    }
}

#[test]
fn twenty_thousand_clean_lines_pass() {
    let mut dice = Dice(7);
    let policy = Policy::default();
    let mut changed = Vec::new();
    for _ in 0..20_000 {
        let line = clean_line(&mut dice);
        if let Cow::Owned(read) = redact(&policy, &line) {
            changed.push((line, read));
        }
    }
    assert!(changed.len() <= 2, "{} changed: {changed:#?}", changed.len());
}

#[test]
fn a_megabyte_of_triggers_is_read_in_linear_time() {
    let policy = Policy::read(r#"{"deny":["aaaaaaaaab","::::x"]}"#).expect("understood");
    for piece in [
        "a",
        "@",
        "a@",
        "a@b.",
        "%40",
        "a%40",
        ":",
        "=",
        "://",
        "a://b:",
        "a://b:c/",
        "password=\"",
        "password='\\",
        "token:",
        "eyJ",
        "eyJ-",
        "eyJaaaaaaaa.",
        "sk-",
        "sk-a-",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "/home/",
        "C:\\Users\\",
        "C:\\Users\\a ",
        "4111 ",
        "4111-",
        "4",
        "Bearer ",
        "Basic YTpi",
        "[",
        "[redacted:",
        "é",
        "AKIA",
        "[redacted:email]",
        "Authorization: Digest ",
        "----",
        "\\",
        "ghp_…",
        "x[redacted:email]://",
    ] {
        let text = piece.repeat(1_000_000 / piece.len());
        let once = redact(&policy, &text);
        assert!(once.len() <= 12 * text.len());
    }
}
