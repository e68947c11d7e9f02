//! Waiting until an instance answers.

use std::time::Duration;

/// The first pause between two questions. The embedded engine answers after about 50 ms, so this must be short.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long one question may take; a ComfyUI that loads custom nodes may accept and not answer.
const ONE_ANSWER: Duration = Duration::from_secs(5);

/// Asks until the answer is 200.
///
/// # Errors
/// What the port said last, when `timeout` is over.
pub(super) async fn wait(http: &reqwest::Client, base_url: &str, timeout: Duration) -> Result<(), String> {
    let mut last = "nothing listens on its port".to_owned();
    let asking = async {
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = http
                .get(format!("{base_url}/system_stats"))
                .timeout(ONE_ANSWER)
                .send()
                .await;
            match answer {
                Ok(answer) if answer.status() == reqwest::StatusCode::OK => return,
                Ok(answer) => last = format!("its port answers with status {}", answer.status().as_u16()),
                Err(error) if error.is_connect() => {}
                Err(error) if error.is_timeout() => {
                    last = "it accepts connections but does not answer".to_owned()
                }
                Err(_) => last = "its port does not speak HTTP".to_owned(),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    };
    tokio::time::timeout(timeout, asking).await.map_err(|_| last)
}
