//! Which processes belong to a data directory, read from `/proc` (elsewhere: none are found, nothing is asserted).

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// A process that mentions the directory in its command line or works inside it.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// All processes of `dir`, zombies aside.
pub fn of(dir: &Path) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| look(pid, dir))
        .collect()
}

fn look(pid: i32, dir: &Path) -> Option<Process> {
    let proc = Path::new("/proc").join(pid.to_string());
    let command: Vec<String> = String::from_utf8_lossy(&fs::read(proc.join("cmdline")).ok()?)
        .split('\0')
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    // A zombie has no command line any more; it runs nothing and holds nothing.
    if command.is_empty() {
        return None;
    }
    let text = dir.to_string_lossy();
    let inside = fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    if !inside && !command.iter().any(|part| part.contains(text.as_ref())) {
        return None;
    }
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    // "pid (name) state ppid …"; the name may hold blanks and parentheses.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    Some(Process { pid, parent, command })
}

/// Every process, whatever it is called and wherever it works, that carries the mark of a data directory's instances in
/// its environment, as everything an instance starts does.
pub fn marked(data_dir: &Path) -> Vec<Process> {
    let canonical = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    let mark = format!("DARKROOM_INSTANCES_DIR={}", canonical.join("instances").display());
    let mut found = of(data_dir);
    let known: Vec<i32> = found.iter().map(|process| process.pid).collect();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if !known.contains(&pid) && environment.split(|byte| *byte == 0).any(|e| e == mark.as_bytes()) {
            let command = vec!["(by its environment)".to_owned()];
            found.push(Process {
                pid,
                parent: 0,
                command,
            });
        }
    }
    found
}

/// Whether a process has ended for good: gone, or a zombie without threads, whose children have another parent by now. (It
/// loses its command line, by which [`of`] finds it, some time before, and its first thread may be a zombie long before the one
/// that started a child.)
pub fn has_ended(pid: i32) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    let Ok(stat) = fs::read_to_string(proc.join("stat")) else {
        return true;
    };
    let zombie = stat
        .rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
    zombie && fs::read_dir(proc.join("task")).map_or(0, Iterator::count) <= 1
}

/// Sends a signal; a process that is gone already is fine.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}
