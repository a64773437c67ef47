//! What a repository holds, and which of it makes a model. Reads a bounded answer; a name that could
//! lead out of a folder is refused.

use serde::Deserialize;

use super::{Hub, Wanted};
use crate::error::{Error, Kind, Result};
use crate::limits::{HUB_FILE_NAME_BYTES_MAX, HUB_FILES_MAX, HUB_LISTING_BYTES_MAX};

/// A repository at one commit.
pub struct Listing {
    /// The commit that the files are fetched at, so that they belong together.
    pub commit: String,
    /// Its files.
    pub files: Vec<Remote>,
}

/// A file as the hub describes it.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Its path in the repository.
    pub name: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// Its SHA-256, hexadecimal; large files have one.
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// Whether a path stays in its folder and is plain text.
pub fn is_file_name(name: &str) -> bool {
    let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.len() <= HUB_FILE_NAME_BYTES_MAX
        && name.split('/').all(sound)
        && name.chars().all(|c| !c.is_control() && !"\\:?#%*\"<>|".contains(c))
}

impl Listing {
    /// Asks the hub what the repository holds.
    pub async fn read(hub: &Hub, wanted: &Wanted) -> Result<Listing> {
        let Wanted { repo, revision, .. } = wanted;
        let path = format!("api/models/{repo}/revision/{revision}?blobs=true");
        let unreachable = |e: reqwest::Error| {
            hub.error("can't be reached; check the network and HF_ENDPOINT")
                .because(e.without_url())
        };
        let mut response = hub.get(&path)?.send().await.map_err(unreachable)?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 => {
                let what = format!("{repo} needs a token with access to it: set HF_TOKEN");
                return Err(hub.error(&what));
            }
            404 => return Err(hub.error(&format!("has no {repo} at {revision}; check the name"))),
            status => return Err(hub.error(&format!("answered {status}; try again later"))),
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&piece);
            if body.len() > HUB_LISTING_BYTES_MAX {
                return Err(hub.error(&format!("lists more than {HUB_LISTING_BYTES_MAX} bytes")));
            }
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| hub.error("sent a listing that is none; is it a hub?").because(e))?;
        Listing::check(hub, answer)
    }

    fn check(hub: &Hub, answer: Answer) -> Result<Listing> {
        let Answer { sha: commit, siblings } = answer;
        if commit.is_empty() || commit.len() > 64 || !commit.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(hub.error("names no commit in its listing; is it a hub?"));
        }
        if siblings.len() > HUB_FILES_MAX {
            return Err(hub.error(&format!("lists more than {HUB_FILES_MAX} files")));
        }
        let sound =
            |digest: &String| digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        let files = siblings.into_iter().filter(|file| is_file_name(&file.rfilename)).map(|file| {
            let bytes = file.lfs.as_ref().map(|lfs| lfs.size).or(file.size);
            let sha256 = file.lfs.map(|lfs| lfs.sha256.to_ascii_lowercase()).filter(sound);
            bytes.map(|bytes| Remote { name: file.rfilename, bytes, sha256 })
        });
        Ok(Listing { commit, files: files.flatten().collect() })
    }
}

/// The files that make the wanted model: the one that was named, the only GGUF, or else the weights
/// and descriptions of a model in safetensors.
///
/// # Errors
/// [`Kind::Model`] with what there is to choose from.
pub fn choose(listing: &Listing, wanted: &Wanted) -> Result<Vec<Remote>> {
    let is = |file: &Remote, extension: &str| {
        file.name.rsplit('.').next().is_some_and(|own| own.eq_ignore_ascii_case(extension))
    };
    let ggufs: Vec<&Remote> = listing.files.iter().filter(|file| is(file, "gguf")).collect();
    if let Some(name) = &wanted.file {
        if let Some(file) = listing.files.iter().find(|file| &file.name == name) {
            return Ok(vec![file.clone()]);
        }
        let piece = name.to_ascii_lowercase();
        let like = |file: &&&Remote| file.name.to_ascii_lowercase().contains(&piece);
        let matching: Vec<&Remote> = ggufs.iter().filter(like).copied().collect();
        return match matching.as_slice() {
            [file] => Ok(vec![(*file).clone()]),
            [] => Err(unclear(wanted, "has no file of that name", &ggufs)),
            several => Err(unclear(wanted, "has several files that this fits", several)),
        };
    }
    match ggufs.as_slice() {
        [file] => return Ok(vec![(*file).clone()]),
        [] => {}
        several => return Err(unclear(wanted, "holds several models", several)),
    }
    let described = |file: &&Remote| {
        let known = ["json", "jinja"].iter().any(|extension| is(file, extension));
        !file.name.contains('/') && (known || is(file, "safetensors"))
    };
    let files: Vec<Remote> = listing.files.iter().filter(described).cloned().collect();
    if !files.iter().any(|file| is(file, "safetensors")) {
        return Err(unclear(wanted, "holds neither GGUF nor safetensors", &[]));
    }
    Ok(files)
}

fn unclear(wanted: &Wanted, problem: &str, files: &[&Remote]) -> Error {
    let mut text = format!("{} {problem}", wanted.repo);
    if !files.is_empty() {
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).take(24).collect();
        text.push_str(&format!("; say {}:FILE with one of: {}", wanted.repo, names.join(", ")));
        if files.len() > names.len() {
            text.push_str(&format!(" and {} more", files.len() - names.len()));
        }
    }
    Error::new(Kind::Model, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], file: Option<&str>) -> Result<Vec<String>> {
        let files =
            names.iter().map(|name| Remote { name: (*name).to_owned(), bytes: 1, sha256: None });
        let listing = Listing { commit: "a".into(), files: files.collect() };
        let wanted =
            Wanted { repo: "o/n".into(), file: file.map(str::to_owned), revision: "main".into() };
        Ok(choose(&listing, &wanted)?.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn the_model_is_found_or_the_choice_is_told() {
        let two = ["README.md", "m.Q4_0.gguf", "m.Q8_0.gguf"];
        assert_eq!(check(&two, Some("q8_0")).ok(), Some(vec!["m.Q8_0.gguf".to_owned()]));
        assert_eq!(check(&two, Some("README.md")).ok(), Some(vec!["README.md".to_owned()]));
        let text = check(&two, None).expect_err("two models").to_string();
        assert!(text.contains("o/n:FILE with one of: m.Q4_0.gguf, m.Q8_0.gguf"), "{text}");
        assert!(check(&two, Some("Q5")).is_err() && check(&two, Some("Q")).is_err());
        assert_eq!(check(&["a/m.gguf"], None).ok(), Some(vec!["a/m.gguf".to_owned()]));
        let folder = ["config.json", "tokenizer.json", "model.safetensors", "onnx/model.json"];
        assert_eq!(check(&folder, None).expect("a model").len(), 3);
        assert!(check(&["README.md"], None).is_err());
    }

    #[test]
    fn no_name_leads_out_of_a_folder() {
        for bad in ["../a", "a/../b", "/a", "a//b", "a\\b", "a\nb", "", ".", "C:a"] {
            assert!(!is_file_name(bad), "{bad:?}");
        }
        assert!(is_file_name("a/b.c-d_e (1).gguf"));
    }
}
