//! The parent with small shell scripts as children.

use std::{fs, net::TcpStream, path::Path};

use super::*;

struct World {
    dir: tempfile::TempDir,
    listener: TcpListener,
    script: String,
}

impl World {
    /// `$LOG` gets a line per start; `script` is what each child does.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        World {
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            script: format!("LOG={}\necho start >> $LOG\n{script}", log.display()),
            dir,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn starts(&self) -> usize {
        self.log().matches("start").count()
    }

    async fn run(&self, orders: mpsc::Receiver<Order>) -> Option<ExitStatus> {
        let args = ["-c".into(), self.script.clone().into()];
        let supervised = supervise(Path::new("/bin/sh"), &args, &self.listener, orders);
        timeout(Duration::from_secs(20), supervised)
            .await
            .expect("in time")
            .unwrap()
    }

    /// Until the log holds `count` of `word`.
    async fn seen(&self, word: &str, count: usize) {
        let look = async {
            while self.log().matches(word).count() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), look)
            .await
            .expect("the child wrote it in time");
    }
}

#[tokio::test]
async fn a_killed_child_is_replaced_and_nobody_is_refused_meanwhile() {
    let world = World::new("[ $(wc -l < $LOG) -ge 3 ] && exit 0\nkill -9 $$");
    let (_orders, receiver) = mpsc::channel(1);
    let address = world.listener.local_addr().unwrap();
    let connecting = std::thread::spawn(move || {
        for _ in 0..50 {
            TcpStream::connect(address).expect("never refused");
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let status = world.run(receiver).await.unwrap();
    assert!(status.success());
    assert_eq!(world.starts(), 3);
    connecting.join().unwrap();
}

#[tokio::test]
async fn a_child_that_cannot_begin_is_not_tried_again() {
    let world = World::new("exit 2");
    let (_orders, receiver) = mpsc::channel(1);
    let status = world.run(receiver).await;
    assert_eq!(exit_code(status), 2);
    assert_eq!(world.starts(), 1);
}

#[tokio::test]
async fn signals_are_forwarded_and_a_stop_ends_it_with_the_childs_code() {
    let script = "trap 'echo hup >> $LOG' HUP\ntrap 'echo term >> $LOG; exit 5' TERM\necho trapped >> $LOG\nwhile :; do sleep 0.02; done";
    let world = World::new(script);
    let (orders, receiver) = mpsc::channel(8);
    let told = async {
        world.seen("trapped", 1).await;
        orders.send(Order::Reload).await.unwrap();
        world.seen("hup", 1).await;
        orders.send(Order::Stop(UnixSignal::TERM)).await.unwrap();
    };
    let (status, ()) = tokio::join!(world.run(receiver), told);
    assert_eq!(exit_code(status), 5);
    assert_eq!(world.log().matches("term").count(), 1);
    assert_eq!(world.starts(), 1);
}

#[tokio::test]
async fn the_third_wish_kills() {
    let world = World::new("trap 'echo int >> $LOG' INT\necho trapped >> $LOG\nwhile :; do sleep 0.02; done");
    let (orders, receiver) = mpsc::channel(8);
    let told = async {
        world.seen("trapped", 1).await;
        orders.send(Order::Stop(UnixSignal::INT)).await.unwrap();
        world.seen("int", 1).await;
        orders.send(Order::Stop(UnixSignal::INT)).await.unwrap();
        world.seen("int", 2).await;
        orders.send(Order::Stop(UnixSignal::INT)).await.unwrap();
    };
    let (status, ()) = tokio::join!(world.run(receiver), told);
    assert_eq!(exit_code(status), 128 + 9);
}

#[tokio::test]
async fn a_stop_in_a_pause_ends_it() {
    let world = World::new("kill -9 $$");
    let (orders, receiver) = mpsc::channel(8);
    let told = async {
        world.seen("start", 4).await;
        orders.send(Order::Stop(UnixSignal::TERM)).await.unwrap();
    };
    tokio::join!(world.run(receiver), told);
}

#[tokio::test]
async fn the_child_gets_the_socket_as_its_standard_input() {
    let world = World::new("readlink /proc/self/fd/0 >> $LOG\nexit 0");
    if !Path::new("/proc/self/fd").exists() {
        return;
    }
    let (_orders, receiver) = mpsc::channel(1);
    world.run(receiver).await;
    assert!(world.log().contains("socket:"), "{}", world.log());
}

#[test]
fn pauses_grow_to_their_bound() {
    assert_eq!(pause_after(0), Duration::ZERO);
    assert_eq!(pause_after(1), FIRST_PAUSE);
    assert_eq!(pause_after(2), FIRST_PAUSE * 2);
    for many in [10, 32, 33, u32::MAX] {
        assert_eq!(pause_after(many), LONGEST_PAUSE, "{many}");
    }
}
