//! What recovery does with journals and pending files of dead writers that are damaged, planted, spelled in another way, or of a log that was replaced.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/left.rs"]
mod left;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use argus_core::{AuditConfig, AuditError, AuditEvent, AuditLogger, AuditReader, AuditSink, AuditSinkExt};
use common::{Dir, WAIT, assert_ok, close, open, records};
use left::*;

#[test]
fn a_pending_file_with_a_damaged_head_costs_nothing_else() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some((writer, _)) = leave_journal(&path, 50) else { return };
        let name = path.file_name().unwrap().to_str().unwrap();
        let damaged = path.with_file_name(format!("{name}.pending.{writer}.jsonl"));
        plant(&damaged, "{\"argus_pend\n{}\n");
        let told = reopen(&path);
        assert!(told.iter().any(|t| t.contains(".torn")), "{told:?}");
        assert_eq!(numbers(&path), (0..50).collect::<Vec<_>>());
        let torn = text(&said(&path, "audit_recovered")[0], "journal_torn");
        assert_eq!(torn, format!("{}.torn", damaged.display()));
        assert_eq!(fs::read_to_string(torn).unwrap(), "{\"argus_pend\n{}\n");
        assert_eq!(reopen(&path), Vec::<String>::new(), "once");
        assert_verifies(&path);
    }
}

#[test]
fn a_newer_pending_file_waits_for_a_newer_argus() {
    let dir = Dir::new();
    for path in dir.both() {
        for late in [false, true] {
            let path = path.with_file_name(format!("{late}{}", path.file_name().unwrap().to_string_lossy()));
            let file = leave_pending(AuditConfig::new(&path).journal(false), 20, late);
            let right = fs::read_to_string(&file).unwrap();
            let newer = right.replacen("{\"argus_pending\":1", "{\"argus_pending\":2", 1);
            assert_ne!(newer, right);
            fs::write(&file, &newer).unwrap();
            let (tell, told) = mpsc::channel();
            let config = AuditConfig::new(&path).on_error(move |e| drop(tell.send(e.to_string())));
            close(&AuditLogger::open(config).unwrap());
            let told: Vec<String> = told.try_iter().collect();
            assert!(told.iter().any(|t| t.contains("version 2") && t.contains(file.to_str().unwrap())), "{told:?}");
            assert!(numbers(&path).is_empty());
            assert_eq!(fs::read_to_string(&file).unwrap(), newer);
            assert!(said(&path, "audit_recovered").is_empty() && covers(&path).is_empty());
            assert_verifies(&path);
            fs::write(&file, &right).unwrap();
            assert_eq!(reopen(&path), Vec::<String>::new());
            assert_eq!(numbers(&path), (0..20).collect::<Vec<_>>());
            assert!(!file.exists() && beside(&path, ".lock").is_empty());
            assert_verifies(&path);
        }
    }
}

#[test]
fn a_segment_with_a_damaged_head_costs_only_its_records() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some((_, journal)) = leave_journal(&path, 1_000) else { return };
        let of = |n: u64| journal.iter().find(|s| number(s) == n).unwrap();
        let (second, lost) = (of(2), first_entry(of(2))..first_entry(of(3)));
        let mut bytes = fs::read(second).unwrap();
        bytes[41] ^= 1;
        fs::write(second, &bytes).unwrap();
        let told = reopen(&path);
        assert!(told.iter().any(|t| t.contains(".torn")), "{told:?}");
        // The trail's number 1 is `audit_open`, 2 is `n` 0.
        assert_eq!(numbers(&path), (0..1_000).filter(|i| !lost.contains(&(i + 2))).collect::<Vec<_>>());
        assert_eq!(covers(&path), [(lost.start, Some(lost.end - 1))]);
        assert_eq!(fs::read(format!("{}.torn", second.display())).unwrap(), bytes);
        assert_eq!(reopen(&path), Vec::<String>::new(), "once");
        assert_verifies(&path);
    }
}

