//! The limits of a real control group, where this machine allows to make one.

use std::path::{Path, PathBuf};
use std::process::Command;
use trt_device::{ControlGroups, Device, Host};

const CHILD: &str = "TRT_TEST_IN_GROUP";
const LIMIT: u64 = 512 << 20;

/// A group that is removed again.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Two groups, one in the other, below the process's own: the outer one has the limit.
fn nested(own: &Path, limit: &str) -> std::io::Result<[Group; 2]> {
    let outer = own.join(format!("trt-test-{}", std::process::id()));
    std::fs::create_dir(&outer)?;
    let outer = Group(outer);
    std::fs::write(outer.0.join(limit), LIMIT.to_string())?;
    let inner = outer.0.join("inner");
    std::fs::create_dir(&inner)?;
    // Dropped in order.
    Ok([Group(inner), outer])
}

#[test]
fn a_process_in_a_nested_group_has_the_memory_of_the_tighter_one_above() {
    if let Some(group) = std::env::var_os(CHILD) {
        let procs = Path::new(&group).join("cgroup.procs");
        if let Err(why) = std::fs::write(procs, std::process::id().to_string()) {
            println!("cannot join: {why}");
            return;
        }
        let root = Path::new("/");
        let limit = ControlGroups::of_this_process(root).memory(root);
        assert!(limit.is_some_and(|l| l <= LIMIT), "{limit:?}");
        assert!(Host::unified().info().total_memory <= LIMIT);
        assert!(Host::unified().free_memory().is_some_and(|f| f <= LIMIT));
        println!("limited");
        return;
    }
    let root = Path::new("/");
    let groups = ControlGroups::of_this_process(root);
    let found = groups
        .memory_folder()
        .map(|(own, limit)| (nested(own, limit), own));
    let (made, own) = match found {
        Some((Ok(made), own)) => (made, own),
        Some((Err(why), own)) => {
            return println!("skipped: no group below {}: {why}", own.display());
        }
        None => return println!("skipped: no control group for memory"),
    };
    let name = "a_process_in_a_nested_group_has_the_memory_of_the_tighter_one_above";
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, &made[0].0)
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    match said.contains("limited") {
        true => println!("a group below {}", own.display()),
        false => println!("skipped: {said}"),
    }
}
