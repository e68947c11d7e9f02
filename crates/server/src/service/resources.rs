//! What instances use of their machine, as it was measured last.

use darkroom_core::{EndpointName, InstanceId};
use serde::Serialize;

use super::Service;

/// What one instance uses.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Resources {
    /// Resident memory of its processes, in bytes.
    pub rss_bytes: u64,
    /// Processor time per time between the last two looks, 100 per core; `None` after the first look.
    pub cpu_percent: Option<f64>,
    /// Its processes.
    pub processes: u32,
    /// The device it was given, as `nvidia-smi` shows it; `None`: there is no such program, or no such device.
    pub gpu: Option<GpuUse>,
}

/// What a GPU does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuUse {
    /// Its number.
    pub index: u32,
    /// Its id.
    pub uuid: String,
    /// Memory taken by all that use it, in bytes.
    pub memory_used_bytes: u64,
    /// Its memory, in bytes.
    pub memory_total_bytes: u64,
    /// How busy it is, of 100; `None` where the device does not tell.
    pub utilization_percent: Option<u32>,
}

/// What memory a ComfyUI is to give back (`comfyui/behaviour.md` §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// Models leave the GPU.
    pub unload_models: bool,
    /// Results of nodes are forgotten too.
    pub free_memory: bool,
}

impl Service {
    /// Has the ComfyUIs of an endpoint that run here give memory back once they are done with what they run. Nobody confirms
    /// it, and one that does not answer is left alone.
    pub fn free(&self, endpoint: &EndpointName, what: Free) {
        if let Some(planner) = self.planner.get() {
            planner.free(endpoint, what);
        }
    }

    /// What an instance that runs here used at the last look, at most some seconds ago.
    pub fn resources(&self, instance: InstanceId) -> Option<Resources> {
        self.planner.get()?.resources(instance)
    }
}
