//! Small graphs of weight-free nodes.

use std::path::Path;

use serde_json::{Value, json};

/// A plain picture of one colour (`0xRRGGBB`), saved. Different prefixes do not share a cache entry of the save.
pub fn plain(colour: u32, width: u32, height: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": height, "batch_size": 1, "color": colour}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "plain"}}
    })
}

/// A plain square of that side, scaled to another size and saved.
pub fn scaled(colour: u32, side: u32, width: u32, height: u32) -> Value {
    let mut graph = plain(colour, side, side);
    graph["2"] = json!({"class_type": "ImageScale", "inputs": {
        "image": ["1", 0], "upscale_method": "nearest-exact", "width": width, "height": height, "crop": "disabled"
    }});
    graph["9"]["inputs"]["images"] = json!(["2", 0]);
    graph
}

/// Loads `image` (a name, URL, data URI, base64), inverts it, saves it.
pub fn invert(image: &str) -> Value {
    json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": image}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "invert"}}
    })
}

/// A plain picture that passes through a node of the test engine, then is saved. `inputs` are the node's own;
/// `seed` makes it unlike every other run.
pub fn through(class: &str, inputs: Value, seed: &str, colour: u32) -> Value {
    let mut graph = plain(colour, 16, 16);
    let mut inputs = inputs;
    inputs["image"] = json!(["1", 0]);
    inputs["seed"] = json!(seed);
    graph["5"] = json!({"class_type": class, "inputs": inputs});
    graph["9"]["inputs"]["images"] = json!(["5", 0]);
    graph
}

/// Runs until a file is there, then saves a plain picture of 16 x 16.
pub fn until(path: &Path, seed: &str, colour: u32) -> Value {
    through("TestUntil", json!({"path": path}), seed, colour)
}

/// Sleeps that many seconds with progress, then saves a plain picture of 16 x 16.
pub fn sleep(seconds: f64, seed: &str, colour: u32) -> Value {
    through(
        "TestSleep",
        json!({"seconds": seconds, "steps": 10}),
        seed,
        colour,
    )
}
