//! Who a writer's files belong to: what its records say of its process, and what can be known of that process now.

use std::fs::File;
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::QueueKind;
use crate::id::WriterId;
use crate::writer::Identity;

/// Who wrote: what a record says of its process, and how to tell whether it lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Owner {
    pub(crate) service_name: String,
    pub(crate) original_output_file: String,
    pub(crate) process_id: u64,
    pub(crate) process_name: String,
    /// `journal` or `memory`; `spilled` where all that was accepted stands in the pending file.
    pub(crate) queue: String,
    /// Where its pending file is, if not beside the trail.
    pub(crate) spill_dir: String,
    /// When the process began, in clock ticks after the boot.
    pub(crate) started: u64,
    pub(crate) boot_id: String,
    /// Process ids mean something only within it.
    pub(crate) pid_namespace: String,
    /// Where `queue` is `spilled`: the last number that stands in the pending file, and the log that it is of, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_id: Option<String>,
}

impl Owner {
    /// This process, with what its records say.
    pub(crate) fn of_this_process() -> Self {
        let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default().trim().to_owned();
        Self {
            process_id: std::process::id().into(),
            started: stat("self").map_or(0, |s| s.1),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            pid_namespace: pid_namespace(),
            ..Self::default()
        }
    }

    /// What its records say of it.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            original_output_file: self.original_output_file.clone(),
            process_id: self.process_id,
            process_name: self.process_name.clone(),
        }
    }

    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// Why what that process had accepted may not all be in its journal: it had none, or the machine stopped, and mapped pages that were not written yet are gone.
    pub(crate) fn may_have_lost(&self) -> Option<&'static str> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        match self.queue.as_str() {
            "journal" if self.boot_id == boot_id.trim() && !self.boot_id.is_empty() => None,
            "journal" => Some("machine_restarted"),
            crate::spill::SPILLED => None,
            _ => Some("process_died"),
        }
    }

    /// The last number that a log must have of it, where its lock knows that.
    pub(crate) fn last_in(&self, log_id: WriterId) -> Option<u64> {
        self.last.filter(|_| self.log_id.as_ref().is_none_or(|id| *id == log_id.to_string()))
    }

    /// Whether its records went through a journal.
    pub(crate) fn has_journal(&self) -> bool {
        self.queue == QueueKind::Journal.as_str()
    }

    /// Whether that process lives, by its own account and without a look at its lock; `None` where its number says nothing here.
    pub(crate) fn lives(&self) -> Option<bool> {
        let here = Self::of_this_process();
        if self.boot_id.is_empty() || self.started == 0 {
            return None;
        }
        if self.boot_id != here.boot_id {
            return Some(false);
        }
        if self.pid_namespace != here.pid_namespace {
            return None;
        }
        match Process::of(self.process_id) {
            Process::Gone => Some(false),
            Process::Hidden => None,
            // A zombie has let go of its lock.
            Process::There { ended, started } => Some(!ended && started == self.started),
        }
    }

    /// What stands in a lock file, if it can be read.
    pub(super) fn read(file: &File) -> Option<Self> {
        let mut text = Vec::new();
        file.take(64 << 10).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether that process is certainly gone, although somebody (a child that it forked) holds its lock.
    pub(super) fn is_gone(&self) -> bool {
        let here = Self::of_this_process();
        let same = !self.boot_id.is_empty() && self.boot_id == here.boot_id && self.pid_namespace == here.pid_namespace;
        // Only what is certain counts: the process is not there, or another has its number.
        same && self.started != 0
            && match Process::of(self.process_id) {
                Process::Gone => true,
                Process::Hidden => false,
                Process::There { started, .. } => started != self.started,
            }
    }
}

/// What can be known of a process by its number.
#[derive(Debug, PartialEq)]
enum Process {
    Gone,
    There {
        ended: bool,
        started: u64,
    },
    /// It may be there: `/proc` does not show the processes of others (`hidepid`), or is that of another namespace.
    Hidden,
}

impl Process {
    fn of(id: u64) -> Self {
        let pid = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
        let Some(pid) = pid else { return Self::Hidden };
        if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
            return Self::Gone;
        }
        let ours = std::fs::read_link("/proc/self").is_ok_and(|me| me.as_os_str() == &*std::process::id().to_string());
        match stat(&id.to_string()).filter(|_| ours) {
            Some((ended, started)) => Self::There { ended, started },
            None => Self::Hidden,
        }
    }
}

fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|p| p.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether a process has ended, though its parent has not asked for it yet, and when it began: fields 3 and 22 of `/proc/<pid>/stat`, where the name before them may hold spaces and
/// brackets.
fn stat(pid: &str) -> Option<(bool, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    let ended = matches!(words.next()?, "Z" | "X");
    Some((ended, words.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_that_is_certainly_gone_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = child.id().into();
        child.wait().unwrap();
        assert_eq!(Process::of(id), Process::Gone);
        let here = Owner::of_this_process();
        assert_eq!(Process::of(here.process_id), Process::There { ended: false, started: here.started });
        assert_eq!((here.lives(), here.is_gone()), (Some(true), false));
        let other = Owner { process_id: id, ..here.clone() };
        assert_eq!((other.lives(), other.is_gone()), (Some(false), true));
        // No process of this namespace: nothing is known.
        let nobody = Owner { process_id: 0, ..here };
        assert_eq!((Process::of(0), nobody.lives(), nobody.is_gone()), (Process::Hidden, None, false));
    }
}