#[test]
fn every_segment_from_the_torn_one_on_is_kept() {
    const NAME: &str = "every_segment_from_the_torn_one_on_is_kept";
    if let Some(part) = common::part() {
        reopen(Path::new(&part));
        return;
    }
    let dir = Dir::new();
    for killed in [false, true] {
        for path in dir.both() {
            let path = path.with_file_name(format!("{killed}{}", path.file_name().unwrap().to_string_lossy()));
            let Some((_, journal)) = leave_journal(&path, 2_000) else { return };
            let mut used: Vec<(u64, PathBuf)> = journal.iter().map(|s| (number(s), s.clone())).collect();
            used.sort();
            used.retain(|u| u.0 > 0);
            assert!(used.len() > 2, "{used:?}");
            damage_entry(&used[1].1, 10);
            let bytes: Vec<Vec<u8>> = used.iter().map(|u| fs::read(&u.1).unwrap()).collect();
            let first = first_entry(&used[1].1);
            if killed {
                // Between the commit and the renaming.
                let output = common::child(NAME, path.to_str().unwrap()).env("ARGUS_ABORT_AT", "recovered").output();
                assert!(!output.unwrap().status.success(), "the step is never reached");
            }
            let told = reopen(&path);
            assert!(told.iter().any(|t| t.contains(".torn") && t.contains("does not check")), "{told:?}");
            assert_eq!(numbers(&path), (0..first + 10 - 2).collect::<Vec<_>>());
            for (u, bytes) in used.iter().zip(&bytes).skip(1) {
                assert_eq!(&fs::read(format!("{}.torn", u.1.display())).unwrap(), bytes, "{u:?}");
            }
            assert_eq!(beside(&path, ".torn").len(), used.len() - 1);
            assert!(beside(&path, ".journal").is_empty() && beside(&path, ".lock").is_empty());
            let recovered = &said(&path, "audit_recovered")[0];
            let more = recovered.context_value("more_torn").unwrap();
            assert_eq!(more.as_array().unwrap().len(), used.len() - 2, "{more}");
            assert_eq!(reopen(&path), Vec::<String>::new(), "once");
            assert_verifies(&path);
        }
    }
}

#[test]
fn unsafe_files_are_left_alone_and_the_rest_is_recovered() {
    let dir = Dir::new();
    let target = dir.path("target");
    fs::write(&target, "precious").unwrap();
    let root = rustix_geteuid() == 0;
    for path in dir.both() {
        for how in ["symlink", "writable", "links", "folder", "pipe", "other's"] {
            if how == "other's" && !root {
                println!("SKIPPED: needs root");
                continue;
            }
            for kind in ["pending", "journal"] {
                let name = format!("{how}{kind}{}", path.file_name().unwrap().to_string_lossy());
                let path = path.with_file_name(&name);
                let Some((writer, _)) = leave_journal(&path, 20) else { return };
                let planted = path.with_file_name(match kind {
                    "pending" => format!("{name}.pending.{writer}.jsonl"),
                    _ => format!("{name}.{writer}.99.journal"),
                });
                match how {
                    "symlink" => symlink(&target, &planted).unwrap(),
                    "folder" => fs::create_dir(&planted).unwrap(),
                    "pipe" => {
                        let made = std::process::Command::new("mkfifo").arg("-m600").arg(&planted).status().unwrap();
                        assert!(made.success());
                    }
                    _ => plant(&planted, "x\n"),
                }
                match how {
                    "writable" => fs::set_permissions(&planted, fs::Permissions::from_mode(0o666)).unwrap(),
                    "links" => fs::hard_link(&planted, dir.path(&format!("{name}.link"))).unwrap(),
                    "other's" => std::os::unix::fs::chown(&planted, Some(12_345), None).unwrap(),
                    _ => {}
                }
                let told = reopen(&path);
                assert!(told.iter().any(|t| t.contains(planted.to_str().unwrap())), "{how} {kind}: {told:?}");
                assert_eq!(numbers(&path), (0..20).collect::<Vec<_>>(), "{how} {kind}");
                assert!(planted.symlink_metadata().is_ok(), "{how} {kind}");
                assert_ok(&path);
            }
        }
    }
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn what_belongs_to_the_trails_owner_is_recovered_by_root() {
    if rustix_geteuid() != 0 {
        println!("SKIPPED: needs root");
        return;
    }
    let dir = Dir::new();
    for path in dir.both() {
        leave_pending(AuditConfig::new(&path), 20, false);
        for file in beside(&path, "") {
            std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
        }
        assert_eq!(reopen(&path), Vec::<String>::new());
        assert_eq!(numbers(&path), (0..20).collect::<Vec<_>>());
        assert_verifies(&path);
    }
}

fn rustix_geteuid() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("Uid:")).unwrap();
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn a_pending_file_beside_the_trail_is_its_own_however_its_path_is_spelled() {
    let dir = Dir::new();
    for name in ["audit.db", "audit.jsonl"] {
        let real = dir.path(&format!("real.{name}"));
        fs::create_dir(&real).unwrap();
        let alias = dir.path(&format!("alias.{name}"));
        symlink(&real, &alias).unwrap();
        close(&open(&real.join(name)));
        leave_pending(AuditConfig::new(alias.join(name)), 20, true);
        let pending = AuditReader::open(real.join(name)).unwrap().pending().unwrap();
        assert!(pending.unreadable().is_empty(), "{:?}", pending.unreadable());
        assert_eq!(pending.filter(|r| r.as_ref().unwrap().event == "n").count(), 20, "readers know it, too");
        assert_eq!(reopen(&real.join(name)), Vec::<String>::new());
        assert_eq!(numbers(&real.join(name)), (0..20).collect::<Vec<_>>());
        assert_verifies(&real.join(name));
        // And the other way round.
        leave_pending(AuditConfig::new(real.join(name)), 20, true);
        assert_eq!(reopen(&alias.join(name)), Vec::<String>::new());
        assert_eq!(numbers(&real.join(name)).len(), 40);
    }
}

