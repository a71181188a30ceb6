//! File names that come from files: an index, a hub's listing, another file's header.
//!
//! Whoever wrote such a name is not trusted. A [`plain_name`] stays below the folder that it is
//! joined to, on every system, and means nothing but itself in a URL. It is checked before
//! anything is opened or asked for.

use std::path::Path;

/// The most bytes of one part of a name; no file system in use has longer ones.
const PART: usize = 255;
/// The most bytes of a whole name.
const WHOLE: usize = 1024;
/// What Windows forbids in names, or URLs give a meaning to.
const FORBIDDEN: [char; 10] = ['\\', ':', '?', '#', '%', '*', '"', '<', '>', '|'];

/// A name that is no plain file name below a folder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no plain file name below the folder: {reason}")]
#[non_exhaustive]
pub struct NameError {
    /// The name, or as much of it as is worth showing.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The path that a name from a file stands for: a file in the folder that it will be joined to, or
/// in one below it (`sub/model.safetensors`).
///
/// `./` at the beginning means nothing and is taken off; within a name it stays, as does a doubled
/// slash, since paths that differ in these compare equal.
///
/// # Errors
///
/// Names that are empty, absolute or too long, or lead up (`..`); parts that Windows takes for a
/// device (`NUL`, `con.txt`) or changes (a dot or blank at the end); control characters and
/// `\ : ? # % * " < > |`. Links in the folder itself are the caller's: nothing is looked up here.
pub fn plain_name(name: &str) -> Result<&Path, NameError> {
    let fault = |reason| {
        let shown = name.chars().take(100);
        let name = shown.chain((name.len() > 400).then_some('…')).collect();
        Err(NameError { name, reason })
    };
    if name.len() > WHOLE {
        return fault("it is longer than 1024 bytes");
    }
    if name.chars().any(char::is_control) {
        return fault("it has a control character");
    }
    if name.contains(FORBIDDEN) {
        return fault("it has one of \\ : ? # % * \" < > |");
    }
    if name.starts_with('/') {
        return fault("it is absolute");
    }
    let plain = without_dots(name);
    if plain.is_empty() {
        return fault("it is empty");
    }
    if plain.ends_with('/') || plain.ends_with("/.") {
        return fault("it names a folder");
    }
    for part in plain.split('/').filter(|p| !matches!(*p, "" | ".")) {
        match part {
            ".." => return fault("it leads out of the folder"),
            _ if part.len() > PART => return fault("a part of it is longer than 255 bytes"),
            _ if part.ends_with(['.', ' ']) => return fault("a part of it ends in a dot or blank"),
            _ if is_device(part) => return fault("Windows takes it for a device"),
            _ => {}
        }
    }
    Ok(Path::new(plain))
}

/// The name without the parts at its beginning that mean nothing.
fn without_dots(mut name: &str) -> &str {
    while let Some(rest) = name.strip_prefix("./") {
        name = rest.trim_start_matches('/');
    }
    if name == "." { "" } else { name }
}

/// Whether Windows takes a name for one of its devices, whatever stands after the first dot.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end();
    let stem = stem.to_uppercase();
    let numbered = |kind: &str| {
        let number = stem.strip_prefix(kind);
        let mut number = number.unwrap_or_default().chars();
        let one = number
            .next()
            .is_some_and(|c| c.is_ascii_digit() || matches!(c, '¹' | '²' | '³'));
        one && number.next().is_none()
    };
    matches!(
        &stem[..],
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$"
    ) || numbered("COM")
        || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_below_the_folder_is_a_path_however_harmlessly_it_is_spelled() {
        for (name, path) in [
            (
                "model-00001-of-00002.safetensors",
                "model-00001-of-00002.safetensors",
            ),
            ("./model.safetensors", "model.safetensors"),
            ("././/model.safetensors", "model.safetensors"),
            ("sub/model.safetensors", "sub/model.safetensors"),
            ("sub//./model.safetensors", "sub/model.safetensors"),
            (".hidden", ".hidden"),
            ("..a/b..c", "..a/b..c"),
            ("Modell größer.safetensors", "Modell größer.safetensors"),
            ("console.txt", "console.txt"),
            ("com10", "com10"),
        ] {
            assert_eq!(plain_name(name).unwrap(), Path::new(path), "{name}");
        }
        // What is passed on to others has no dots in front.
        assert_eq!(plain_name("./a").unwrap().to_str(), Some("a"));
    }

    #[test]
    fn a_name_that_leads_elsewhere_or_means_something_else_is_refused_with_the_reason() {
        let long = "a/".repeat(600) + "b";
        let part = "n".repeat(256);
        for (name, reason) in [
            ("", "empty"),
            (".", "empty"),
            ("./", "empty"),
            ("/etc/passwd", "absolute"),
            ("//host/share", "absolute"),
            (".//../x", "leads out"),
            ("../x", "leads out"),
            ("a/../../x", "leads out"),
            ("a/..", "leads out"),
            ("..", "leads out"),
            ("a/", "folder"),
            ("a/.", "folder"),
            ("..\\x", "\\"),
            ("C:x", ":"),
            ("model.safetensors?download=true", "?"),
            ("a#b", "#"),
            ("%2e%2e/x", "%"),
            ("a\0b", "control"),
            ("a\nb", "control"),
            ("NUL", "device"),
            ("sub/con.safetensors", "device"),
            ("Com1.txt", "device"),
            ("LPT¹", "device"),
            ("aux .x", "device"),
            ("model.", "dot or blank"),
            ("model ", "dot or blank"),
            (".../x", "dot or blank"),
            (&long, "1024"),
            (&part, "255"),
        ] {
            let error = plain_name(name).unwrap_err();
            assert!(error.reason.contains(reason), "{name}: {error}");
            assert!(error.to_string().len() < 600, "{error}");
        }
    }
}
