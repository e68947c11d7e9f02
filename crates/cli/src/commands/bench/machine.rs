//! What the operating system says about this machine and about processes. Linux only; elsewhere nothing is known.

use std::fs;

use serde_json::{Value, json};

/// Memory of one process, in kilobytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// All pages that are resident, shared ones included.
    pub rss_kb: u64,
    /// Of them, those that belong to no file: heap and stacks.
    pub anonymous_kb: u64,
    /// Of a page that n processes share, one n-th: what adds up over processes.
    pub proportional_kb: u64,
}

/// Memory of a process; zero when it cannot be read.
pub fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let shares = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    Memory {
        rss_kb: field_kb(&status, "VmRSS:"),
        anonymous_kb: field_kb(&status, "RssAnon:"),
        proportional_kb: field_kb(&shares, "Pss:"),
    }
}

/// Number of threads of a process.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Processor time that the living threads of a process have used, in microseconds.
pub fn cpu_us(pid: u32) -> f64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0.0;
    };
    let nanoseconds: u64 = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum();
    nanoseconds as f64 / 1000.0
}

/// The first child of a process.
pub fn child_of(parent: u32) -> Option<u32> {
    let mut children: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| parent_in(&stat) == Some(parent))
        })
        .collect();
    children.sort_unstable();
    children.first().copied()
}

/// Runnable processes, averaged over a minute.
pub fn load() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// What figures of this run should be read with.
pub fn describe() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "optimised": !cfg!(debug_assertions),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "load_average_1m": load(),
    })
}

fn field_kb(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}

/// The name in the second field may hold anything, also brackets.
fn parent_in(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name_and_parents_behind_odd_names() {
        assert_eq!(field_kb("VmRSS:\t    1234 kB\nRssAnon:\t 5 kB\n", "VmRSS:"), 1234);
        assert_eq!(field_kb("", "VmRSS:"), 0);
        assert_eq!(parent_in("12 (a) b (c)) S 7 12 12"), Some(7));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_memory_and_threads() {
        let own = memory(std::process::id());
        assert!(own.rss_kb >= own.anonymous_kb && own.anonymous_kb > 0);
        assert!(threads(std::process::id()) > 0);
        assert!(load().is_some());
        assert!(cpu_us(std::process::id()) > 0.0);
    }
}
