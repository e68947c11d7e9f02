//! A listening socket that was handed to us (systemd's socket activation: `LISTEN_PID`, `LISTEN_FDS`, first one at 3).

use std::{env, io, net::TcpListener, os::fd::OwnedFd};

/// Whom the sockets are for. Not passed on to children: the promise was for us alone.
pub(super) const LISTEN_PID: &str = "LISTEN_PID";
/// How many there are.
pub(super) const LISTEN_FDS: &str = "LISTEN_FDS";

/// The first socket after standard error.
const FIRST_FD: i32 = 3;

/// The socket, if the environment promises one to this process.
pub(super) fn inherited() -> io::Result<Option<TcpListener>> {
    let promised = is_promised(
        env::var(LISTEN_PID).ok().as_deref(),
        env::var(LISTEN_FDS).ok().as_deref(),
        std::process::id(),
    );
    if !promised {
        return Ok(None);
    }
    let listener = TcpListener::from(duplicate(FIRST_FD)?);
    // Also says so when it is no socket at all.
    listener.local_addr()?;
    Ok(Some(listener))
}

fn is_promised(pid: Option<&str>, count: Option<&str>, own_pid: u32) -> bool {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
    number(pid) == Some(own_pid) && number(count).is_some_and(|count| count >= 1)
}

/// A descriptor of this process by its number. The kernel duplicates it for us, since to claim it ourselves would be
/// `unsafe`.
#[cfg(target_os = "linux")]
fn duplicate(number: i32) -> io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(this_process, number, PidfdGetfdFlags::empty())?)
}

#[cfg(not(target_os = "linux"))]
fn duplicate(_: i32) -> io::Result<OwnedFd> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "sockets are taken over on Linux only",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_promise_must_be_for_this_process() {
        assert!(is_promised(Some("7"), Some("1"), 7));
        assert!(!is_promised(Some("8"), Some("1"), 7));
        assert!(!is_promised(Some("7"), Some("0"), 7));
        assert!(!is_promised(None, Some("1"), 7));
        assert!(!is_promised(Some("7"), Some(""), 7));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_is_taken_by_its_number() {
        use std::os::fd::AsRawFd;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let again = TcpListener::from(duplicate(listener.as_raw_fd()).unwrap());
        assert_eq!(again.local_addr().unwrap(), listener.local_addr().unwrap());
        assert!(duplicate(i32::MAX).is_err());
    }
}
