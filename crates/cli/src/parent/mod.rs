//! The parent of `darkroom serve`: owns the listening socket and the lock of the data directory, and keeps a child
//! running that does everything else.
//!
//! While the socket is open, a client that connects during a restart waits instead of being refused. The child finds
//! the socket as its standard input, which needs no inherited descriptor by number; it dies with its parent
//! ([`child`]). The parent knows nothing of configuration, jobs, or HTTP.

mod bind;
pub mod child;

#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Read},
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use darkroom_ambient::SystemClock;
use darkroom_core::Clock;
use rustix::process::{Pid, Signal as UnixSignal, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::timeout,
};

use crate::data_dir::{self, DataDir};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen, unless a socket was handed to us (`LISTEN_FDS`).
    pub listen: SocketAddr,
    /// The directory to lock.
    pub data_dir: PathBuf,
    /// Arguments of the child; `--child-of PID` is put behind them.
    pub child_args: Vec<OsString>,
    /// Stop when standard input ends (`--until-stdin-closes`).
    pub until_stdin_closes: bool,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", if source.kind() == io::ErrorKind::AddrInUse { "; is another server running there?" } else { "" })]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// `LISTEN_FDS` promised a socket.
    #[error("cannot take the socket that LISTEN_FDS promises")]
    Inherit(#[source] io::Error),
    /// The child cannot be started.
    #[error("cannot start the server process")]
    Spawn(#[source] io::Error),
}

/// Runs until the child ended for good: after a stop, or because it could not even begin. The code is the child's.
///
/// # Errors
/// [`Error`], before anything runs.
pub fn run(options: &Options) -> Result<ExitCode, Error> {
    let _data_dir = DataDir::lock(&options.data_dir)?;
    let listener = match bind::inherited().map_err(Error::Inherit)? {
        Some(listener) => listener,
        None => TcpListener::bind(options.listen).map_err(|source| Error::Bind {
            address: options.listen,
            source,
        })?,
    };
    let program = std::env::current_exe().map_err(Error::Spawn)?;
    // One thread: the child's death signal hangs on the thread that started it, which is this one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Spawn)?;
    runtime.block_on(async {
        let orders = orders(options.until_stdin_closes).map_err(Error::Spawn)?;
        let status = supervise(&program, &options.child_args, &listener, orders)
            .await
            .map_err(Error::Spawn)?;
        Ok(ExitCode::from(exit_code(status)))
    })
}

/// What the parent is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Forward this signal, and do not restart the child after it ended.
    Stop(UnixSignal),
    /// Forward SIGHUP.
    Reload,
}

/// A child that lives shorter than this died rapidly.
const RAPID: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Clients wait in the socket's queue meanwhile; longer than this would look like an outage.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Keeps a child running until an order ends it. `None`: no child runs (it was stopped in a pause).
async fn supervise(
    program: &Path,
    args: &[OsString],
    listener: &TcpListener,
    mut orders: mpsc::Receiver<Order>,
) -> io::Result<Option<ExitStatus>> {
    let clock = SystemClock::new();
    let mut has_lived = false;
    let mut rapid_deaths: u32 = 0;
    loop {
        let started = clock.monotonic();
        let mut child = spawn(program, args, listener)?;
        let (status, stopped) = watch(&mut child, &mut orders).await?;
        let rapid = clock.monotonic().saturating_sub(started) < RAPID;
        has_lived |= !rapid;
        // It ended by its own decision: told to, done, or unable to begin (bad configuration, newer database).
        let unable = !has_lived && status.code().is_some() && rapid_deaths == 0;
        if stopped || status.success() || unable {
            return Ok(Some(status));
        }
        rapid_deaths = if rapid { rapid_deaths.saturating_add(1) } else { 0 };
        let pause = pause_after(rapid_deaths);
        tracing::error!(
            status = %status,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "the server process died; starting another"
        );
        if stopped_within(pause, &mut orders).await {
            return Ok(None);
        }
    }
}

/// None after a long life, then doubling.
fn pause_after(rapid_deaths: u32) -> Duration {
    match rapid_deaths {
        0 => Duration::ZERO,
        n => FIRST_PAUSE
            .saturating_mul(1_u32.checked_shl(n - 1).unwrap_or(u32::MAX))
            .min(LONGEST_PAUSE),
    }
}

fn spawn(program: &Path, args: &[OsString], listener: &TcpListener) -> io::Result<Child> {
    let socket: OwnedFd = listener.try_clone()?.into();
    Command::new(program)
        .args(args)
        .arg("--child-of")
        .arg(std::process::id().to_string())
        .stdin(Stdio::from(socket))
        .env_remove(bind::LISTEN_PID)
        .env_remove(bind::LISTEN_FDS)
        // Its own group: Ctrl-C in a terminal reaches only us, so that the child hears each wish once.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Waits for the child's end and forwards orders; says whether one of them was to stop.
async fn watch(child: &mut Child, orders: &mut mpsc::Receiver<Order>) -> io::Result<(ExitStatus, bool)> {
    let mut stops = 0;
    loop {
        let order = tokio::select! {
            status = child.wait() => return Ok((status?, stops > 0)),
            Some(order) = orders.recv() => order,
        };
        let signal = match order {
            Order::Reload => UnixSignal::HUP,
            Order::Stop(signal) => {
                stops += 1;
                // The second wish tells the child to hurry; who asks a third time means it.
                if stops < 3 { signal } else { UnixSignal::KILL }
            }
        };
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may have ended just now: then the next round sees it.
            let _ = kill_process(pid, signal);
        }
    }
}

async fn stopped_within(pause: Duration, orders: &mut mpsc::Receiver<Order>) -> bool {
    let stop = async {
        loop {
            match orders.recv().await {
                Some(Order::Stop(_)) => return,
                // There is nobody to reload; the next child reads everything anew.
                Some(Order::Reload) => {}
                None => std::future::pending().await,
            }
        }
    };
    timeout(pause, stop).await.is_ok()
}

/// Our own signals, and the end of standard input where that counts.
fn orders(until_stdin_closes: bool) -> io::Result<mpsc::Receiver<Order>> {
    let (sender, receiver) = mpsc::channel(8);
    let was_on_terminal = io::stdin().is_terminal();
    for (kind, order) in [
        (SignalKind::terminate(), Order::Stop(UnixSignal::TERM)),
        (SignalKind::interrupt(), Order::Stop(UnixSignal::INT)),
        (SignalKind::hangup(), Order::Reload),
    ] {
        let mut signals = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                // A closed terminal also sends SIGHUP; its server should not stay behind.
                let hung_up = order == Order::Reload && was_on_terminal && !io::stdin().is_terminal();
                let order = if hung_up {
                    Order::Stop(UnixSignal::TERM)
                } else {
                    order
                };
                if sender.send(order).await.is_err() {
                    break;
                }
            }
        });
    }
    if until_stdin_closes {
        // A thread of its own: a blocking read cannot be cancelled, and must not hold up the runtime's end.
        std::thread::spawn(move || {
            let mut ignored = [0; 256];
            while io::stdin().lock().read(&mut ignored).is_ok_and(|read| read > 0) {}
            let _ = sender.blocking_send(Order::Stop(UnixSignal::TERM));
        });
    }
    Ok(receiver)
}

/// As shells have it: 128 and the number of the signal.
fn exit_code(status: Option<ExitStatus>) -> u8 {
    let Some(status) = status else { return 0 };
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
