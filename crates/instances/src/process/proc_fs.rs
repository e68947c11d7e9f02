//! What Linux tells about processes under `/proc`. Everything that is gone or forbidden reads as absent.

use std::{fs, time::Duration};

use crate::ProcessIdentity;

/// The fields we use of `/proc/PID/stat` (`proc_pid_stat(5)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// One letter; `Z` and `X` are dead.
    pub(super) state: char,
    /// The process group.
    pub(super) group: u32,
    /// Clock ticks in user and kernel mode together.
    pub(super) cpu_ticks: u64,
    /// Start, in clock ticks since the boot.
    pub(super) start_time_ticks: u64,
    /// Resident pages.
    pub(super) rss_pages: u64,
}

impl Stat {
    /// Memory in bytes.
    pub(super) fn rss_bytes(&self) -> u64 {
        self.rss_pages * rustix::param::page_size() as u64
    }

    /// Processor time.
    pub(super) fn cpu(&self) -> Duration {
        Duration::from_millis(self.cpu_ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The state of a process, also of one that is dead but not yet waited for.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The process that has this number now.
pub(super) fn identify(pid: u32) -> Option<ProcessIdentity> {
    Some(ProcessIdentity {
        pid,
        start_time_ticks: stat(pid)?.start_time_ticks,
        boot_id: boot_id()?,
    })
}

/// Whether this very process is running.
pub(super) fn is_alive(process: &ProcessIdentity) -> bool {
    stat(process.pid).is_some_and(|stat| {
        stat.start_time_ticks == process.start_time_ticks
            && !stat.is_dead()
            && boot_id().is_some_and(|boot| boot == process.boot_id)
    })
}

/// The running members of a process group.
pub(super) fn group_members(group: u32) -> Vec<Stat> {
    pids()
        .filter_map(stat)
        .filter(|stat| stat.group == group && !stat.is_dead())
        .collect()
}

/// The running processes whose environment, as it was when they began, holds all these `NAME=value` entries.
pub(super) fn with_environment(entries: &[String]) -> Vec<u32> {
    pids().filter(|pid| has_environment(*pid, entries)).collect()
}

/// Whether the environment of a process holds all these `NAME=value` entries. That of a dead one is empty.
pub(super) fn has_environment(pid: u32, entries: &[String]) -> bool {
    let environment = environment(pid);
    entries
        .iter()
        .all(|wanted| environment.iter().any(|entry| entry == wanted))
}

/// The environment of a process as it was when it began; empty when we may not see it.
pub(super) fn environment(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(|entry| String::from_utf8_lossy(entry).into_owned())
        .collect()
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // The field of number n in the manual page is at n - 3 here.
    Some(Stat {
        state: fields.first()?.chars().next()?,
        group: u32::try_from(number(2)?).ok()?,
        cpu_ticks: number(11)?.saturating_add(number(12)?),
        start_time_ticks: number(19)?,
        rss_pages: number(21)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) Z 9 (b) S 1 77 77 0 -1 4194560 1 2 3 4 10 5 0 0 20 0 1 0 123456 999 321 18446744073709551615";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                state: 'S',
                group: 77,
                cpu_ticks: 15,
                start_time_ticks: 123_456,
                rss_pages: 321,
            })
        );
    }

    #[test]
    fn nonsense_is_no_process() {
        for text in ["", "1 (x)", "1 (x) S 1", "1 (x) S a b c"] {
            assert_eq!(parse_stat(text), None, "{text:?}");
        }
        assert!(stat(u32::MAX).is_none());
    }

    #[test]
    fn we_recognise_ourselves_but_not_another_with_our_number() {
        let us = identify(std::process::id()).unwrap();
        assert!(is_alive(&us));
        for other in [
            ProcessIdentity {
                start_time_ticks: us.start_time_ticks + 1,
                ..us.clone()
            },
            ProcessIdentity {
                boot_id: "another".to_owned(),
                ..us.clone()
            },
        ] {
            assert!(!is_alive(&other));
        }
    }
}
