//! Asking a hub over HTTP.
//!
//! Two questions: what is known of a file (its head, without following it to where the bytes are), and its bytes from
//! some place on. The token goes to the hub and to no host that it refers to.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::WithoutBody;
use ureq::{Agent, Body, RequestBuilder, Timeout};

use super::layout::{Commit, Etag};
use super::{HubError, Settings};
use candle_trt::stream::read_regular;

/// A repository that was renamed refers to its new name; more than a few such steps are a circle.
const MOVES: usize = 5;

/// The largest file of certificates that is read.
const CERTIFICATES: u64 = 16 << 20;

/// Files of certificates that users name for programs that speak to hubs.
const BUNDLES: [&str; 3] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"];

/// A connection to a hub.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    heads: Agent,
    bodies: Agent,
}

/// What a hub knows of a file.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Where it can be asked for.
    pub url: String,
    /// What the revision is.
    pub commit: Commit,
    /// What names its bytes.
    pub etag: Etag,
    /// How many they are.
    pub size: u64,
}

/// Bytes of a file from `start` on.
pub struct Rest {
    /// 0 where the hub does not give parts of files.
    pub start: u64,
    /// The bytes.
    pub bytes: Box<dyn Read>,
}

impl Client {
    /// A client for the hub of `settings`.
    ///
    /// # Errors
    ///
    /// [`HubError::Setting`] for a file of certificates that cannot be read.
    pub fn new(settings: &Settings) -> Result<Self, HubError> {
        let roots = roots()?;
        let agent = |redirects| {
            let tls = TlsConfig::builder().root_certs(roots.clone()).build();
            let config = Agent::config_builder()
                .tls_config(tls)
                .http_status_as_error(false)
                .https_only(settings.endpoint.starts_with("https://"))
                .user_agent(concat!("candle-trt/", env!("CARGO_PKG_VERSION")))
                .max_redirects(redirects)
                .redirect_auth_headers(RedirectAuthHeaders::SameHost)
                .timeout_resolve(Some(settings.etag_timeout))
                .timeout_connect(Some(settings.etag_timeout))
                .timeout_send_request(Some(settings.etag_timeout))
                .timeout_recv_response(Some(settings.etag_timeout))
                .timeout_per_read(Some(settings.download_timeout));
            Agent::new_with_config(config.build())
        };
        Ok(Client {
            settings: settings.clone(),
            heads: agent(0),
            bodies: agent(10),
        })
    }

    /// What is known of a file; nothing where the repository has none of this name.
    ///
    /// # Errors
    ///
    /// Of the network, and [`HubError::Answer`] for what cannot be trusted.
    pub fn head(&self, repo: &str, revision: &str, name: &str) -> Result<Option<Remote>, HubError> {
        let path = format!(
            "{repo}/resolve/{}/{}",
            escaped(revision, ""),
            escaped(name, "/")
        );
        let mut url = format!("{}/{path}", self.settings.endpoint);
        for _ in 0..MOVES {
            let asked = self.asked(self.heads.head(&url));
            let answer = asked.call().map_err(|e| self.failed(&url, e))?;
            let to = header(&answer, "location")
                .filter(|to| to.starts_with('/') && !to.starts_with("//"));
            match to {
                Some(to) if answer.status().is_redirection() => {
                    url = format!("{}{to}", origin(&self.settings.endpoint));
                }
                _ => return known(url, &answer),
            }
        }
        Err(HubError::Answer {
            url,
            why: "it refers to ever new places".into(),
        })
    }

    /// The bytes of a file from `start` on.
    ///
    /// # Errors
    ///
    /// Of the network, and [`HubError::Answer`] for another part than was asked for.
    pub fn get(&self, remote: &Remote, start: u64) -> Result<Rest, HubError> {
        let url = &remote.url;
        let mut asked = self.asked(self.bodies.get(url));
        if start > 0 {
            asked = asked.header("range", format!("bytes={start}-"));
        }
        let answer = asked.call().map_err(|e| self.failed(url, e))?;
        let begin = match answer.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => {
                match header(&answer, "content-range").and_then(begins) {
                    Some(begin) if begin == start => begin,
                    _ => {
                        return Err(HubError::Answer {
                            url: url.clone(),
                            why: format!("it gives another part than the one from byte {start} on"),
                        });
                    }
                }
            }
            _ => return Err(refused(url, &answer)),
        };
        Ok(Rest {
            start: begin,
            bytes: Box::new(answer.into_body().into_reader()),
        })
    }

    /// A request with what all have.
    fn asked(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        let request = request.header("accept-encoding", "identity");
        match &self.settings.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn failed(&self, url: &str, error: ureq::Error) -> HubError {
        let settings = &self.settings;
        let url = url.to_string();
        let silent = |variable, time: Duration| HubError::Silent {
            url: url.clone(),
            seconds: time.as_secs_f64(),
            variable,
        };
        match error {
            ureq::Error::Timeout(Timeout::PerRead) => {
                silent("HF_HUB_DOWNLOAD_TIMEOUT", settings.download_timeout)
            }
            ureq::Error::Timeout(_) => silent("HF_HUB_ETAG_TIMEOUT", settings.etag_timeout),
            other => HubError::Network {
                url,
                why: other.to_string(),
            },
        }
    }
}

