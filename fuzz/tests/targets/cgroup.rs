//! Where the limits of control groups are found: `/proc/self/cgroup` and `/proc/self/mountinfo`.

use candle_trt::device::ControlGroups;
use candle_trt_fuzz::Target;

const CORPUS: [&str; 3] = [
    "0::/user.slice/a/b\n\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
    "4:memory:/docker/f00\n3:cpu,cpuacct:/docker/f00\n1:name=systemd:/\n0::/\n\n\
     35 31 0:32 /docker/f00 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
     33 31 0:30 /docker /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n",
    "4:memory:/../x\n\n35 31 0:32 /a\\040b /sys\\134fs rw - cgroup cgroup rw,memory\n",
];

const WORDS: [&str; 12] = [
    "0::/",
    ":memory:",
    ":cpu,cpuacct:",
    " - cgroup2 ",
    " - cgroup ",
    "rw,memory",
    "/..",
    "\\040",
    "\\777",
    "//",
    " ",
    "\n",
];

/// Both lists in one text, an empty line between them.
#[test]
fn lists_of_control_groups() {
    let corpus: Vec<Vec<u8>> = CORPUS.iter().map(|text| text.as_bytes().to_vec()).collect();
    let mut target = Target::new("cgroup", &corpus);
    target.words = &WORDS;
    target.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (cgroup, mounts) = text.split_once("\n\n").unwrap_or((&text, &text));
        let groups = ControlGroups::parse(cgroup, mounts);
        // What is found are paths: how they are read is not a parser's business.
        let _ = (groups == ControlGroups::default(), groups.memory_folder());
    });
}
