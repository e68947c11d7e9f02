//! `GET /system_stats`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Versions and memory of one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SystemStats {
    #[serde(default)]
    pub system: SystemInfo,
    #[serde(default)]
    pub devices: Vec<Device>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The host and the software.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SystemInfo {
    #[serde(default)]
    pub comfyui_version: Option<String>,
    #[serde(default)]
    pub python_version: Option<String>,
    #[serde(default)]
    pub pytorch_version: Option<String>,
    /// `os`, `ram_total` and `ram_free` in bytes, `argv` (which tells paths of the host), …
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One GPU (or the CPU).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    #[serde(default)]
    pub name: String,
    /// Bytes.
    #[serde(default)]
    pub vram_total: u64,
    /// Bytes.
    #[serde(default)]
    pub vram_free: u64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_answer_is_read_and_written_back() {
        let value = json!({
            "system": {"comfyui_version": "0.3.64", "python_version": "3.11.7", "pytorch_version": "2.7.1+cu126",
                       "os": "posix", "ram_total": 25276502016u64, "argv": ["main.py"]},
            "devices": [{"name": "cpu", "vram_total": 25276502016u64, "vram_free": 1, "type": "cpu", "index": null}],
        });
        let stats: SystemStats = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(stats.system.comfyui_version.as_deref(), Some("0.3.64"));
        assert_eq!(serde_json::to_value(stats).unwrap(), value);
    }
}
