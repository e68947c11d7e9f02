//! `/object_info`: what a graph can be made of, with file pickers as of now.

use axum::{
    Json,
    extract::{Path, State},
};
use darkroom_comfy::object_info::NodeClass;
use indexmap::IndexMap;

use super::Shared;

/// `GET /object_info`
pub async fn all(State(engine): Shared) -> Json<IndexMap<String, NodeClass>> {
    let files = engine.host.directories.input_files();
    let describe = |name: &String| Some((name.clone(), engine.registry.describe(name, &files)?));
    Json(
        engine
            .registry
            .info()
            .classes
            .keys()
            .filter_map(describe)
            .collect(),
    )
}

/// `GET /object_info/{class}`: an empty object for an unknown class.
pub async fn one(State(engine): Shared, Path(class): Path<String>) -> Json<IndexMap<String, NodeClass>> {
    let files = engine.host.directories.input_files();
    let described = engine.registry.describe(&class, &files);
    Json(described.map(|info| (class, info)).into_iter().collect())
}
