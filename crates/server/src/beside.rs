//! Work that takes a processor for longer than other requests should wait: done beside the runtime's own threads.

/// Less than this is worked on in place, in bytes of the request or answer: handing it over and back costs about 20 µs,
/// as much as parsing 10 KB, and 256 KiB take about half a millisecond (JSON at 500 MB/s, hashing and base64 faster).
pub const IN_PLACE_BYTES: usize = 256 * 1024;

/// Does `work` that is about `bytes` large without holding up the runtime.
pub async fn beside<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if bytes <= IN_PLACE_BYTES {
        return work();
    }
    #[cfg(test)]
    let work = tests::watched(work);
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being dropped, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
pub mod tests {
    use std::{
        sync::{Arc, mpsc},
        time::Duration,
    };

    use super::*;

    tokio::task_local! {
        /// What a test does beside the runtime before each piece of work of its task that is done there.
        pub static MEANWHILE: Arc<dyn Fn() + Send + Sync>;
    }

    pub(super) fn watched<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
        let meanwhile = MEANWHILE.try_with(Arc::clone).ok();
        move || {
            if let Some(meanwhile) = meanwhile {
                meanwhile();
            }
            work()
        }
    }

    #[tokio::test]
    async fn large_work_leaves_the_only_thread_to_others() {
        let (tell, told) = mpsc::channel();
        let work = beside(IN_PLACE_BYTES + 1, move || {
            told.recv_timeout(Duration::from_secs(30))
        });
        let other = async move { tell.send("from the runtime's thread").unwrap() };
        assert_eq!(tokio::join!(work, other).0, Ok("from the runtime's thread"));
        let here = std::thread::current().id();
        assert_eq!(beside(1, || std::thread::current().id()).await, here);
    }

    #[tokio::test]
    #[should_panic(expected = "as it was")]
    async fn a_panic_stays_one() {
        beside(usize::MAX, || panic!("as it was")).await;
    }
}
