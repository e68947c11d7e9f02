//! Ends the process at named points, for tests of what survives. Off unless `DARKROOM_FAILPOINTS=FILE` is set: then each
//! process that starts takes the first line off the file, `POINT:N` or `POINT:N freeze`, and when it passes POINT for
//! the N-th time it is killed, as by `kill -9`, or stands still there until somebody kills it.

use std::{
    fs, io,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Signal, getpid, kill_process};

/// Called with the name of each point that is passed.
pub type Failpoint = Arc<dyn Fn(&'static str) + Send + Sync>;

const VARIABLE: &str = "DARKROOM_FAILPOINTS";

/// The hook that the environment asks for.
///
/// # Errors
/// The file cannot be read or written, or its first line makes no sense: a test that means to kill must not pass
/// because nothing died.
pub fn from_env() -> io::Result<Option<Failpoint>> {
    let Some(file) = std::env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let Some(line) = take_line(Path::new(&file))? else {
        return Ok(None);
    };
    let trap = Trap::parse(&line).ok_or_else(|| io::Error::other(format!("'{line}' is no failpoint")))?;
    let passes = AtomicU64::new(0);
    Ok(Some(Arc::new(move |reached: &'static str| {
        if reached == trap.point && passes.fetch_add(1, Ordering::Relaxed) + 1 == trap.nth {
            trap.spring();
        }
    })))
}

/// The first line, removed. There is one reader at a time: a child starts when the one before it is gone.
fn take_line(file: &Path) -> io::Result<Option<String>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let Some((line, rest)) = text.split_once('\n') else {
        return Ok(None);
    };
    fs::write(file, rest)?;
    Ok(Some(line.to_owned()))
}

#[derive(Debug, PartialEq, Eq)]
struct Trap {
    point: String,
    nth: u64,
    freeze: bool,
}

impl Trap {
    fn parse(line: &str) -> Option<Self> {
        let (trap, freeze) = match line.strip_suffix(" freeze") {
            Some(trap) => (trap, true),
            None => (line, false),
        };
        let (point, nth) = trap.split_once(':')?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0)?;
        (!point.is_empty()).then(|| Trap {
            point: point.to_owned(),
            nth,
            freeze,
        })
    }

    fn spring(&self) {
        let signal = if self.freeze { Signal::STOP } else { Signal::KILL };
        // Straight to the descriptor: a buffered line would die with us.
        let _ = io::stderr().write_all(format!("failpoint reached: {}\n", self.point).as_bytes());
        let _ = kill_process(getpid(), signal);
        // A stop takes hold of the other threads a moment before this one; this one must not get further either way.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_point_the_pass_and_how() {
        let trap = Trap::parse("claim:5").unwrap();
        assert_eq!((trap.point.as_str(), trap.nth, trap.freeze), ("claim", 5, false));
        assert!(Trap::parse("claim:5 freeze").unwrap().freeze);
        for bad in ["", "claim", "claim:0", "claim:x", ":1", "claim:1 thaw"] {
            assert_eq!(Trap::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_process_takes_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("script");
        assert_eq!(take_line(&file).unwrap(), None);
        fs::write(&file, "a:1\nb:2\n").unwrap();
        assert_eq!(take_line(&file).unwrap().as_deref(), Some("a:1"));
        assert_eq!(take_line(&file).unwrap().as_deref(), Some("b:2"));
        assert_eq!(take_line(&file).unwrap(), None);
    }
}