/// The certificates that answers are held against: those that the user names, else Mozilla's.
fn roots() -> Result<RootCerts, HubError> {
    let named = BUNDLES.iter().find_map(|name| {
        let path = std::env::var_os(name).filter(|v| !v.is_empty())?;
        Some((*name, path))
    });
    let Some((name, path)) = named else {
        return Ok(RootCerts::WebPki);
    };
    let unusable = |_| HubError::Setting {
        name,
        value: path.to_string_lossy().into_owned(),
        wanted: "a file of certificates",
    };
    let bytes = read_regular(&path, CERTIFICATES).map_err(|e| unusable(e.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(one) = item.map_err(|e| unusable(e.to_string()))? {
            certificates.push(one);
        }
    }
    match certificates.is_empty() {
        true => Err(unusable(String::new())),
        false => Ok(RootCerts::Specific(Arc::new(certificates))),
    }
}

fn known(url: String, answer: &Response<Body>) -> Result<Option<Remote>, HubError> {
    let status = answer.status();
    let code = header(answer, "x-error-code");
    let of_the_repository = matches!(code, Some("RepoNotFound" | "RevisionNotFound"));
    if status == StatusCode::NOT_FOUND && !of_the_repository {
        return Ok(None);
    }
    if !status.is_success() && !status.is_redirection() {
        return Err(refused(&url, answer));
    }
    let strange = |why: &str| HubError::Answer {
        url: url.clone(),
        why: why.to_string(),
    };
    let commit = header(answer, "x-repo-commit").and_then(Commit::new);
    let etag = header(answer, "x-linked-etag").or_else(|| header(answer, "etag"));
    // Where it refers elsewhere, its own length is that of a page of words.
    let size = header(answer, "x-linked-size").or_else(|| match status.is_redirection() {
        true => None,
        false => header(answer, "content-length"),
    });
    Ok(Some(Remote {
        commit: commit
            .ok_or_else(|| strange("there is no commit of 40 digits in x-repo-commit"))?,
        etag: etag
            .and_then(Etag::new)
            .ok_or_else(|| strange("there is no plain etag"))?,
        size: size
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| strange("it does not say how long the file is"))?,
        url,
    }))
}

fn refused(url: &str, answer: &Response<Body>) -> HubError {
    let said = match header(answer, "x-error-message") {
        // What the hub says is shown, but only as text.
        Some(text) => format!(
            ": {}",
            text.escape_debug()
                .to_string()
                .chars()
                .take(300)
                .collect::<String>()
        ),
        None if matches!(answer.status().as_u16(), 401 | 403) => {
            ": there is no such repository, or HF_TOKEN must name who may read it".into()
        }
        None => String::new(),
    };
    HubError::Refused {
        url: url.to_string(),
        status: answer.status().as_u16(),
        said,
    }
}

fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Where a `Content-Range` begins.
fn begins(range: &str) -> Option<u64> {
    range
        .strip_prefix("bytes ")?
        .split('-')
        .next()?
        .parse()
        .ok()
}

/// Scheme and host of an address.
fn origin(endpoint: &str) -> &str {
    let host = endpoint.find("://").map_or(0, |at| at + 3);
    let end = endpoint[host..]
        .find('/')
        .map_or(endpoint.len(), |at| host + at);
    &endpoint[..end]
}

/// As a part of a path in an address; `plain` are characters that stay.
fn escaped(text: &str, plain: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        match c.is_ascii_alphanumeric() || "-_.~".contains(c) || plain.contains(c) {
            true => out.push(c),
            false => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_addresses_mean_only_themselves() {
        assert_eq!(escaped("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(escaped("sub/größer.json", "/"), "sub/gr%C3%B6%C3%9Fer.json");
        assert_eq!(escaped("a?b#c%", "/"), "a%3Fb%23c%25");
    }

    #[test]
    fn the_origin_of_an_endpoint_has_no_path() {
        assert_eq!(origin("http://127.0.0.1:80/hf"), "http://127.0.0.1:80");
        assert_eq!(origin("https://a"), "https://a");
    }
}
