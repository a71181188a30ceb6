//! The order of each crate's rooms: the folders and files at the top of its sources, and the folders
//! of a folder where they are listed by their path.

use super::arrows::Crate;
use super::code::names;
use std::collections::BTreeSet;

/// What is allowed inside of one crate.
pub struct House {
    /// The folder of the crate.
    pub path: &'static str,
    /// Its rooms from the ground up: each names only those before it.
    pub order: &'static [&'static str],
    /// What a room never names all the same: another room, or words of its code.
    pub never: &'static [(&'static str, &'static [&'static str])],
}

pub const HOUSES: &[House] = &[
    House {
        path: "crates/trt-kernel",
        order: &[
            "dim",
            "dtype",
            "scalar",
            "body",
            "encoding",
            "kernel",
            "role",
            "sum_order",
            "touches",
            "access",
            "fusible",
            "sizes",
            "stored",
            "text",
            "check",
            "launch",
            "host",
            "ptx",
        ],
        never: &[("ptx", &["host"])],
    },
    House {
        path: "crates/trt-graph",
        order: &[
            "line",
            "ints",
            "report",
            "graph",
            "error",
            "program",
            "reference",
            "verify",
            "launches",
            "mirror",
            "passes",
            "text",
            "lower",
            "trace",
            "compile",
        ],
        never: &[
            ("lower", &["mirror", "passes"]),
            ("trace", &["passes", "lower", "launches"]),
        ],
    },
    House {
        path: "crates/trt-device",
        order: &[
            "contract",
            "system",
            "cpu",
            "gpu",
            "host",
            "cuda/driver",
            "cuda/launch",
            "cuda/upload",
            "cuda/record",
            "cuda",
            "open",
        ],
        never: &[
            ("gpu", &["cpu"]),
            ("host", &["gpu"]),
            ("cuda/driver", &["system", "cpu", "gpu", "host"]),
            ("cuda/launch", &["host"]),
            ("cuda/upload", &["system", "cpu", "host", "cuda/launch"]),
            ("cuda/record", &["system", "cpu", "host", "cuda/upload"]),
            ("cuda", &["host"]),
        ],
    },
    House {
        path: "crates/trt-pack",
        order: &[
            "lengths", "split", "bits", "geometry", "code", "words", "unit", "argument",
        ],
        // Pure.
        never: &[],
    },
    House {
        path: "crates/trt-alloc",
        order: &["plan", "pool", "check", "strategy"],
        // Plans are pure.
        never: &[
            ("plan", &["trt_device", "std::sync"]),
            ("check", &["pool", "trt_device", "std::sync"]),
        ],
    },
    House {
        path: "crates/trt-stream",
        order: &["files", "plan", "run"],
        never: &[
            ("files", &["trt_alloc"]),
            // Plans are pure.
            (
                "plan",
                &[
                    "files",
                    "trt_alloc",
                    "trt_device",
                    "memmap2",
                    "std::fs",
                    "std::sync::Mutex",
                    "tracing",
                ],
            ),
        ],
    },
    House {
        path: "crates/trt-engine",
        order: &["error", "report", "run", "budget", "compile"],
        never: &[],
    },
    House {
        path: "crates/trt-models",
        order: &[
            "cache",
            "config",
            "checkpoint",
            "frequencies",
            "rope",
            "llama",
            "step",
        ],
        never: &[],
    },
    House {
        path: "crates/trt-text",
        order: &[
            "contained",
            "decoder",
            "error",
            "json",
            "bounds",
            "files",
            "sampler",
            "stop",
            "message",
            "special",
            "gguf",
            "jinja",
            "tokenizer",
            "stream",
            "template",
            "generation",
            "chat",
        ],
        never: &[("jinja", &["message", "special"])],
    },
    House {
        path: "cli",
        order: &[
            "precision",
            "progress",
            "model",
            "get",
            "info",
            "curve",
            "run",
        ],
        never: &[("curve", &["info"]), ("run", &["info", "curve"])],
    },
    House {
        path: "fuzz",
        order: &["memory", "mutate", "watch"],
        never: &[],
    },
];

/// The room of a module: the longest of the list that it is in.
fn room<'h>(house: &'h House, module: &str) -> Option<&'h str> {
    let inside = |room: &&&str| match module.strip_prefix(**room) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    };
    let all = house.order.iter().filter(inside);
    all.max_by_key(|room| room.len()).copied()
}

/// What breaks the order of a crate's rooms.
pub fn broken(house: &House, files: &Crate) -> Vec<String> {
    let place = |room: &str| house.order.iter().position(|r| *r == room);
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    for module in files.modules().filter(|m| !m.is_empty()) {
        let Some(from) = room(house, module) else {
            broken.push(format!("{module} is in no room"));
            continue;
        };
        seen.insert(from);
        let never = house.never.iter().filter(|(room, _)| *room == from);
        let never: Vec<&str> = never.flat_map(|(_, names)| *names).copied().collect();
        for to in files.named(module) {
            let Some(room) = room(house, &to) else {
                continue;
            };
            if place(room) > place(from) || room != from && never.contains(&room) {
                broken.push(format!("{module} of {from} names {to} of {room}"));
            }
        }
        let words = never.iter().filter(|word| place(word).is_none());
        let words = words.filter(|word| names(files.code(module), word));
        broken.extend(words.map(|word| format!("{module} of {from} names {word}")));
    }
    let empty = house.order.iter().filter(|room| !seen.contains(**room));
    broken.extend(empty.map(|room| format!("there is no {room}")));
    broken
}

/// Files that name each other in a circle that leaves their folder.
pub fn circles(files: &Crate) -> Vec<Vec<&str>> {
    let all: Vec<&str> = files.modules().filter(|m| !m.is_empty()).collect();
    let reached = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_string()]);
        while let Some(module) = open.pop() {
            let next = files.named(&module).into_iter();
            open.extend(next.filter(|m| !m.is_empty() && seen.insert(m.clone())));
        }
        seen
    };
    let reached: Vec<BTreeSet<String>> = all.iter().map(|m| reached(m)).collect();
    // A file with folders below it is of the folder with its name.
    let folder = |module: &str| {
        let below = format!("{module}/");
        match all.iter().any(|m| m.starts_with(&below)) {
            true => module.to_string(),
            false => module.rsplit_once('/').map_or("", |m| m.0).to_string(),
        }
    };
    let mut circles: Vec<Vec<&str>> = Vec::new();
    for (i, module) in all.iter().enumerate() {
        let both = |j: &usize| reached[i].contains(all[*j]) && reached[*j].contains(*module);
        let circle: Vec<&str> = (0..all.len()).filter(both).map(|j| all[j]).collect();
        let folders: BTreeSet<String> = circle.iter().map(|m| folder(m)).collect();
        if folders.len() > 1 && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}
