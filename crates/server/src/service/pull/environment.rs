//! What a worker is told at its start: the variables of both SDK families (`protocols/async-endpoints.md` §3,
//! `protocols/runpod.md` §3).

use std::{collections::BTreeMap, time::Duration};

use darkroom_core::{EndpointName, presence::PING_INTERVAL};

use crate::service::objects::{Access, BUCKET};

/// Begins the variables of a bucket.
const BUCKET_PREFIX: &str = "BUCKET_";

/// Whose variables.
#[derive(Debug, Clone)]
pub struct Told<'a> {
    /// Where it reaches the server, without a slash at the end.
    pub base_url: &'a str,
    /// Whose jobs it takes.
    pub endpoint: &'a EndpointName,
    /// Its credential.
    pub token: &'a str,
    /// How it calls itself.
    pub worker: &'a str,
    /// How often it pings.
    pub ping_interval: Duration,
    /// Where it keeps what it uploads; `None`: where its own variables say.
    pub objects: Option<Access>,
}

/// Variables by name. The SDKs fill in `$ID` and the worker's id by themselves.
pub fn variables(told: &Told<'_>) -> BTreeMap<String, String> {
    let Told {
        base_url,
        endpoint,
        token,
        worker,
        ping_interval,
        objects,
    } = told;
    let ping_ms = ping_interval.as_millis();
    let mut variables = BTreeMap::new();
    for (family, version, bearer) in [("RUNPOD", "v2", ""), ("PPIO", "v1", "Bearer ")] {
        let id = format!("${family}_POD_ID");
        let base = format!("{base_url}/{version}/{endpoint}");
        // The SDKs append `&…`, so each needs a query; the ping's must not end in one (`requests` adds its own).
        let entries = [
            ("WEBHOOK_GET_JOB", format!("{base}/job-take/$ID?ping={ping_ms}")),
            ("WEBHOOK_POST_OUTPUT", format!("{base}/job-done/{id}/$ID?v=1")),
            ("WEBHOOK_POST_STREAM", format!("{base}/job-stream/{id}/$ID?v=1")),
            ("WEBHOOK_PING", format!("{base}/ping/{id}")),
            ("AI_API_KEY", format!("{bearer}{token}")),
            ("POD_ID", (*worker).to_owned()),
            ("PING_INTERVAL", ping_ms.to_string()),
            ("ENDPOINT_ID", endpoint.to_string()),
        ];
        variables.extend(entries.map(|(name, value)| (format!("{family}_{name}"), value)));
    }
    if let Some(access) = objects {
        let entries = [
            ("ENDPOINT_URL", access.endpoint_url.as_str()),
            ("ACCESS_KEY_ID", &access.access_key),
            ("SECRET_ACCESS_KEY", &access.secret_key),
            ("NAME", BUCKET),
        ];
        variables.extend(entries.map(|(name, value)| (format!("{BUCKET_PREFIX}{name}"), value.to_owned())));
    }
    // The memory, disk and network checks suppose RunPod's machines: without a way to 8.8.8.8 no worker would start.
    variables.insert("RUNPOD_SKIP_AUTO_SYSTEM_CHECKS".to_owned(), "true".to_owned());
    variables
}

/// Lines to paste into a shell. Each shell's worker gets a name of its own; everything else is taken as it is, so that the
/// SDKs find their placeholders.
pub fn for_shell(variables: &BTreeMap<String, String>) -> String {
    let lines = variables
        .iter()
        .map(|(name, value)| match name.ends_with("_POD_ID") {
            true => format!("export {name}=\"{value}-$(hostname)-$$\""),
            false => format!("export {name}='{}'", value.replace('\'', "'\\''")),
        });
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether somebody says where a worker's files go; half of that and half of ours would be nothing.
pub fn names_a_bucket(variables: &BTreeMap<String, String>) -> bool {
    variables.keys().any(|name| name.starts_with(BUCKET_PREFIX))
}

/// How often a worker pings whose endpoint sets these variables; the SDKs cannot do it more often than once a second.
pub fn ping_interval(configured: &BTreeMap<String, String>) -> Duration {
    let given = ["RUNPOD_PING_INTERVAL", "PPIO_PING_INTERVAL"]
        .iter()
        .find_map(|name| configured.get(*name)?.parse().ok());
    given
        .map(Duration::from_millis)
        .filter(|given| (Duration::from_secs(1)..=Duration::from_secs(600)).contains(given))
        .unwrap_or(PING_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_told_the_same_in_their_own_words() {
        let told = variables(&Told {
            base_url: "http://127.0.0.1:8288",
            endpoint: &"upscale".parse().unwrap(),
            token: "dkw_x",
            worker: "w-1",
            ping_interval: PING_INTERVAL,
            objects: None,
        });
        assert_eq!(
            told["RUNPOD_WEBHOOK_GET_JOB"],
            "http://127.0.0.1:8288/v2/upscale/job-take/$ID?ping=10000"
        );
        assert_eq!(
            told["PPIO_WEBHOOK_POST_OUTPUT"],
            "http://127.0.0.1:8288/v1/upscale/job-done/$PPIO_POD_ID/$ID?v=1"
        );
        assert_eq!(
            (
                told["RUNPOD_AI_API_KEY"].as_str(),
                told["PPIO_AI_API_KEY"].as_str()
            ),
            ("dkw_x", "Bearer dkw_x")
        );
        assert_eq!(told["RUNPOD_SKIP_AUTO_SYSTEM_CHECKS"], "true");
        assert_eq!(told.len(), 17);
        assert!(!names_a_bucket(&told));
    }

    #[test]
    fn a_worker_without_a_bucket_is_told_ours() {
        let told = variables(&Told {
            base_url: "http://127.0.0.1:8288",
            endpoint: &"upscale".parse().unwrap(),
            token: "dkw_x",
            worker: "w-1",
            ping_interval: PING_INTERVAL,
            objects: Some(Access {
                endpoint_url: "https://gpu.example/darkroom/s3".to_owned(),
                access_key: "DKO.upscale".to_owned(),
                secret_key: "x".to_owned(),
            }),
        });
        assert!(names_a_bucket(&told));
        assert_eq!(told["BUCKET_ENDPOINT_URL"], "https://gpu.example/darkroom/s3");
        assert_eq!(told["BUCKET_NAME"], "outputs");
        assert_eq!(told.len(), 21);
    }

    #[test]
    fn a_shell_takes_the_variables_as_they_are_and_names_each_worker() {
        let told = BTreeMap::from([
            ("RUNPOD_POD_ID".to_owned(), "box".to_owned()),
            (
                "RUNPOD_WEBHOOK_PING".to_owned(),
                "http://h/it's/$RUNPOD_POD_ID".to_owned(),
            ),
        ]);
        assert_eq!(
            for_shell(&told),
            "export RUNPOD_POD_ID=\"box-$(hostname)-$$\"\nexport RUNPOD_WEBHOOK_PING='http://h/it'\\''s/$RUNPOD_POD_ID'"
        );
    }

    #[test]
    fn an_endpoint_may_choose_the_pace_of_pings() {
        let of = |value: &str| {
            ping_interval(&BTreeMap::from([(
                "PPIO_PING_INTERVAL".to_owned(),
                value.to_owned(),
            )]))
        };
        assert_eq!(of("1000"), Duration::from_secs(1));
        for nonsense in ["500", "x", "0", "99999999"] {
            assert_eq!(of(nonsense), PING_INTERVAL);
        }
    }
}