#[test]
fn in_a_shared_folder_each_trail_finds_its_own_pending_file_however_its_path_is_spelled() {
    let dir = Dir::new();
    let spill = dir.path("spill");
    for name in ["audit.db", "audit.jsonl"] {
        let trails = ["a", "b"].map(|t| dir.path(t).join(name));
        for path in &trails {
            close(&open(path));
        }
        let alias = dir.path(&format!("alias.{name}"));
        symlink(dir.path("b"), &alias).unwrap();
        let file = leave_pending(AuditConfig::new(alias.join(name)).spill_dir(&spill), 20, true);
        let with = |path: &Path| AuditConfig::new(path).spill_dir(&spill);
        assert_eq!(reopen_with(with(&trails[0])), Vec::<String>::new());
        assert!(numbers(&trails[0]).is_empty() && file.exists(), "it is another trail's");
        let pending = AuditReader::open(&trails[1]).unwrap().pending().unwrap();
        assert_eq!(pending.filter(|r| r.as_ref().unwrap().event == "n").count(), 20);
        assert_eq!(reopen_with(with(&trails[1])), Vec::<String>::new());
        assert_eq!(numbers(&trails[1]), (0..20).collect::<Vec<_>>());
        assert!(!file.exists());
        trails.iter().for_each(|t| assert_verifies(t));
    }
}

#[test]
fn what_another_trail_has_in_a_shared_folder_is_no_trouble_of_a_readers() {
    let dir = Dir::new();
    let spill = dir.path("spill");
    for name in ["audit.db", "audit.jsonl"] {
        let trails = ["a", "b"].map(|t| dir.path(t).join(name));
        for path in &trails {
            leave_pending(AuditConfig::new(path).spill_dir(&spill), 20, false);
        }
        for path in &trails {
            let pending = AuditReader::open(path).unwrap().pending().unwrap();
            assert!(pending.unreadable().is_empty(), "{:?}", pending.unreadable());
            assert_eq!(pending.filter(|r| r.as_ref().unwrap().event == "n").count(), 20);
        }
    }
}

/// Takes a trail away and puts a new one in its place.
fn replace(path: &Path) -> String {
    let old = match path.extension().unwrap().to_str().unwrap() {
        "db" => common::sql(path).query_row("SELECT log_id FROM log_info", [], |r| r.get(0)).unwrap(),
        _ => records(path)[0].writer.to_string(),
    };
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{ending}", path.display()));
    }
    old
}

