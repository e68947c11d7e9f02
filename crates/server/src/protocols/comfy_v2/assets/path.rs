//! Where a file may be put: into the input directory, and nowhere else (`protocols/comfy-v2.md` §6).

/// First parts of paths that mean the folders of models.
const MODELS: &[&str] = &[
    "audio_encoders",
    "background_removal",
    "checkpoints",
    "classifiers",
    "clip_vision",
    "controlnet",
    "diffusers",
    "diffusion_models",
    "embeddings",
    "frame_interpolation",
    "geometry_estimation",
    "gligen",
    "hypernetworks",
    "latent_upscale_models",
    "loras",
    "model_patches",
    "models",
    "optical_flow",
    "photomaker",
    "style_models",
    "text_encoders",
    "upscale_models",
    "vae",
    "vae_approx",
];

/// Whether a file may have this path: a bare name, or one below `input/`. Its form is the service's to check.
///
/// # Errors
/// What is wrong with it.
pub fn check(path: &str) -> Result<(), String> {
    let Some((root, _)) = path.split_once('/') else {
        return Ok(());
    };
    if root == "input" {
        Ok(())
    } else if MODELS.contains(&root) {
        Err(format!(
            "file_path '{}': models belong to an installation; only a server that is co-located with one could put a \
             safetensors file there",
            short(path)
        ))
    } else {
        Err(format!(
            "file_path '{}' must be a bare name, or begin with 'input/'",
            short(path)
        ))
    }
}

fn short(path: &str) -> String {
    path.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_into_the_input_directory() {
        for good in ["a.png", "input/a.png", "input/b/c.png", "..", "图 片.png"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, word) in [
            ("models/checkpoints/x.safetensors", "co-located"),
            ("loras/x.safetensors", "safetensors"),
            ("output/a.png", "input/"),
            ("/a.png", "bare name"),
            ("../a.png", "bare name"),
        ] {
            assert!(check(bad).unwrap_err().contains(word), "{bad}");
        }
    }
}
