//! A hub on the loopback: files under one commit, a log of what was asked for, and faults on demand.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::models::Files;

/// The commit of all files.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// GET or HEAD.
    pub method: String,
    /// The path of the address.
    pub path: String,
    /// Header lines in lower case.
    pub headers: Vec<String>,
}

impl Asked {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self
            .headers
            .iter()
            .find_map(|h| h.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    }

    /// Whether it is for the bytes of a file.
    pub fn gets(&self, name: &str) -> bool {
        self.method == "GET" && self.path.ends_with(&format!("/{name}"))
    }
}

/// What a fault does to an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing is ever said.
    Silent,
    /// This header instead of the true one.
    Header(&'static str, String),
    /// The bytes end after so many.
    Cut(usize),
    /// More bytes come than are told.
    Endless,
    /// The whole file, whatever part was asked for.
    NoParts,
    /// Refers to another host for the bytes.
    Elsewhere(String),
    /// This status and nothing else.
    Status(&'static str),
}

/// Which fault an answer has.
pub type Faults = dyn FnMut(&Asked) -> Option<Fault> + Send;

/// A hub; it serves until the process ends.
pub struct Hub {
    /// Its address.
    pub endpoint: String,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Hub {
    /// A hub that serves these files in every repository, with the faults that a function puts in.
    pub fn new(files: Files, faults: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (files, told) = (Arc::new(files), log.clone());
        let faults: Arc<Mutex<Box<Faults>>> = Arc::new(Mutex::new(Box::new(faults)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, told, faults) = (files.clone(), told.clone(), faults.clone());
                std::thread::spawn(move || {
                    // A client that goes away is no fault of the hub.
                    let _ = serve(stream, &files, &told, &faults);
                });
            }
        });
        Hub { endpoint, log }
    }

    /// A hub without faults.
    pub fn honest(files: Files) -> Self {
        Hub::new(files, |_| None)
    }

    /// What was asked for so far.
    pub fn log(&self) -> Vec<Asked> {
        self.log.lock().expect("no test panics with it").clone()
    }
}

fn serve(
    stream: TcpStream,
    files: &Files,
    log: &Mutex<Vec<Asked>>,
    faults: &Mutex<Box<Faults>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace().map(str::to_string);
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if header.trim().is_empty() {
                break;
            }
            headers.push(header.trim().to_lowercase());
        }
        let asked = Asked {
            method,
            path,
            headers,
        };
        log.lock().expect("no panic").push(asked.clone());
        let fault = faults.lock().expect("no panic")(&asked);
        if !answer(&mut out, files, &asked, fault)? {
            return Ok(());
        }
    }
}

/// Whether the connection goes on.
fn answer(
    out: &mut TcpStream,
    files: &Files,
    asked: &Asked,
    fault: Option<Fault>,
) -> std::io::Result<bool> {
    if matches!(fault, Some(Fault::Silent)) {
        loop {
            std::thread::sleep(Duration::from_secs(600));
        }
    }
    // /owner/name/resolve/revision/file, or /bytes/file where another hub referred to this one.
    let name = match asked.path.strip_prefix("/bytes/") {
        Some(name) => name.to_string(),
        None => asked
            .path
            .splitn(6, '/')
            .nth(5)
            .unwrap_or_default()
            .to_string(),
    };
    let Some(bytes) = files.get(&name) else {
        write!(
            out,
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx-error-code: EntryNotFound\r\n\r\n"
        )?;
        return Ok(true);
    };
    let mut start = 0;
    if let Some(range) = asked.header("range") {
        let from = range
            .strip_prefix("bytes=")
            .and_then(|r| r.strip_suffix('-'));
        start = from
            .and_then(|f| f.parse().ok())
            .expect("a range from some byte on");
    }
    let mut fields = vec![
        ("x-repo-commit", COMMIT.to_string()),
        ("etag", format!("\"{}\"", name.replace(['.', '/'], "_"))),
    ];
    let (mut length, mut more) = (None, 0);
    match fault {
        None | Some(Fault::Silent) => {}
        Some(Fault::Header(name, value)) => {
            fields.retain(|(n, _)| *n != name);
            fields.push((name, value));
        }
        Some(Fault::Cut(bytes)) => length = Some(bytes),
        Some(Fault::Endless) => more = 1 << 16,
        Some(Fault::NoParts) => start = 0,
        Some(Fault::Elsewhere(host)) => {
            let size = bytes.len();
            write!(
                out,
                "HTTP/1.1 302 Found\r\nlocation: {host}/bytes/{name}\r\nx-repo-commit: {COMMIT}\r\n\
                 x-linked-etag: \"elsewhere\"\r\nx-linked-size: {size}\r\ncontent-length: 0\r\n\r\n"
            )?;
            return Ok(true);
        }
        Some(Fault::Status(status)) => {
            write!(out, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
            return Ok(true);
        }
    }
    let part = &bytes[start.min(bytes.len())..];
    match start {
        0 => write!(out, "HTTP/1.1 200 OK\r\n")?,
        _ => write!(
            out,
            "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {start}-{}/{}\r\n",
            bytes.len() - 1,
            bytes.len()
        )?,
    }
    for (name, value) in fields {
        write!(out, "{name}: {value}\r\n")?;
    }
    write!(out, "content-length: {}\r\n\r\n", part.len() + more)?;
    if asked.method == "HEAD" {
        return Ok(true);
    }
    let shown = length.unwrap_or(part.len()).min(part.len());
    out.write_all(&part[..shown])?;
    out.write_all(&vec![0; more])?;
    out.flush()?;
    Ok(shown == part.len())
}
