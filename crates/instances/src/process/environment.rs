//! The environment of an instance: ours without our secrets, what the endpoint adds, and the marks we know it by.

use std::{collections::BTreeMap, path::Path};

use darkroom_core::InstanceId;

/// Which instance a process belongs to.
const INSTANCE: &str = "DARKROOM_INSTANCE";
/// Which server's: the directory of its instances.
const HOME: &str = "DARKROOM_INSTANCES_DIR";

/// Parts of names of variables that hold secrets.
const SECRET_NAMES: [&str; 6] = ["KEY", "TOKEN", "SECRET", "PASSW", "CREDENTIAL", "AUTH"];
/// Shorter values are not hidden in logs: they would blot out ordinary words and are no secrets.
const SECRET_MIN_BYTES: usize = 6;

/// The entries, as `NAME=value`, that the environment of every process of an instance holds.
pub(super) fn marks(instance: InstanceId, home: &Path) -> [String; 2] {
    [
        format!("{INSTANCE}={instance}"),
        format!("{HOME}={}", home.display()),
    ]
}

/// The whole environment of a new instance.
///
/// `inherited` loses everything that is ours (`DARKROOM_…`, what a service manager told us, and `hidden`, the
/// variables the configuration takes secrets from).
pub(super) fn environment(
    inherited: impl Iterator<Item = (String, String)>,
    hidden: &[String],
    gpu: Option<&str>,
    extra: &BTreeMap<String, String>,
    instance: InstanceId,
    home: &Path,
) -> BTreeMap<String, String> {
    let ours = |name: &str| {
        name.starts_with("DARKROOM_")
            || name.starts_with("LISTEN_")
            || name == "NOTIFY_SOCKET"
            || hidden.iter().any(|hidden| hidden == name)
    };
    let mut environment: BTreeMap<String, String> = inherited.filter(|(name, _)| !ours(name)).collect();
    // Otherwise the last lines before a crash, the reason of it, stay in Python's buffer.
    environment.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
    if let Some(gpu) = gpu {
        environment.insert("CUDA_VISIBLE_DEVICES".to_owned(), gpu.to_owned());
    }
    environment.extend(extra.iter().map(|(name, value)| (name.clone(), value.clone())));
    environment.insert(INSTANCE.to_owned(), instance.to_string());
    environment.insert(HOME.to_owned(), home.display().to_string());
    environment
}

/// The values of an environment that must not appear in a reason.
pub(super) fn secrets<'a>(environment: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let mut secrets: Vec<String> = environment
        .filter(|(name, value)| {
            let name = name.to_ascii_uppercase();
            value.len() >= SECRET_MIN_BYTES && SECRET_NAMES.iter().any(|part| name.contains(part))
        })
        .map(|(_, value)| value.to_owned())
        .collect();
    // The longest first, so that one that contains another is hidden whole.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn our_secrets_stay_here_and_the_endpoint_has_the_last_word() {
        let id = InstanceId::from_uuid(uuid::Uuid::nil());
        let inherited = pairs(&[
            ("PATH", "/bin"),
            ("DARKROOM_KEY", "sk"),
            ("DARKROOM__STORE__URL", "postgres://u:p@h"),
            ("LISTEN_FDS", "1"),
            ("APP_KEY", "hidden by name"),
            ("HF_HOME", "/models"),
            ("CUDA_VISIBLE_DEVICES", "0,1,2"),
        ]);
        let extra = pairs(&[("HF_HOME", "/other"), ("DARKROOM_INSTANCE", "forged")]);
        let got = environment(
            inherited.into_iter(),
            &["APP_KEY".to_owned()],
            Some("2"),
            &extra,
            id,
            Path::new("/d"),
        );
        let want = pairs(&[
            ("PATH", "/bin"),
            ("HF_HOME", "/other"),
            ("CUDA_VISIBLE_DEVICES", "2"),
            ("PYTHONUNBUFFERED", "1"),
            ("DARKROOM_INSTANCE", &id.to_string()),
            ("DARKROOM_INSTANCES_DIR", "/d"),
        ]);
        assert_eq!(got, want);
        for mark in marks(id, Path::new("/d")) {
            let (name, value) = mark.split_once('=').unwrap();
            assert_eq!(got[name], value);
        }
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        let got = secrets(
            [
                ("HF_TOKEN", "hf_abcdef"),
                ("aws_secret_access_key", "hf_abcdef-longer"),
                ("PATH", "/usr/bin"),
                ("TOKENIZERS_PARALLELISM", "false"),
            ]
            .into_iter(),
        );
        assert_eq!(got, ["hf_abcdef-longer", "hf_abcdef"]);
    }
}
