//! A file's bytes into the cache, whole or not at all.
//!
//! They are written beside their place, and what is there of them is not asked for again. The name of the place is
//! what names the bytes, so a part can only be continued by what it is a part of; where that name is their hash, it is
//! held against them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use ring::digest::{Context, SHA256};

use super::client::{Client, Remote};
use super::layout::{self, Layout};
use super::{HubError, Settings};
use crate::progress;

/// Tries without a byte between them.
const TRIES: u32 = 5;

/// Bytes of one read and write.
const PIECE: usize = 1 << 20;

/// Fetches a blob that is not there yet.
pub fn blob(
    client: &Client,
    settings: &Settings,
    layout: &Layout,
    name: &str,
    remote: &Remote,
) -> Result<(), HubError> {
    let place = layout.blob(&remote.etag);
    let whole =
        |place: &Path| fs::metadata(place).is_ok_and(|m| m.is_file() && m.len() == remote.size);
    if whole(&place) {
        return Ok(());
    }
    let _lock = layout::lock(&layout.lock(&remote.etag), || {
        eprintln!("waiting for another process that fetches {name}");
    })?;
    if whole(&place) {
        return Ok(());
    }
    let part = layout.incomplete(&remote.etag);
    let failed = HubError::writing(&part);
    fs::create_dir_all(part.parent().unwrap_or(&part)).map_err(&failed)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&part)
        .map_err(&failed)?;
    all(client, settings, name, remote, &mut file, &failed)?;
    file.sync_all().map_err(&failed)?;
    if let Err(error) = verify(&mut file, remote, &failed) {
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    fs::rename(&part, &place).map_err(HubError::writing(&place))
}

/// Fetches what is missing, in as many tries as it takes while something comes.
fn all(
    client: &Client,
    settings: &Settings,
    name: &str,
    remote: &Remote,
    file: &mut File,
    failed: &impl Fn(io::Error) -> HubError,
) -> Result<(), HubError> {
    let bar = progress::bytes(remote.size, format!("fetching {name}"));
    let mut tries = 0;
    loop {
        let have = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if have > remote.size {
            // Another file's bytes, or those of a program that writes in another way.
            file.set_len(0).map_err(failed)?;
            continue;
        }
        bar.set_position(have);
        if have == remote.size {
            bar.finish_and_clear();
            return Ok(());
        }
        let ended = more(client, settings, remote, file, have, |position| {
            bar.set_position(position)
        });
        let now = file.seek(SeekFrom::End(0)).map_err(failed)?;
        tries = if now > have { 0 } else { tries + 1 };
        match ended {
            Ok(()) if now == remote.size => {}
            Ok(()) if tries < TRIES => {}
            Ok(()) => {
                return Err(HubError::Damaged {
                    url: remote.url.clone(),
                    why: format!("they end after {now} of {} bytes", remote.size),
                });
            }
            Err(error) if error.passes() && tries < TRIES => {
                std::thread::sleep(Duration::from_millis(200 << tries));
            }
            Err(error) => return Err(error),
        }
    }
}

/// One request: what comes is written behind what is there.
fn more(
    client: &Client,
    settings: &Settings,
    remote: &Remote,
    file: &mut File,
    have: u64,
    mut told: impl FnMut(u64),
) -> Result<(), HubError> {
    let rest = client.get(remote, have)?;
    let url = &remote.url;
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HubError::Silent {
            url: url.clone(),
            seconds: settings.download_timeout.as_secs_f64(),
            variable: "HF_HUB_DOWNLOAD_TIMEOUT",
        },
        _ => HubError::Network {
            url: url.clone(),
            why: error.to_string(),
        },
    };
    let writing = |source| HubError::Write {
        path: "the cache of the hub".into(),
        source,
    };
    file.set_len(rest.start).map_err(writing)?;
    file.seek(SeekFrom::Start(rest.start)).map_err(writing)?;
    let mut out = BufWriter::with_capacity(PIECE, file);
    let mut position = rest.start;
    // One byte more than there should be, so that an endless answer is noticed and not kept.
    let mut bytes = rest.bytes.take(remote.size - rest.start + 1);
    let mut piece = vec![0; PIECE];
    let ended = loop {
        match bytes.read(&mut piece) {
            Ok(0) => break Ok(()),
            Ok(count) if position + count as u64 > remote.size => {
                break Err(HubError::Damaged {
                    url: url.clone(),
                    why: format!("more come than the {} that were told", remote.size),
                });
            }
            Ok(count) => {
                out.write_all(&piece[..count]).map_err(writing)?;
                position += count as u64;
                told(position);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(broken(error)),
        }
    };
    out.flush().map_err(writing)?;
    ended
}

/// Holds the bytes against their name, where that is their hash.
fn verify(
    file: &mut File,
    remote: &Remote,
    failed: &impl Fn(io::Error) -> HubError,
) -> Result<(), HubError> {
    let Some(wanted) = remote.etag.sha256() else {
        return Ok(());
    };
    file.rewind().map_err(failed)?;
    let mut hash = Context::new(&SHA256);
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece).map_err(failed)? {
            0 => break,
            count => hash.update(&piece[..count]),
        }
    }
    let found: String = hash
        .finish()
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    match found.eq_ignore_ascii_case(wanted) {
        true => Ok(()),
        false => Err(HubError::Damaged {
            url: remote.url.clone(),
            why: format!("their SHA-256 is {found}, not {wanted}"),
        }),
    }
}
