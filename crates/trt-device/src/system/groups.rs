//! Control groups: what of the machine a process may use.
//!
//! A limit holds for a group and all groups below it, so what counts is the least of the process's
//! own group and of every group above it that can be seen. Both versions are read, also side by
//! side: the second has one tree, the first one tree for each controller. Texts are parsed without
//! a look at the system ([`ControlGroups::parse`]); whatever does not look like a group, a mount or
//! a number is passed over, since a limit that cannot be read is none.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Groups above one that are looked at.
const DEPTH: usize = 128;

/// Bytes that are read of a limit, and of a list.
const LIMIT_BYTES: u64 = 256;
const LIST_BYTES: u64 = 4 << 20;

/// The control groups of a process: where its limits are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlGroups {
    /// Folders of the second version: its group first, then those above it.
    unified: Vec<PathBuf>,
    /// Those of the first version that limit memory, and those that limit processors.
    memory: Vec<PathBuf>,
    cpu: Vec<PathBuf>,
}

/// A mounted tree of groups.
struct Mount {
    /// The group that is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
    /// Controllers of the first version; nothing for the second.
    controllers: Option<Vec<String>>,
}

impl ControlGroups {
    /// Finds the groups from what `/proc/self/cgroup` and `/proc/self/mountinfo` say.
    pub fn parse(cgroup: &str, mountinfo: &str) -> ControlGroups {
        let mounts: Vec<Mount> = mountinfo.lines().filter_map(mount).collect();
        let mut groups = ControlGroups::default();
        for line in cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(number), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if number == "0" && controllers.is_empty() {
                let of = mounts.iter().filter(|m| m.controllers.is_none());
                groups.unified.extend(folders(path, of));
                continue;
            }
            for controller in controllers.split(',') {
                let found = match controller {
                    "memory" => &mut groups.memory,
                    "cpu" => &mut groups.cpu,
                    _ => continue,
                };
                let has = |m: &&Mount| {
                    let own = m.controllers.iter().flatten();
                    own.into_iter().any(|c| c == controller)
                };
                found.extend(folders(path, mounts.iter().filter(has)));
            }
        }
        groups
    }

    /// The groups of this process, found below `root`, which is `/` but in tests.
    pub fn of_this_process(root: &Path) -> ControlGroups {
        let text = |path: &str| read(&root.join(path), LIST_BYTES).unwrap_or_default();
        ControlGroups::parse(&text("proc/self/cgroup"), &text("proc/self/mountinfo"))
    }

    /// The folder of the process's own group that limits memory, and the file in it that does.
    pub fn memory_folder(&self) -> Option<(&Path, &'static str)> {
        let first = self
            .memory
            .first()
            .map(|own| (own.as_path(), "memory.limit_in_bytes"));
        let second = || {
            self.unified
                .first()
                .map(|own| (own.as_path(), "memory.max"))
        };
        first.or_else(second)
    }

    /// The least number of bytes that a group may use, if there is a limit. A group that is slowed
    /// down from some number of bytes on (`memory.high`) is limited to that.
    pub fn memory(&self, root: &Path) -> Option<u64> {
        let second = self.unified.iter().flat_map(|group| {
            let names = ["memory.max", "memory.high"];
            names.map(|name| number(&text(root, group, name)?))
        });
        let first = self.memory.iter().map(|group| {
            let limit = text(root, group, "memory.limit_in_bytes")?;
            number(&limit)
        });
        second.chain(first).flatten().min()
    }

    /// The least number of processors' time that a group may use, if there is a quota: whole
    /// processors, at least one.
    pub fn processors(&self, root: &Path) -> Option<usize> {
        let second = self.unified.iter().map(|group| {
            let both = text(root, group, "cpu.max")?;
            let mut both = both.split_whitespace();
            share(both.next()?, both.next()?)
        });
        let first = self.cpu.iter().map(|group| {
            let quota = text(root, group, "cpu.cfs_quota_us")?;
            share(&quota, &text(root, group, "cpu.cfs_period_us")?)
        });
        let least = second.chain(first).flatten().min()?;
        Some(usize::try_from(least).unwrap_or(usize::MAX).max(1))
    }
}

/// The folders of a group and of all above it, in the mounts that show it. A group that no mount
/// shows, since the process was moved out of what it sees, is looked for where the mounts are.
fn folders<'a>(group: &str, mounts: impl Iterator<Item = &'a Mount>) -> Vec<PathBuf> {
    let plain = |c| matches!(c, Component::RootDir | Component::Normal(_));
    let group = Path::new(group);
    let mut shown = Vec::new();
    let mut elsewhere = Vec::new();
    for mount in mounts {
        let below = group.strip_prefix(&mount.root).ok();
        match below.filter(|b| group.is_absolute() && b.components().all(plain)) {
            Some(below) => {
                let up = below.ancestors().take(DEPTH);
                shown.extend(up.map(|part| mount.point.join(part)));
            }
            None => elsewhere.push(mount.point.clone()),
        }
    }
    match shown.is_empty() {
        true => elsewhere,
        false => shown,
    }
}

/// A line of `mountinfo`, if it is about control groups.
fn mount(line: &str) -> Option<Mount> {
    let (what, how) = line.split_once(" - ")?;
    let mut what = what.split(' ').skip(3);
    let (root, point) = (unescaped(what.next()?), unescaped(what.next()?));
    let mut how = how.split(' ');
    let kind = how.next()?;
    let options = how.nth(1).unwrap_or("");
    let controllers = match kind {
        "cgroup" => Some(options.split(',').map(str::to_owned).collect()),
        "cgroup2" => None,
        _ => return None,
    };
    Some(Mount {
        root: root.into(),
        point: point.into(),
        controllers,
    })
}

