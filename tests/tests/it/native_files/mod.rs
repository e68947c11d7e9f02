//! The half of ComfyUI's own API that needs no queue: files, what instances told, what the page keeps.

mod page;
mod pages;
mod told;
mod uploads;

use darkroom_tests::{Api, http::Answer};
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::Value;

/// Uploads a picture with more fields of the form.
async fn upload(api: &Api, path: &str, name: &str, bytes: Vec<u8>, fields: &[(&str, &str)]) -> Answer {
    let part = Part::bytes(bytes).file_name(name.to_owned());
    let mut form = Form::new().percent_encode_noop().part("image", part);
    for (key, value) in fields {
        form = form.text((*key).to_owned(), (*value).to_owned());
    }
    api.send(api.request(Method::POST, path).multipart(form)).await
}

/// The name an upload got.
async fn uploaded(api: &Api, name: &str, bytes: Vec<u8>, fields: &[(&str, &str)]) -> Value {
    upload(api, "/upload/image", name, bytes, fields)
        .await
        .expect(200)
        .json()
}