#[test]
fn a_new_log_says_once_what_was_kept_of_the_one_it_replaced() {
    const NAME: &str = "a_new_log_says_once_what_was_kept_of_the_one_it_replaced";
    if let Some(part) = common::part() {
        reopen(Path::new(&part));
        return;
    }
    let dir = Dir::new();
    for path in dir.both() {
        for step in ["", "orphan_found", "orphan_told"] {
            for journal in [false, true] {
                let name = format!("{step}{journal}{}", path.file_name().unwrap().to_string_lossy());
                let path = path.with_file_name(name);
                let writer = match journal {
                    true => match leave_journal(&path, 1_000) {
                        Some((writer, _)) => writer,
                        None => continue,
                    },
                    false => {
                        let file = leave_pending(AuditConfig::new(&path).journal(false), 1_000, false);
                        file.to_str().unwrap().rsplit('.').nth(1).unwrap().to_owned()
                    }
                };
                let old = replace(&path);
                if !step.is_empty() {
                    let mut child = common::child(NAME, path.to_str().unwrap());
                    let output = child.env("ARGUS_ABORT_AT", step).output().unwrap();
                    assert!(!output.status.success(), "{step} is never reached");
                }
                let told = reopen(&path);
                assert!(told.iter().any(|t| t.contains(".orphan") && t.contains("replaced")), "{told:?}");
                let kept = beside(&path, ".orphan");
                assert!(kept.len() == 1 || journal, "{kept:?}");
                let all = said(&path, "log_replaced");
                assert_eq!(all.len(), 1, "{step}");
                let record = &all[0];
                assert_eq!((text(record, "log_id"), text(record, "writer")), (old, writer));
                assert_eq!(record.level, argus_core::Level::Security);
                // `audit_fallback` is one, too.
                assert_eq!(count(record, "count"), if journal { 1_000 } else { 1_001 });
                let named = record.context_value("files").unwrap();
                let named: Vec<&str> = named.as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
                let names: Vec<&str> = kept.iter().map(|k| k.file_name().unwrap().to_str().unwrap()).collect();
                assert_eq!(named, names);
                assert!(numbers(&path).is_empty());
                assert!(beside(&path, ".journal").is_empty() && beside(&path, ".lock").is_empty());
                assert_eq!(reopen(&path), Vec::<String>::new());
                assert_eq!(said(&path, "log_replaced").len(), 1, "once");
                assert_verifies(&path);
            }
        }
    }
}

#[test]
fn no_caller_says_that_a_log_was_replaced() {
    let dir = Dir::new();
    let logger = open(&dir.path("t.db"));
    let error = logger.log(AuditEvent::security("log_replaced").component("argus")).unwrap_err();
    assert!(matches!(error, AuditError::Invalid { .. }), "{error:?}");
    close(&logger);
}

/// What is done to a pending file of 50 records whose last one is cut, or stands as `n` 20 in the middle; and which are lost.
const DAMAGES: [(&str, &[u64]); 8] = [
    ("none", &[]),
    ("not UTF-8", &[20]),
    ("changed", &[20]),
    ("another number", &[20]),
    ("too long", &[20]),
    ("removed", &[20]),
    ("two", &[20, 30]),
    ("cut", &[49]),
];

