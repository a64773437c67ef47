//! Fetches models from a hub that speaks Hugging Face's endpoints: a listing, then files by range,
//! each checked before it gets its name. Trusts neither names, sizes nor bytes that come from there,
//! and goes nowhere but where it is told and redirected.

mod fetch;
mod listing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Url};

pub use fetch::Meter;
use listing::{Listing, choose};

use crate::error::{Error, Kind, Result};
use crate::limits::{HUB_CONNECT_MS, HUB_READ_MS};
use crate::private::Private;

/// Where models come from unless `HF_ENDPOINT` names another place.
const ENDPOINT: &str = "https://huggingface.co";

/// What to fetch: `REPO`, or `REPO:FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the repository, `owner/name`.
    pub repo: String,
    /// A file of it, or a piece of one's name that no other has, such as `Q4_K_M`.
    pub file: Option<String>,
    /// Branch, tag or commit.
    pub revision: String,
}

impl Wanted {
    /// Takes `REPO[:FILE]` apart.
    ///
    /// # Errors
    /// [`Kind::Config`] where it is no such name.
    pub fn parse(text: &str, revision: &str) -> Result<Wanted> {
        let (repo, file) = match text.split_once(':') {
            Some((repo, file)) => (repo, Some(file)),
            None => (text, None),
        };
        let sound = |part: &str| {
            (1..=96).contains(&part.len())
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let parts: Vec<&str> = repo.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| sound(part)) {
            let what =
                "expected OWNER/NAME or OWNER/NAME:FILE of a repository, found something else";
            return Err(Error::new(Kind::Config, what));
        }
        if file.is_some_and(|file| file.is_empty() || !listing::is_file_name(file)) {
            return Err(Error::new(Kind::Config, "expected the name of a file after the colon"));
        }
        if !revision.split('/').all(sound) {
            return Err(Error::new(Kind::Config, "--revision is a branch, a tag or a commit"));
        }
        let (repo, revision) = (repo.to_owned(), revision.to_owned());
        Ok(Wanted { repo, file: file.map(str::to_owned), revision })
    }
}

/// A hub, and who asks it.
pub struct Hub {
    client: Client,
    endpoint: Url,
    token: Option<Private>,
}

impl Hub {
    /// The hub that `HF_ENDPOINT` names, asked in the name of `HF_TOKEN`, where they are set.
    ///
    /// # Errors
    /// [`Kind::Config`] where `HF_ENDPOINT` is no URL.
    pub fn from_environment() -> Result<Hub> {
        let endpoint = std::env::var("HF_ENDPOINT").unwrap_or_else(|_| ENDPOINT.to_owned());
        let endpoint = Url::parse(&endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Error::new(Kind::Config, "HF_ENDPOINT is no http:// or https:// URL"))?;
        let token = std::env::var("HF_TOKEN").ok().filter(|token| !token.trim().is_empty());
        let token = token.map(|token| Private::new(token.trim().to_owned()));
        let client = Client::builder()
            .user_agent(concat!("rbees-workerd/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_millis(HUB_CONNECT_MS))
            .read_timeout(Duration::from_millis(HUB_READ_MS))
            .build()
            .map_err(|e| Error::new(Kind::Internal, "no HTTP client can be made").because(e))?;
        Ok(Hub { client, endpoint, token })
    }

    /// Fetches what is wanted into `folder`; what is there already, whole, is not fetched again, and
    /// what is there in part is continued. Returns what `serve --model` takes: the GGUF file, or the
    /// folder of a model in several files.
    ///
    /// # Errors
    /// [`Kind::Model`] where the hub has no such model, can't be reached, or sends other bytes than
    /// its listing says; [`Kind::Config`] where the folder can't be written.
    pub async fn pull(
        &self,
        wanted: &Wanted,
        folder: &Path,
        meter: &mut dyn Meter,
    ) -> Result<PathBuf> {
        let listing = Listing::read(self, wanted).await?;
        let files = choose(&listing, wanted)?;
        let single = files.len() == 1;
        let name = wanted.repo.split('/').next_back().unwrap_or(&wanted.repo);
        let folder = if single { folder.to_owned() } else { folder.join(name) };
        let mut last = folder.clone();
        for file in &files {
            // The repository's own folders matter to nobody who asked for one file.
            let own = if single { file.name.rsplit('/').next() } else { Some(file.name.as_str()) };
            last = folder.join(own.unwrap_or(&file.name));
            fetch::file(self, wanted, &listing.commit, file, &last, meter).await?;
        }
        Ok(if single { last } else { folder })
    }

    /// A request to a path of the hub.
    fn get(&self, path: &str) -> Result<reqwest::RequestBuilder> {
        let base = self.endpoint.as_str().trim_end_matches('/');
        let url = Url::parse(&format!("{base}/{path}"))
            .map_err(|e| Error::new(Kind::Internal, "a path of the hub is no URL").because(e))?;
        let request = self.client.get(url);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        })
    }

    /// An error about this hub: what it did, and what to do.
    fn error(&self, problem: &str) -> Error {
        let host = self.endpoint.host_str().unwrap_or("the hub");
        Error::new(Kind::Model, format!("{host}: {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_or_refused() {
        let wanted = Wanted::parse("owner/name:Q4_K_M", "main").expect("a sound name");
        assert_eq!((wanted.repo.as_str(), wanted.file.as_deref()), ("owner/name", Some("Q4_K_M")));
        assert_eq!(Wanted::parse("a/b", "v1").expect("a sound name").file, None);
        let bad =
            ["", "a", "a/b/c", "../b", "a/..", "a/b:", "a/b:../c", "a/b:/c", "a b/c", "a/b?x"];
        for bad in bad {
            let error = Wanted::parse(bad, "main").expect_err(bad);
            assert_eq!(error.kind(), Kind::Config, "{bad}");
        }
        assert!(Wanted::parse("a/b", "../x").is_err());
    }
}
