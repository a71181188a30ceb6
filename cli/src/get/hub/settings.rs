//! What the user's environment says of the hub: the `HF_*` variables, as huggingface_hub documents them.
//!
//! | variable | meaning |
//! |---|---|
//! | `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `HF_HOME`/hub | where files are kept |
//! | `HF_ENDPOINT` | another hub than huggingface.co |
//! | `HF_TOKEN`, else `HUGGING_FACE_HUB_TOKEN`, else the file `HF_TOKEN_PATH` | who asks; not if `HF_HUB_DISABLE_IMPLICIT_TOKEN` |
//! | `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` | nothing is asked, only the cache is looked at |
//! | `HF_HUB_ETAG_TIMEOUT` | seconds to wait for what is known of a file (10) |
//! | `HF_HUB_DOWNLOAD_TIMEOUT` | seconds in which some bytes of a download must come (10) |
//!
//! Nothing of this program's use is ever told to a hub, so `HF_HUB_DISABLE_TELEMETRY` has nothing to switch off.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::HubError;
use candle_trt::stream::read_regular;

const ENDPOINT: &str = "https://huggingface.co";

/// The longest token file that is read; tokens have some 40 characters.
const TOKEN: u64 = 64 << 10;

/// Where the hub is, and how to deal with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder with `models--owner--name` folders.
    pub cache: PathBuf,
    /// Without a slash at its end.
    pub endpoint: String,
    /// Sent to the endpoint, and to nobody that it refers to.
    pub token: Option<String>,
    /// Nothing may be asked.
    pub offline: bool,
    /// For the head of an answer.
    pub etag_timeout: Duration,
    /// For the next bytes of an answer.
    pub download_timeout: Duration,
}

impl Settings {
    /// As the process's environment says.
    ///
    /// # Errors
    ///
    /// [`HubError::Setting`] names the variable whose value cannot be used.
    pub fn from_env() -> Result<Self, HubError> {
        let text = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
        Self::from_variables(text)
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let folder = |name: &str| set(name).map(PathBuf::from);
        let home = folder("HF_HOME")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(folder("HOME")?.join(".cache/huggingface")));
        let in_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let cache = folder("HF_HUB_CACHE")
            .or_else(|| folder("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| in_home("hub"));
        let seconds = |name: &'static str| match set(name) {
            None => Ok(Duration::from_secs(10)),
            Some(text) => text
                .trim()
                .parse::<f64>()
                .ok()
                .filter(|s| *s > 0.0)
                .and_then(|s| Duration::try_from_secs_f64(s).ok())
                .ok_or(HubError::Setting {
                    name,
                    value: text,
                    wanted: "a number of seconds above 0",
                }),
        };
        let token_file = folder("HF_TOKEN_PATH").or_else(|| in_home("token"));
        let token = match set("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|v| is_true(&v)) {
            true => None,
            false => set("HF_TOKEN")
                .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
                .or_else(|| stored_token(&token_file?)),
        };
        Ok(Settings {
            cache: cache.ok_or(HubError::NoCache)?,
            endpoint: endpoint(set("HF_ENDPOINT"))?,
            token: token.map(|token| token.trim().to_string()),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .iter()
                .any(|name| set(name).is_some_and(|value| is_true(&value))),
            etag_timeout: seconds("HF_HUB_ETAG_TIMEOUT")?,
            download_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT")?,
        })
    }
}

/// What huggingface_hub takes for yes.
fn is_true(value: &str) -> bool {
    matches!(
        value.trim().to_ascii_uppercase().as_str(),
        "1" | "ON" | "YES" | "TRUE"
    )
}

fn endpoint(set: Option<String>) -> Result<String, HubError> {
    let endpoint = set.unwrap_or_else(|| ENDPOINT.to_string());
    let plain = endpoint.trim().trim_end_matches('/');
    let rest = plain
        .strip_prefix("https://")
        .or_else(|| plain.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['?', '#', '@', ' ']) => Ok(plain.into()),
        _ => Err(HubError::Setting {
            name: "HF_ENDPOINT",
            value: endpoint,
            wanted: "an address such as https://huggingface.co",
        }),
    }
}

/// The token that a login left; what cannot be read is no token, as it is for huggingface_hub.
fn stored_token(file: &Path) -> Option<String> {
    let bytes = read_regular(file, TOKEN).ok()?;
    let token = String::from_utf8(bytes).ok()?.trim().to_string();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::from_variables(|name| {
            let found = variables.iter().find(|(n, _)| *n == name)?;
            Some(found.1.to_string())
        })
    }

    #[test]
    fn the_cache_is_where_the_most_particular_variable_says() {
        let all = [
            ("HOME", "/home/a"),
            ("XDG_CACHE_HOME", "/xdg"),
            ("HF_HOME", "/hf"),
            ("HUGGINGFACE_HUB_CACHE", "/old"),
            ("HF_HUB_CACHE", "/hub"),
        ];
        let want = [
            "/home/a/.cache/huggingface/hub",
            "/xdg/huggingface/hub",
            "/hf/hub",
            "/old",
            "/hub",
        ];
        for (count, want) in (1..).zip(want) {
            let found = settings(&all[..count]).unwrap();
            assert_eq!(found.cache, Path::new(want), "{:?}", &all[..count]);
        }
        assert!(matches!(settings(&[]), Err(HubError::NoCache)));
    }

    #[test]
    fn offline_is_what_huggingface_hub_takes_for_yes() {
        for (name, value, offline) in [
            ("HF_HUB_OFFLINE", "1", true),
            ("HF_HUB_OFFLINE", "yes", true),
            ("TRANSFORMERS_OFFLINE", "True", true),
            ("HF_HUB_OFFLINE", "0", false),
            ("HF_HUB_OFFLINE", "", false),
        ] {
            let found = settings(&[("HOME", "/"), (name, value)]).unwrap();
            assert_eq!(found.offline, offline, "{name}={value}");
        }
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_file_of_a_login() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_stored\n").unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        let token = |more: &[(&str, &str)]| settings(&[&[home], more].concat()).unwrap().token;
        assert_eq!(token(&[]).as_deref(), Some("hf_stored"));
        assert_eq!(token(&[("HF_TOKEN", " hf_a ")]).as_deref(), Some("hf_a"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
    }

    #[test]
    fn a_value_that_means_nothing_is_an_error_that_names_the_variable() {
        for (name, value) in [
            ("HF_HUB_ETAG_TIMEOUT", "soon"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "-1"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "1e300"),
            ("HF_ENDPOINT", "huggingface.co"),
            ("HF_ENDPOINT", "https://a@b"),
        ] {
            let error = settings(&[("HOME", "/"), (name, value)]).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let found = settings(&[
            ("HOME", "/"),
            ("HF_ENDPOINT", "http://127.0.0.1:80/"),
            ("HF_HUB_ETAG_TIMEOUT", "0.5"),
        ]);
        let found = found.unwrap();
        assert_eq!(found.endpoint, "http://127.0.0.1:80");
        assert_eq!(found.etag_timeout, Duration::from_millis(500));
    }
}
