//! Waiting until an instance answers.

use std::time::Duration;

/// The first pause between two questions. The embedded engine answers after about 50 ms, so this must be short.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long one question may take; a ComfyUI that loads custom nodes may accept and not answer.
const ONE_ANSWER: Duration = Duration::from_secs(5);
/// A port of this machine that nobody listens on refuses at once: a question that is open for this long was accepted.
const ACCEPTED: Duration = Duration::from_millis(500);
const UNANSWERED: &str = "it accepts connections but does not answer";

/// Asks until the answer is 200.
///
/// # Errors
/// What the port said last, when `timeout` is over.
pub(super) async fn wait(http: &reqwest::Client, base_url: &str, timeout: Duration) -> Result<(), String> {
    let mut last = "nothing listens on its port".to_owned();
    let asking = async {
        let mut pause = FIRST_PAUSE;
        loop {
            let question = http
                .get(format!("{base_url}/system_stats"))
                .timeout(ONE_ANSWER)
                .send();
            tokio::pin!(question);
            let answer = tokio::select! {
                answer = &mut question => answer,
                () = tokio::time::sleep(ACCEPTED) => {
                    last = UNANSWERED.to_owned();
                    question.await
                }
            };
            match answer {
                Ok(answer) if answer.status() == reqwest::StatusCode::OK => return,
                Ok(answer) => last = format!("its port answers with status {}", answer.status().as_u16()),
                Err(error) if error.is_connect() => {}
                Err(error) if error.is_timeout() => last = UNANSWERED.to_owned(),
                Err(_) => last = "its port does not speak HTTP".to_owned(),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    };
    tokio::time::timeout(timeout, asking).await.map_err(|_| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_open_question_is_told_from_a_port_that_nobody_listens_on() {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        // Shorter than one answer may take.
        let reason = wait(&http, &url, ACCEPTED * 2).await.unwrap_err();
        assert_eq!(reason, UNANSWERED);
        drop(silent);
        let reason = wait(&http, &url, ACCEPTED / 10).await.unwrap_err();
        assert!(reason.contains("nothing listens"), "{reason}");
    }
}