fn damage(file: &Path, how: &str) {
    let text = fs::read_to_string(file).unwrap();
    let line = |i: u64| text.lines().find(|l| l.contains(&format!("\"i\":{i}}}"))).unwrap();
    let with = |i: u64, new: &[u8]| {
        let (before, after) = text.split_once(line(i)).unwrap();
        [before.as_bytes(), new, after.as_bytes()].concat()
    };
    let changed = |i: u64| line(i).replace("\"level\":\"INFO\"", "\"level\":\"NONE\"");
    let bytes = match how {
        "none" => text.clone().into_bytes(),
        "not UTF-8" => {
            let mut bad = line(20).as_bytes().to_vec();
            bad[20] = 0xff;
            with(20, &bad)
        }
        "changed" => with(20, changed(20).as_bytes()),
        "another number" => with(20, line(20).replace("\"writer_seq\":2", "\"writer_seq\":92").as_bytes()),
        "too long" => with(20, &[line(20).as_bytes(), &vec![b'x'; 700_000]].concat()),
        "removed" => with(20, b"").into_iter().collect::<Vec<u8>>(),
        "two" => {
            let once = String::from_utf8(with(20, changed(20).as_bytes())).unwrap();
            once.replace(line(30), &changed(30)).into_bytes()
        }
        "cut" => {
            // Behind the last one stands `audit_fallback`, or not: it is told as soon as there is room.
            let at = text.find(line(49)).unwrap() + 100;
            text.as_bytes()[..at].to_vec()
        }
        other => panic!("{other}"),
    };
    assert!(bytes != text.as_bytes() || how == "none", "{how}");
    fs::write(file, bytes).unwrap();
}

#[test]
fn of_a_damaged_pending_file_all_good_lines_are_recovered_and_the_lost_numbers_told() {
    let dir = Dir::new();
    for path in dir.both() {
        for (how, lost) in DAMAGES {
            {
                let path = path.with_file_name(format!("{how}{}", path.file_name().unwrap().to_string_lossy()));
                let file = leave_pending(AuditConfig::new(&path).journal(false), 50, false);
                damage(&file, how);
                let bytes = fs::read(&file).unwrap();
                let told = reopen(&path);
                let expected: Vec<u64> = (0..50).filter(|i| !lost.contains(i)).collect();
                assert_eq!(numbers(&path), expected, "{how}");
                let torn = PathBuf::from(format!("{}.torn", file.display()));
                if how == "none" {
                    assert_eq!((told, torn.exists()), (vec![], false));
                } else {
                    assert!(told.iter().any(|t| t.contains(".torn")), "{how}: {told:?}");
                    assert_eq!(fs::read(&torn).unwrap(), bytes, "{how}");
                    let recovered = &said(&path, "audit_recovered")[0];
                    assert_eq!(text(recovered, "journal_torn"), torn.to_str().unwrap(), "{how}");
                }
                let covers = covers(&path);
                // Numbers are counted from `audit_open`; `audit_fallback` has one somewhere.
                let last = said(&path, "audit_recovered").last().map_or(0, |r| count(r, "last"));
                match how {
                    "none" => assert!(covers.is_empty()),
                    // (`audit_fallback` may stand behind the line.)
                    "cut" => assert!(covers.len() == 1 && covers[0].1 == Some(last), "{covers:?}"),
                    _ => {
                        let missing: Vec<u64> = covers.iter().flat_map(|c| c.0..=c.1.unwrap()).collect();
                        assert_eq!(missing.len(), lost.len(), "{how}: {covers:?}");
                        let of = records(&path).into_iter().filter(|r| r.event == "n").map(|r| r.writer_seq);
                        let there: Vec<u64> = of.collect();
                        assert!(missing.iter().all(|m| !there.contains(m) && *m < last), "{how}: {covers:?}");
                    }
                }
                assert_verifies(&path);
                assert_eq!(reopen(&path), Vec::<String>::new(), "{how}: once");
                assert_eq!(said(&path, "audit_gap").len(), covers.len(), "{how}: once");
                assert_ok(&path);
            }
        }
    }
}

