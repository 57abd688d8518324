//! Small disks for tests, where mounting is allowed, and processes with mounts of their own.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk, as long as it lives.
pub struct Disk(PathBuf);

impl Disk {
    pub fn mount(at: &Path, mib: u32) -> Option<Self> {
        Self::of("tmpfs", at, &format!("size={mib}m,mode=0700"))
    }

    pub fn of(kind: &str, at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", kind, "-o", options, kind]).arg(at).output();
        mounted.is_ok_and(|o| o.status.success()).then(|| Disk(at.into()))
    }

    pub fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        // A closed logger's threads let go of its files a moment later.
        crate::until(&options, || {
            Command::new("mount").args(["-o", &options]).arg(&self.0).output().unwrap().status.success()
        });
    }

    pub fn fill(&self) {
        use std::io::Write;
        let mut filler = fs::File::create(self.0.join("filler")).unwrap();
        for size in [65536, 4096, 64, 1] {
            while filler.write_all(&vec![7; size]).is_ok() {}
        }
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs one test of this binary again, as `common::child`, in a process with mounts of its own, which go with it however it ends. False: that is not allowed here.
pub fn with_mounts(test: &str, part: &str) -> bool {
    let alone = crate::common::child(test, part);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(alone.get_program()).args(alone.get_args());
    command.envs(alone.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = command.output();
    let text = output.as_ref().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    if !text.contains("running 1 test") || text.contains("SKIPPED") {
        return false;
    }
    let output = output.unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    true
}
