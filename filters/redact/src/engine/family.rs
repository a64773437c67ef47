//! The kinds of secrets and personal data, and what they are called. Finds none of them.

/// A kind of secret or personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Bearer and basic credentials.
    Credential,
    /// The value of a key that is named like a secret.
    Secret,
    /// A key with a well-known prefix.
    ApiKey,
    /// JSON Web Token.
    Jwt,
    /// PEM private key.
    PrivateKey,
    /// Password in a URL.
    Password,
    /// E-mail address.
    Email,
    /// Card number.
    Card,
    /// What the operator denies.
    Denied,
    /// What matches a pattern of the operator's.
    Pattern,
}

impl Family {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Credential,
        Self::Secret,
        Self::ApiKey,
        Self::Jwt,
        Self::PrivateKey,
        Self::Password,
        Self::Email,
        Self::Card,
        Self::Denied,
        Self::Pattern,
    ];

    /// Its name in a replacement.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Secret => "secret",
            Self::ApiKey => "api-key",
            Self::Jwt => "jwt",
            Self::PrivateKey => "private-key",
            Self::Password => "password",
            Self::Email => "email",
            Self::Card => "card",
            Self::Denied => "denied",
            Self::Pattern => "pattern",
        }
    }
}
