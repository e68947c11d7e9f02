//! `.latent` files.

use darkroom_comfy::graph::validate::{Literals, Refusal};
use serde_json::{Map, Value as Json, json};

use crate::{
    exec::Raised,
    files::{Directories, Folder, safetensors, save_name::SaveName},
    nodes::{
        call::{Call, Inputs, Output},
        load::{hash_of_file, missing_file},
        save::texts,
    },
    registry::existing_file,
    value::{Latent, Value},
};

/// Files written before the format had a version hold samples that are larger by this.
const OLD_SCALE: f64 = 0.18215;
const TENSOR: &str = "latent_tensor";
const VERSION: &str = "latent_format_version_0";

/// `SaveLatent`: the samples and the graph; a mask is not kept.
pub fn save(call: &Call<'_>) -> Result<Output, Raised> {
    let latent = call.latent("samples")?;
    let now = call.host.local_time();
    let base = call.host.directories.path(Folder::Output);
    let name = SaveName::choose(base, call.text("filename_prefix")?, 0, 0, &now)?;
    let metadata: Map<String, Json> = texts(call)
        .into_iter()
        .map(|(key, text)| (key, Json::from(text)))
        .collect();
    let file = name.single("latent");
    let bytes = safetensors::write(
        &[
            (VERSION, &[0], &[]),
            (TENSOR, &latent.samples.shape, &latent.samples.data),
        ],
        call.host.embed_metadata.then_some(metadata),
    );
    std::fs::write(name.directory.join(&file), bytes).map_err(|error| Raised::io(&error))?;
    let reported = json!({"filename": file, "subfolder": name.subfolder, "type": "output"});
    Ok(Output::ui("latents", vec![reported]))
}

/// `LoadLatent`
pub fn load(call: &Call<'_>) -> Result<Output, Raised> {
    let name = call.text("latent")?;
    let path = existing_file(name, &call.host.directories)
        .ok_or_else(|| Raised::new("FileNotFoundError", format!("no such file: '{name}'")))?;
    let file = safetensors::read(&path).map_err(|error| match error {
        safetensors::Error::Io(error) => Raised::io(&error),
        error => Raised::new("safetensors_rust.SafetensorError", format!("{error} '{name}'")),
    })?;
    let versioned = file.has(VERSION);
    let samples = file
        .tensor(TENSOR)
        .map_err(|error| Raised::new("safetensors_rust.SafetensorError", error.to_string()))?
        .ok_or_else(|| Raised::new("KeyError", format!("'{TENSOR}'")))?;
    let scale = if versioned { 1.0 } else { (1.0 / OLD_SCALE) as f32 };
    Ok(Output::one(Latent::new(samples.map(|x| x * scale))))
}

/// `IS_CHANGED`: SHA-256 of the file.
pub fn hash(inputs: &Inputs, directories: &Directories) -> Option<String> {
    match inputs.get("latent") {
        Some(Value::Json(Json::String(name))) => hash_of_file(name, directories),
        _ => None,
    }
}

/// `VALIDATE_INPUTS`
pub fn exists(literals: &Literals<'_>, directories: &Directories) -> Vec<Refusal> {
    missing_file(literals, directories, "latent", "Invalid latent file")
}
