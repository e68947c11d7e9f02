//! The child's side: takes the socket, and never outlives its parent.

use std::{io, net::TcpListener, os::fd::AsFd};

use rustix::process::{Pid, Signal, getppid};

/// The listening socket, which the parent put in the place of standard input.
///
/// # Errors
/// When standard input is no listening socket: `serve --child-of` was called by hand.
pub fn inherited_listener() -> io::Result<TcpListener> {
    let listener = TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.local_addr()?;
    Ok(listener)
}

/// From now on this process is killed when its parent ends, however that happens. Nothing is lost by that: every
/// acknowledged thing is durable, and instances live on for the next server to adopt. Ends the process at once when the
/// parent is already gone.
///
/// # Errors
/// When the kernel refuses.
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if is_orphan(parent) {
        std::process::exit(0);
    }
    #[cfg(not(target_os = "linux"))]
    std::thread::spawn(move || {
        while !is_orphan(parent) {
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    });
    Ok(())
}

fn is_orphan(parent: u32) -> bool {
    getppid().map(Pid::as_raw_nonzero).map(std::num::NonZero::get) != i32::try_from(parent).ok()
}
