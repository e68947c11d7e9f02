//! What this machine's GPUs do, as `nvidia-smi` says it. Where there is no such program nothing is shown, and nothing fails.

use std::{process::Stdio, time::Duration};

use tokio::{process::Command, sync::Mutex};

use crate::service::resources::GpuUse;

/// One look serves all instances that ask within this time.
const FRESH: Duration = Duration::from_secs(5);
/// After a look that failed, nobody looks again for this long.
const AFTER_FAILURE: Duration = Duration::from_secs(300);
/// A driver in trouble may keep the program for ever.
const PATIENCE: Duration = Duration::from_secs(10);
const COLUMNS: &str = "--query-gpu=index,uuid,memory.used,memory.total,utilization.gpu";

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Gpus {
    last: Mutex<Option<Look>>,
}

#[derive(Debug)]
struct Look {
    at: Duration,
    /// `None`: it failed.
    devices: Option<Vec<GpuUse>>,
}

impl Gpus {
    /// The device of an entry of `gpus` (its number or id), or the only one there is where an instance was given none; `now`
    /// is monotonic.
    pub(super) async fn look(&self, entry: Option<&str>, now: Duration) -> Option<GpuUse> {
        let mut last = self.last.lock().await;
        let is_fresh = |look: &Look| {
            let good_for = if look.devices.is_some() {
                FRESH
            } else {
                AFTER_FAILURE
            };
            now.saturating_sub(look.at) < good_for
        };
        if !last.as_ref().is_some_and(is_fresh) {
            *last = Some(Look {
                at: now,
                devices: ask().await,
            });
        }
        choose(last.as_ref()?.devices.as_ref()?, entry)
    }
}

fn choose(devices: &[GpuUse], entry: Option<&str>) -> Option<GpuUse> {
    let named = |device: &&GpuUse| {
        let entry = entry.unwrap_or_default().trim();
        // CUDA_VISIBLE_DEVICES takes any unambiguous beginning of an id.
        device.index.to_string() == entry || (entry.len() > 4 && device.uuid.starts_with(entry))
    };
    match (entry, devices) {
        (Some(_), devices) => devices.iter().find(named).cloned(),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    }
}

async fn ask() -> Option<Vec<GpuUse>> {
    let asking = Command::new("nvidia-smi")
        .args([COLUMNS, "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let answer = tokio::time::timeout(PATIENCE, asking).await.ok()?.ok()?;
    answer
        .status
        .success()
        .then(|| parse(&String::from_utf8_lossy(&answer.stdout)))
}

/// Lines of `index, uuid, used MiB, total MiB, percent`; lines of another shape are passed over.
fn parse(text: &str) -> Vec<GpuUse> {
    let line = |line: &str| {
        let mut fields = line.split(',').map(str::trim);
        let mut next = || fields.next();
        let mebibytes = |text: &str| text.parse::<u64>().ok().map(|n| n << 20);
        Some(GpuUse {
            index: next()?.parse().ok()?,
            uuid: next()?.to_owned(),
            memory_used_bytes: mebibytes(next()?)?,
            memory_total_bytes: mebibytes(next()?)?,
            utilization_percent: next().and_then(|text| text.parse().ok()),
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "0, GPU-5f2a77c1-aa, 1024, 81559, 37\n1, GPU-99b0-bb, 0, 81559, [N/A]\nno devices\n";

    #[test]
    fn devices_are_read_and_chosen_by_number_or_id() {
        let devices = parse(SAID);
        assert_eq!(devices.len(), 2);
        assert_eq!(devices[0].memory_used_bytes, 1 << 30);
        assert_eq!(
            (devices[0].utilization_percent, devices[1].utilization_percent),
            (Some(37), None)
        );
        let chosen = |entry| choose(&devices, entry).map(|device| device.index);
        assert_eq!(chosen(Some("1")), Some(1));
        assert_eq!(chosen(Some("GPU-5f2a")), Some(0));
        assert_eq!(chosen(Some("7")), None);
        assert_eq!(chosen(None), None, "of two, nobody knows which");
        assert_eq!(choose(&devices[1..], None).map(|device| device.index), Some(1));
    }
}