/// A path of `mountinfo`, where blanks and the like are `\` and three octal digits.
fn unescaped(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let code = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = code.map_or(after, |_| &after[3..]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text(root: &Path, group: &Path, name: &str) -> Option<String> {
    let group = group.strip_prefix("/").unwrap_or(group);
    read(&root.join(group).join(name), LIMIT_BYTES)
}

fn read(path: &Path, most: u64) -> Option<String> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(most)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// A limit; none where there is none, which the second version tells by a word, and the first by a
/// negative number or by more than any machine has.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Whole processors in a quota of each period.
fn share(quota: &str, period: &str) -> Option<u64> {
    number(quota)?.checked_div(number(period)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const FIRST: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";

    /// A machine: its lists, and the files of its groups.
    fn machine(cgroup: &str, mountinfo: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let lists = [
            ("proc/self/cgroup", cgroup),
            ("proc/self/mountinfo", mountinfo),
        ];
        for (path, text) in lists.iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    /// Bytes and processors.
    fn limits(cgroup: &str, mounts: &str, files: &[(&str, &str)]) -> (Option<u64>, Option<usize>) {
        let root = machine(cgroup, mounts, files);
        let groups = ControlGroups::of_this_process(root.path());
        (groups.memory(root.path()), groups.processors(root.path()))
    }

    #[test]
    fn the_least_of_a_group_and_all_above_it_counts() {
        for tightest in ["", "a/", "a/b/", "a/b/c/"] {
            let (memory, cpu) = (
                format!("sys/fs/cgroup/{tightest}memory.max"),
                format!("sys/fs/cgroup/{tightest}cpu.max"),
            );
            let files = [
                ("sys/fs/cgroup/a/b/memory.max", "800\n"),
                ("sys/fs/cgroup/a/cpu.max", "900000 100000\n"),
                (memory.as_str(), "500\n"),
                (cpu.as_str(), "250000 100000\n"),
                ("sys/fs/cgroup/other/memory.max", "1\n"),
            ];
            let found = limits("0::/a/b/c\n", SECOND, &files);
            assert_eq!(found, (Some(500), Some(2)), "{tightest}");
        }
    }

    #[test]
    fn a_group_that_is_slowed_down_is_limited_to_that() {
        let files = [
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.high", "300\n"),
            ("sys/fs/cgroup/a/cpu.max", "max 100000\n"),
        ];
        assert_eq!(limits("0::/a\n", SECOND, &files), (Some(300), None));
    }

    #[test]
    fn the_first_version_has_a_tree_for_each_controller() {
        let files = [
            (
                "sys/fs/cgroup/memory/m/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "700\n"),
            ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let cgroup = "4:memory:/m/n\n3:cpu,cpuacct:/c\n1:name=systemd:/\n";
        assert_eq!(limits(cgroup, FIRST, &files), (Some(700), Some(1)));
    }

    #[test]
    fn both_versions_may_be_there() {
        let mounts =
            format!("{FIRST}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let files = [
            ("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "700\n"),
            ("sys/fs/cgroup/unified/u/cpu.max", "300000 100000\n"),
        ];
        let cgroup = "4:memory:/m\n3:cpu,cpuacct:/\n0::/u/v\n";
        assert_eq!(limits(cgroup, &mounts, &files), (Some(700), Some(3)));
    }

    #[test]
    fn a_container_sees_its_own_group_where_the_mount_is() {
        let mounts = "35 31 0:32 /docker/f00 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let files = [
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "700\n"),
            ("sys/fs/cgroup/memory/in/memory.limit_in_bytes", "600\n"),
        ];
        let of = |path: &str| limits(&format!("4:memory:{path}\n"), mounts, &files).0;
        assert_eq!(of("/docker/f00"), Some(700));
        assert_eq!(of("/docker/f00/in"), Some(600));
        assert_eq!(of("/elsewhere"), Some(700));
        assert_eq!(of("/../../in"), Some(700));
        assert_eq!(of("/docker/f00/../in"), Some(700));
    }

    #[test]
    fn a_mount_may_have_blanks_in_its_name() {
        let mounts = "30 23 0:26 / /my\\040groups\\134 rw - cgroup2 cgroup2 rw\n";
        let files = [("my groups\\/a/memory.max", "5\n")];
        assert_eq!(limits("0::/a\n", mounts, &files).0, Some(5));
    }

    #[test]
    fn what_cannot_be_read_is_no_limit() {
        let files = [
            ("sys/fs/cgroup/a/memory.max", "-5"),
            ("sys/fs/cgroup/a/memory.high", "99999999999999999999999"),
            ("sys/fs/cgroup/a/cpu.max", "100 0\n"),
            ("sys/fs/cgroup/cpu.max", "100\n"),
        ];
        assert_eq!(limits("0::/a\n", SECOND, &files), (None, None));
        let broken = [
            "",
            "0",
            "0:",
            "0:::",
            ":::",
            "0::a\n",
            "4:memory",
            "\u{0}:x:y",
        ];
        for cgroup in broken {
            for mounts in [
                "",
                " - ",
                "1 2 3 4 5 - cgroup2",
                "1 2 3 / - cgroup2 x y",
                SECOND,
            ] {
                assert_eq!(
                    limits(cgroup, mounts, &files[..2]),
                    (None, None),
                    "{cgroup:?}"
                );
            }
        }
    }
}
