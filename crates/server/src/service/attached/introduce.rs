//! What `serve --comfyui` names, looked at when the server starts as `attach` looks at a box: so that who started it reads at
//! once what is there, and graphs are checked before an instance ever ran.

use darkroom_core::{EndpointName, endpoint::Backend};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    super::{Error, Service},
    probe::{self, Probed},
};

impl Service {
    /// Probes each box of an endpoint, keeps what it told, and says both in the log. Never fails: a box that is not there yet
    /// is waited for as any is.
    pub async fn introduce(&self, name: &EndpointName) {
        let left = CancellationToken::new();
        let _leaves = left.clone().drop_guard();
        let Ok(endpoint) = self.endpoint(name) else {
            return;
        };
        let boxes = match &endpoint.backend {
            Backend::Process(spec) => {
                if self.knows(name, &spec.box_name()).await {
                    return;
                }
                vec![(spec.box_name(), self.probe_installation(&endpoint, &left).await)]
            }
            Backend::Remote { servers } => {
                let mut boxes = Vec::new();
                for server in servers {
                    let probed = probe::server(&server.url, &*self.ids, &left).await;
                    boxes.push((server.name.clone(), probed));
                }
                boxes
            }
            Backend::External => Vec::new(),
        };
        for (box_name, probed) in boxes {
            match probed {
                Ok(probed) => self.introduced(name, &box_name, probed).await,
                Err(reason) => {
                    tracing::warn!(endpoint.name = %name, box_name, reason, "what --comfyui names cannot be used yet");
                }
            }
        }
    }

    /// Whether an installation told before; its instances tell again whenever they start.
    async fn knows(&self, endpoint: &EndpointName, box_name: &str) -> bool {
        let boxes = self.boxes(endpoint).await;
        boxes.is_ok_and(|boxes| boxes.contains_key(box_name))
    }

    async fn introduced(&self, endpoint: &EndpointName, box_name: &str, probed: Probed) {
        let Probed {
            object_info,
            facts,
            told,
        } = probed;
        let kept: Result<(), Error> = async {
            self.learn_object_info(endpoint, box_name, object_info).await?;
            self.learn_facts(endpoint, facts).await
        }
        .await;
        if let Err(error) = kept {
            tracing::warn!(endpoint.name = %endpoint, box_name, error = ?error, "what it told could not be kept");
        }
        tracing::info!(
            endpoint.name = %endpoint,
            box_name,
            version = text(&told["version"]),
            pytorch = text(&told["pytorch"]),
            devices = names(&told["devices"]),
            nodes = told["nodes"].as_u64(),
            models = %told["models"],
            tested_ms = told["tested_ms"].as_u64(),
            "ComfyUI found: a tiny graph ran there"
        );
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn names(devices: &Value) -> String {
    let devices = devices.as_array().into_iter().flatten();
    let names: Vec<&str> = devices.map(|device| text(&device["name"])).collect();
    names.join(", ")
}
