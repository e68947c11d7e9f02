//! Ends the process at a named point, for tests of what survives. Off unless `DARKROOM_FAILPOINT=POINT:N@FILE` is set:
//! then the process is killed, as by `kill -9`, when it passes POINT for the N-th time while FILE exists.

use std::{
    io::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::process::{Signal, getpid, kill_process};

/// Called with the name of each point that is passed.
pub type Failpoint = Arc<dyn Fn(&'static str) + Send + Sync>;

const VARIABLE: &str = "DARKROOM_FAILPOINT";

/// The hook that the environment asks for.
pub fn from_env() -> Option<Failpoint> {
    let text = std::env::var(VARIABLE).ok()?;
    let Trap { point, nth, armed } = parse(&text)?;
    let passes = AtomicU64::new(0);
    Some(Arc::new(move |reached: &'static str| {
        if reached == point && armed.exists() && passes.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            // Straight to the descriptor: a buffered line would die with us.
            let _ = std::io::stderr().write_all(format!("failpoint reached: {point}\n").as_bytes());
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }))
}

#[derive(Debug, PartialEq, Eq)]
struct Trap {
    point: String,
    nth: u64,
    armed: PathBuf,
}

fn parse(text: &str) -> Option<Trap> {
    let (trap, armed) = text.split_once('@')?;
    let (point, nth) = trap.split_once(':')?;
    let nth = nth.parse().ok().filter(|nth| *nth > 0)?;
    Some(Trap {
        point: point.to_owned(),
        nth,
        armed: armed.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_which_pass_and_what_arms_it() {
        let trap = parse("claim:5@/tmp/a:b@c").unwrap();
        assert_eq!((trap.point.as_str(), trap.nth), ("claim", 5));
        assert_eq!(trap.armed, PathBuf::from("/tmp/a:b@c"));
        for bad in ["claim", "claim:5", "claim:0@/x", "claim:x@/x", "@/x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
