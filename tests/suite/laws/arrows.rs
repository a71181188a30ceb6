//! Which file of a crate names which, read off the paths in its code.
//!
//! A path is followed from module to module as far as there are files, through what a module shows
//! of others (`use`), so that `crate::Slice` leads to where `Slice` is written down. Only paths from
//! `crate`, `super` and `self` are read: what a module calls its children is no arrow that could
//! turn.

use super::code::{code, is_word};
use std::collections::{BTreeMap, BTreeSet};

/// The code of a crate by the path of its modules: `""` is its root, `cuda/driver` a module in it.
pub struct Crate {
    modules: BTreeMap<String, String>,
    /// What each module shows of others, by name.
    shown: BTreeMap<(String, String), Vec<String>>,
}

impl Crate {
    /// Of files by their path inside of `src`, with their text.
    pub fn new(files: impl IntoIterator<Item = (String, String)>) -> Crate {
        let modules = files.into_iter().map(|(path, text)| {
            let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
            let root = ["lib", "main"].contains(&path);
            let module = if root { "" } else { path };
            (module.to_string(), code(&text))
        });
        let mut modules: BTreeMap<String, String> = modules.collect();
        modules.retain(|module, _| !module.split('/').any(|part| part == "tests"));
        let mut shown = BTreeMap::new();
        for (module, code) in &modules {
            for path in uses(code) {
                let Some(name) = path.last() else { continue };
                let from = absolute(module, &path).unwrap_or_else(|| {
                    // A child, as in `pub use few::STAGED`.
                    let own = module.split('/').filter(|m| !m.is_empty());
                    own.map(str::to_string).chain(path.clone()).collect()
                });
                shown.insert((module.clone(), name.clone()), from);
            }
        }
        Crate { modules, shown }
    }

    /// The modules that have a file.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// The code of a module.
    pub fn code(&self, module: &str) -> &str {
        &self.modules[module]
    }

    /// The modules that a module names.
    pub fn named(&self, module: &str) -> BTreeSet<String> {
        let code = self.code(module);
        let paths = ["crate", "super", "self"].into_iter().flat_map(|root| {
            let starts = code.match_indices(root).filter(|(at, _)| {
                let before = &code[..*at];
                // `pub(super)` and `pub(in crate::cuda)` say who may name, and name nothing.
                let visibility = before.ends_with("pub(") || before.ends_with("(in ");
                !visibility && !before.ends_with(|c| is_word(c) || c == ':')
            });
            starts.flat_map(|(at, _)| paths(&code[at..]))
        });
        let to = paths.filter_map(|path| absolute(module, &path));
        to.map(|path| self.resolve(&path, 8))
            .filter(|to| to != module)
            .collect()
    }

    /// The module that a path from the root leads to.
    fn resolve(&self, path: &[String], turns: usize) -> String {
        let mut at = String::new();
        for (i, part) in path.iter().enumerate() {
            let inner = match at.is_empty() {
                true => part.clone(),
                false => format!("{at}/{part}"),
            };
            if self.modules.contains_key(&inner) {
                at = inner;
                continue;
            }
            let shown = self.shown.get(&(at.clone(), part.clone()));
            return match shown {
                Some(from) if turns > 0 && from[..] != path[..=i] => {
                    self.resolve(&[from, &path[i + 1..]].concat(), turns - 1)
                }
                _ => at,
            };
        }
        at
    }
}

/// The paths of all `use` statements.
fn uses(code: &str) -> Vec<Vec<String>> {
    let starts = code.match_indices("use ").filter(|(at, _)| {
        let before = &code[..*at];
        !before.ends_with(is_word)
    });
    starts
        .flat_map(|(at, found)| paths(&code[at + found.len()..]))
        .collect()
}

/// The paths that start here: one, or those of a tree in braces.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut out = Vec::new();
    tree(text, &[], &mut out);
    out
}

/// Reads a path and what branches off it; the rest of the text.
fn tree<'t>(text: &'t str, before: &[String], out: &mut Vec<Vec<String>>) -> &'t str {
    let mut path = before.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut inside) = rest.strip_prefix('{') {
            loop {
                inside = inside.trim_start();
                if let Some(rest) = inside.strip_prefix('}') {
                    return rest;
                }
                let next = tree(inside, &path, out).trim_start();
                let next = next.strip_prefix(',').unwrap_or(next);
                if next.len() == inside.len() {
                    return next;
                }
                inside = next;
            }
        }
        let word: String = rest.chars().take_while(|c| is_word(*c)).collect();
        rest = rest[word.len()..].trim_start();
        match word.as_str() {
            "" => rest = rest.strip_prefix('*').unwrap_or(rest),
            // `self` at the end of a tree is what the tree branches off.
            "self" if !path.is_empty() => {}
            _ => path.push(word.clone()),
        }
        match rest.strip_prefix("::") {
            Some(more) if !word.is_empty() => rest = more.trim_start(),
            _ => break,
        }
    }
    if let Some(renamed) = rest.strip_prefix("as ") {
        rest = renamed.trim_start().trim_start_matches(is_word);
    }
    out.push(path);
    rest
}

/// A path from the root of its crate, if it starts at `crate`, `super` or `self`.
fn absolute(module: &str, path: &[String]) -> Option<Vec<String>> {
    let mut at: Vec<String> = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "super" | "self" => {
            let parts = module.split('/').filter(|m| !m.is_empty());
            parts.map(str::to_string).collect()
        }
        _ => return None,
    };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            _ => at.push(part.clone()),
        }
    }
    Some(at)
}
