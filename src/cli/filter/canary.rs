//! Secrets to plant in facts, one of each family that a redactor is trusted with, to see whether they
//! come out again. None of them opens anything; they are put together here so that no scanner of
//! sources takes them for real ones.

use crate::narration::Narration;

/// A planted secret.
pub struct Canary {
    /// What kind of secret it is.
    pub family: &'static str,
    /// How it stands in a text.
    pub text: String,
    /// The part of it that must not come out.
    pub secret: String,
}

const DRAWN: &str = "4fK9wQz7TnB2mXc8RjL5vHs3YpD6gAe1";

/// One of each family.
pub fn all() -> Vec<Canary> {
    let canary =
        |family, text: String, secret: &str| Canary { family, text, secret: secret.to_owned() };
    let key = |prefix: &str| format!("{prefix}{DRAWN}");
    let jwt = ["eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", DRAWN].join(".");
    let pem = format!("-----BEGIN {0}----- {DRAWN}MIIEvQ -----END {0}-----", "PRIVATE KEY");
    vec![
        canary("bearer credential", format!("Authorization: Bearer {DRAWN}"), DRAWN),
        canary("basic credential", "with Basic dXNlcjpwYXNz".into(), "dXNlcjpwYXNz"),
        canary("value of a named key", "password: xylophone7".into(), "xylophone7"),
        canary("key with a known prefix", key("ghp_"), DRAWN),
        canary("JSON Web Token", jwt, DRAWN),
        canary("private key", pem, DRAWN),
        canary("password in a URL", "redis://ada:sesam@cache/0".into(), "sesam"),
        canary("e-mail address", "for ada@example.org".into(), "ada@example"),
        canary("card number", "card 4111 1111 1111 1111".into(), "1111 1111"),
        canary("home folder", "/home/ada/m.gguf".into(), "/home/ada"),
    ]
}

impl Canary {
    /// Plants it in every text of a narration.
    pub fn plant(&self, narration: &mut Narration) {
        narration.texts(&mut |text| {
            // The text of `other` has to stay a JSON object.
            *text = if text == "{}" {
                serde_json::json!({ "note": self.text }).to_string()
            } else {
                self.text.clone()
            };
        });
    }

    /// Where it is still to be seen.
    pub fn seen(&self, narration: &Narration) -> Vec<String> {
        super::lint::texts(narration)
            .into_iter()
            .filter(|(_, text)| text.contains(&self.secret))
            .map(|(place, _)| place)
            .collect()
    }
}
