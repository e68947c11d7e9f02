//! Deaths at random moments under load. A few rounds by default; `DARKROOM_FAULT_ROUNDS=200` for the whole of the
//! promise, `DARKROOM_FAULT_SEED` to see one run again (as far as the machine lets it).

use std::time::Duration;

use darkroom_tests::{Ledger, Options, Server, eventually, processes};
use rustix::process::Signal;

use super::{LIMIT, conclude};

/// Longest time from one death to the next, in milliseconds.
const LONGEST_LIFE_MS: u64 = 700;

#[tokio::test(flavor = "multi_thread")]
async fn deaths_at_random_moments_lose_nothing() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |n| n.parse().expect("a number"));
    let rounds = number("DARKROOM_FAULT_ROUNDS", 10);
    let seed = number("DARKROOM_FAULT_SEED", 0x5eed);
    eprintln!("{rounds} rounds of seed {seed}");
    let mut random = Random(seed | 1);
    // Whoever kills instances for fun must not count it against the jobs.
    let options = Options::test_nodes().with_config("[endpoints.default.limits]\nmax_attempts = 1000\n");
    let mut server = Server::start(options).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let load = ledger.load(&api, 3);
    for round in 0..rounds {
        let moment = Duration::from_millis(random.below(LONGEST_LIFE_MS));
        tokio::time::sleep(moment).await;
        let what = random.below(5);
        eprintln!(
            "round {round}: {} after {moment:?}",
            ["child", "child", "server", "everything", "instance"][what as usize]
        );
        match what {
            0 | 1 => server.kill_child().await,
            2 => {
                server.kill_tree().await;
                server.restart().await;
            }
            3 => {
                server.kill_everything().await;
                server.restart().await;
            }
            _ => {
                for pid in server.instance_pids() {
                    processes::signal(pid, Signal::KILL);
                }
            }
        }
        if round % 10 == 9 {
            let there = ledger.len();
            eventually("work gets done", LIMIT, async || {
                (ledger.len() > there).then_some(())
            })
            .await;
        }
    }
    load.stop().await;
    let found = conclude(&mut server, &ledger).await;
    eprintln!("{} acknowledged, {found:?}", ledger.len());
}

/// xorshift: good enough for choosing moments, and the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
