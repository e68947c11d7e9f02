//! Which models an endpoint has, read off what its boxes offer to choose from: so it is known with zero instances, and for
//! unequal boxes it is all of theirs.

use darkroom_comfy::object_info::ObjectInfo;
use darkroom_core::EndpointName;
use serde_json::Value;

use super::{Error, Service};

/// Where a folder's files are offered: folder, class, input.
const OFFERED: &[(&str, &str, &str)] = &[
    ("checkpoints", "CheckpointLoaderSimple", "ckpt_name"),
    ("loras", "LoraLoader", "lora_name"),
    ("vae", "VAELoader", "vae_name"),
    ("text_encoders", "CLIPLoader", "clip_name"),
    ("diffusion_models", "UNETLoader", "unet_name"),
    ("clip_vision", "CLIPVisionLoader", "clip_name"),
    ("style_models", "StyleModelLoader", "style_model_name"),
    ("controlnet", "ControlNetLoader", "control_net_name"),
    ("gligen", "GLIGENLoader", "gligen_name"),
    ("upscale_models", "UpscaleModelLoader", "model_name"),
    ("hypernetworks", "HypernetworkLoader", "hypernetwork_name"),
    ("photomaker", "PhotoMakerLoader", "photomaker_model_name"),
    ("model_patches", "ModelPatchLoader", "name"),
    ("audio_encoders", "AudioEncoderLoader", "audio_encoder_name"),
];

/// Folders that every ComfyUI has, in its order (`GET /models` of 0.3.64).
const FOLDERS: &[&str] = &[
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
];

/// A model's file, by its folder and its name there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelFile {
    /// `checkpoints`, `loras`.
    pub folder: String,
    /// Its name, with the directories below the folder.
    pub name: String,
}

impl ModelFile {
    /// `None` for a name that leaves its folder, or that no file with metadata has.
    pub fn new(folder: &str, name: &str) -> Option<Self> {
        let is_inside = |name: &str| {
            let parts = || name.split(['/', '\\']);
            name.len() <= 400 && !name.contains('\0') && parts().all(|part| !["", ".", ".."].contains(&part))
        };
        let is_one = is_inside(folder) && is_inside(name) && name.ends_with(".safetensors");
        is_one.then(|| ModelFile {
            folder: folder.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Choices of a VAE loader that are no files.
const NO_FILES: &[&str] = &["taesd", "taesdxl", "taesd3", "taef1", "pixel_space"];

impl Service {
    /// What a model's file says of itself, from an instance that runs, or from when one was asked; `None`: it says nothing, or
    /// nobody knows it now. Starts nothing.
    pub async fn model_metadata(&self, endpoint: &EndpointName, file: &ModelFile) -> Option<Value> {
        self.planner.get()?.model_metadata(endpoint, file).await
    }

    /// The folders of models: ComfyUI's, and those that custom nodes of the endpoint's boxes brought.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn model_folders(&self, endpoint: &EndpointName) -> Result<Vec<String>, Error> {
        let facts = self.facts(endpoint).await?;
        let mut folders: Vec<String> = FOLDERS.iter().map(|name| (*name).to_owned()).collect();
        folders.extend(
            facts
                .model_folders
                .iter()
                .filter(|name| !FOLDERS.contains(&name.as_str()))
                .cloned(),
        );
        Ok(folders)
    }

    /// The files of a folder; `None` when there is no such folder.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn models(&self, endpoint: &EndpointName, folder: &str) -> Result<Option<Vec<String>>, Error> {
        let facts = self.facts(endpoint).await?;
        if folder == "embeddings" {
            return Ok(Some(facts.embeddings.clone()));
        }
        if !self.model_folders(endpoint).await?.iter().any(|f| f == folder) {
            return Ok(None);
        }
        let told = facts.models.get(folder).cloned();
        let offered = self
            .object_info(endpoint)
            .await?
            .and_then(|info| offered(&info, folder));
        Ok(Some(offered.or(told).unwrap_or_default()))
    }
}

/// Whether `object_info` says which files a folder has, or embeddings of their own do.
pub fn is_offered_by_a_loader(folder: &str) -> bool {
    folder == "embeddings" || OFFERED.iter().any(|(of, ..)| *of == folder)
}

/// How many files each folder has, of those that have any.
pub fn counted(info: &ObjectInfo) -> std::collections::BTreeMap<&'static str, usize> {
    let folders = OFFERED.iter().map(|(folder, ..)| *folder);
    folders
        .filter_map(|folder| Some((folder, offered(info, folder)?.len())))
        .filter(|(_, count)| *count > 0)
        .collect()
}

/// What a folder's loader offers; `None` where the class is not known.
fn offered(info: &ObjectInfo, folder: &str) -> Option<Vec<String>> {
    let (_, class, input) = OFFERED.iter().find(|(of, ..)| *of == folder)?;
    let choices = info.get(class)?.input(input)?.choices()?;
    let names = choices.iter().filter_map(Value::as_str);
    Some(
        names
            .filter(|name| !NO_FILES.contains(name))
            .map(str::to_owned)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::ModelFile;
    use crate::service::testing::Bench;

    #[tokio::test]
    async fn models_are_what_loaders_offer() {
        let bench = Bench::new();
        let endpoint = bench.endpoint();
        let models = async |folder: &str| bench.service.models(&endpoint, folder).await.unwrap();
        assert_eq!(models("checkpoints").await, Some(vec![]), "nothing is known yet");
        bench
            .learn(include_bytes!("../../../comfy/tests/data/object_info.json").to_vec())
            .await;
        let checkpoints = vec!["sd15_tiny_random.safetensors".to_owned()];
        assert_eq!(models("checkpoints").await, Some(checkpoints));
        assert_eq!(models("vae").await, Some(vec![]));
        assert_eq!(models("configs").await, Some(vec![]));
        assert_eq!(models("nosuch").await, None);
        assert_eq!(bench.service.model_folders(&endpoint).await.unwrap().len(), 20);
    }

    #[test]
    fn files_of_models_stay_in_their_folders() {
        assert!(ModelFile::new("checkpoints", "sdxl/base.safetensors").is_some());
        for (folder, name) in [
            ("checkpoints", "../x.safetensors"),
            ("checkpoints", "a\\..\\x.safetensors"),
            ("checkpoints", "/etc/x.safetensors"),
            ("..", "x.safetensors"),
            ("checkpoints", "x.ckpt"),
            ("checkpoints", ""),
        ] {
            assert_eq!(ModelFile::new(folder, name), None, "{folder} {name}");
        }
    }
}