#[test]
fn a_recovery_over_a_hole_that_is_cut_short_is_done_again() {
    let dir = Dir::new();
    let path = dir.path("trail.jsonl");
    let file = leave_pending(AuditConfig::new(&path).journal(false), 50, false);
    damage(&file, "two");
    let (before, pending) = (fs::read(&path).unwrap(), fs::read(&file).unwrap());
    let lock = beside(&path, ".lock").remove(0);
    let owner = fs::read(&lock).unwrap();
    reopen(&path);
    let whole = fs::read_to_string(&path).unwrap();
    let expected = numbers(&path);
    assert_eq!(expected.len(), 48);
    let group = whole.lines().position(|l| l.contains("\"cause\":\"dead\"")).unwrap() + 1;
    let had = before.iter().filter(|b| **b == b'\n').count();
    assert!(group > had + 50);
    // A part of the lines that were written together, as a power cut or a kill may leave them.
    for lines in
        (had..group).filter(|l| (l - had) % 5 == 0 || whole.lines().nth(l - 1).is_some_and(|l| l.contains("audit_gap")))
    {
        let part: String = whole.split_inclusive('\n').take(lines).collect();
        plant(&path, &part);
        fs::remove_file(format!("{}.torn", file.display())).unwrap();
        plant(&file, std::str::from_utf8(&pending).unwrap());
        plant(&lock, std::str::from_utf8(&owner).unwrap());
        assert_ok(&path);
        reopen(&path);
        assert_eq!(numbers(&path), expected, "{lines} lines");
        assert_eq!(said(&path, "audit_gap").len(), 2, "{lines} lines");
        assert_verifies(&path);
    }
}

#[test]
fn numbers_that_are_in_no_file_are_told_and_what_follows_in_the_journal_is_recovered() {
    let dir = Dir::new();
    for path in dir.both() {
        let Some((_, journal)) = leave_journal(&path, 2_000) else { return };
        let mut used: Vec<(u64, PathBuf)> = journal.iter().map(|s| (number(s), s.clone())).collect();
        used.retain(|u| u.0 > 0);
        used.sort();
        let (from, to) = (first_entry(&used[1].1), first_entry(&used[2].1));
        fs::remove_file(&used[1].1).unwrap();
        reopen(&path);
        let expected: Vec<u64> = (0..2_000).filter(|i| !(from..to).contains(&(i + 2))).collect();
        assert!(numbers(&path) == expected, "{}", numbers(&path).len());
        assert_eq!(covers(&path), [(from, Some(to - 1))]);
        assert_verifies(&path);
    }
}

#[test]
fn what_the_opening_mended_is_told_also_where_a_gap_record_is_made_up_for() {
    let dir = Dir::new();
    let path = dir.path("trail.jsonl");
    leave_pending(AuditConfig::new(&path).journal(false), 5, false);
    let lock = beside(&path, ".lock").remove(0);
    let owner = fs::read_to_string(&lock).unwrap();
    plant(&lock, &owner.replace("\"queue\":\"spilled\"", "\"queue\":\"memory\""));
    reopen(&path);
    // Power loss took the second half of the recovery's last record.
    let whole = fs::read_to_string(&path).unwrap();
    let line = whole.lines().find(|l| l.contains("\"reason\":\"process_died\"")).unwrap();
    let (before, _) = whole.split_once(line).unwrap();
    plant(&path, &format!("{before}{}", &line[..line.len() / 2]));
    reopen(&path);
    let causes: Vec<String> = said(&path, "audit_recovered").iter().map(|r| text(r, "cause")).collect();
    assert_eq!(causes, ["dead", "torn_line"]);
    let last = count(&said(&path, "audit_recovered")[0], "last");
    assert_eq!(covers(&path), [(last + 1, None)]);
    assert_verifies(&path);
}

#[test]
fn what_comes_back_of_a_writer_that_closed_is_no_evidence() {
    let dir = Dir::new();
    for path in dir.both() {
        let logger = open(&path);
        log(&logger, 0..100, "");
        logger.flush(WAIT).unwrap();
        let journal: Vec<(PathBuf, Vec<u8>)> =
            beside(&path, ".journal").into_iter().map(|s| (s.clone(), fs::read(s).unwrap())).collect();
        close(&logger);
        // As after a power cut that took back the removal, and wrote back not each page.
        for (segment, bytes) in &journal {
            fs::write(segment, bytes).unwrap();
            fs::set_permissions(segment, fs::Permissions::from_mode(0o600)).unwrap();
            if number(segment) == 1 {
                damage_entry(segment, 50);
            }
        }
        assert_eq!(reopen(&path), Vec::<String>::new());
        assert_eq!((beside(&path, ".torn"), beside(&path, ".journal")), (vec![], vec![]));
        assert_eq!(numbers(&path).len(), 100);
        assert_verifies(&path);
    }
}
