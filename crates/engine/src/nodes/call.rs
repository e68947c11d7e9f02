//! What a node function gets and gives.

use std::sync::{Arc, OnceLock};

use darkroom_comfy::graph::Graph;
use darkroom_core::{Clock, Ids};
use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use crate::{
    exec::{Lists, Raised},
    files::Directories,
    pixels::encode::Bytes8,
    value::{Image, Latent, Mask, Operation, Value},
};

/// The inputs of one call by name; links are already resolved.
pub type Inputs = IndexMap<String, Value>;

/// What nodes need from the machine they run on.
pub struct Host {
    /// Where files are.
    pub directories: Directories,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Random ids.
    pub ids: Arc<dyn Ids>,
    /// False: images are saved without the graph in them.
    pub embed_metadata: bool,
}

/// Lives as long as a node of this id and class is in the graphs that run, like the Python object of the original.
#[derive(Debug, Default)]
pub struct NodeObject {
    suffix: OnceLock<String>,
}

/// How a running node reports, and learns that it should stop.
pub trait Progress {
    /// Reports step `value` of `max`, with a picture if there is one. Ends the node if the prompt was interrupted.
    fn update(&self, value: u64, max: u64, preview: Option<Preview<'_>>) -> Result<(), Raised>;
    /// Shows a line of text on the node.
    fn text(&self, text: &str);
    /// Reports step `value` of `max` without looking for an interrupt.
    fn report(&self, value: u64, max: u64);
    /// Ends the node if the prompt was interrupted.
    fn check(&self) -> Result<(), Raised>;
}

/// A picture that goes to the client while the node runs, and how it is encoded.
#[derive(Clone, Copy)]
pub enum Preview<'a> {
    /// A preview: JPEG.
    Jpeg(&'a Bytes8),
    /// A result: PNG, so that nothing is lost.
    Png(&'a Bytes8),
}

/// One call of a node function.
pub struct Call<'a> {
    /// The node's id.
    pub node: &'a str,
    /// Its inputs.
    pub inputs: &'a Inputs,
    /// All values of every input; more than one where a source gave a list.
    pub lists: &'a Lists,
    /// The whole graph, as it is embedded in saved images.
    pub graph: &'a Graph,
    /// `extra_data` of the prompt.
    pub extra_data: &'a Map<String, Json>,
    /// The machine.
    pub host: &'a Host,
    /// Reports and interrupts.
    pub progress: &'a dyn Progress,
    /// What the node keeps between prompts.
    pub object: &'a NodeObject,
}

/// A node's result: the values of each output slot, and what the web page shows.
#[derive(Debug, Default)]
pub struct Output {
    /// In the order of the class's outputs; one value each, or any number where the class declares a list.
    pub values: Vec<Vec<Value>>,
    /// Kind (`images`, `text`) to a list; `None` for nodes that show nothing.
    pub ui: Option<Map<String, Json>>,
}

impl Host {
    /// The wall clock in the machine's time zone, for the date in a file name.
    pub fn local_time(&self) -> jiff::Zoned {
        let now = jiff::Timestamp::from_microsecond(self.clock.now().as_micros()).unwrap_or_default();
        now.to_zoned(jiff::tz::TimeZone::system())
    }
}

impl Output {
    /// Values without anything to show.
    pub fn values(values: impl IntoIterator<Item = Value>) -> Output {
        Output {
            values: values.into_iter().map(|value| vec![value]).collect(),
            ui: None,
        }
    }

    /// One slot with a list: what follows runs once for each item.
    pub fn list(values: Vec<Value>) -> Output {
        Output {
            values: vec![values],
            ui: None,
        }
    }

    /// One value.
    pub fn one(value: impl Into<Value>) -> Output {
        Output::values([value.into()])
    }

    /// A list to show under `kind`.
    pub fn ui(kind: &str, items: Vec<Json>) -> Output {
        Output {
            values: Vec::new(),
            ui: Some(Map::from_iter([(kind.to_owned(), Json::Array(items))])),
        }
    }
}

impl NodeObject {
    /// Five letters, fixed for the life of the object.
    pub fn suffix(&self, ids: &dyn Ids) -> &str {
        // The alphabet of the original, typo included.
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstupvxyz";
        self.suffix.get_or_init(|| {
            let mut random = [0; 5];
            ids.fill(&mut random);
            random
                .iter()
                .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
                .collect()
        })
    }
}

impl Call<'_> {
    /// An `IMAGE` input.
    pub fn image(&self, name: &str) -> Result<&Arc<Image>, Raised> {
        image(name, self.inputs.get(name))
    }

    /// A `MASK` input.
    pub fn mask(&self, name: &str) -> Result<&Arc<Mask>, Raised> {
        match self.inputs.get(name) {
            Some(Value::Mask(mask)) => Ok(mask),
            other => Err(mistyped(name, "MASK", other)),
        }
    }

    /// A `LATENT` input.
    pub fn latent(&self, name: &str) -> Result<&Arc<Latent>, Raised> {
        latent(name, self.inputs.get(name))
    }

    /// A `LATENT` input with all the latents of its list, for classes that take lists.
    pub fn latents(&self, name: &str) -> Result<Vec<&Arc<Latent>>, Raised> {
        self.listed(name)
            .iter()
            .map(|value| latent(name, Some(value)))
            .collect()
    }

    /// An `IMAGE` input with all the images of its list, for classes that take lists.
    pub fn images(&self, name: &str) -> Result<Vec<&Arc<Image>>, Raised> {
        let values = self.listed(name).iter();
        values.map(|value| image(name, Some(value))).collect()
    }

    fn listed(&self, name: &str) -> &[Value] {
        self.lists.get(name).map_or(&[], Vec::as_slice)
    }

    /// A `LATENT_OPERATION` input.
    pub fn operation(&self, name: &str) -> Result<&Operation, Raised> {
        match self.inputs.get(name) {
            Some(Value::Operation(operation)) => Ok(operation),
            other => Err(mistyped(name, "LATENT_OPERATION", other)),
        }
    }

    /// A `BOOLEAN` input.
    pub fn flag(&self, name: &str) -> Result<bool, Raised> {
        match self.inputs.get(name) {
            Some(Value::Json(Json::Bool(flag))) => Ok(*flag),
            other => Err(mistyped(name, "BOOLEAN", other)),
        }
    }

    /// A `STRING` or combo input.
    pub fn text(&self, name: &str) -> Result<&str, Raised> {
        match self.inputs.get(name) {
            Some(Value::Json(Json::String(text))) => Ok(text),
            other => Err(mistyped(name, "STRING", other)),
        }
    }

    /// An `INT` input.
    pub fn int(&self, name: &str) -> Result<i64, Raised> {
        match self.inputs.get(name) {
            Some(Value::Json(json)) if json.is_i64() => Ok(json.as_i64().unwrap_or_default()),
            other => Err(mistyped(name, "INT", other)),
        }
    }

    /// An `INT` input that is a size or a position.
    pub fn size(&self, name: &str) -> Result<usize, Raised> {
        usize::try_from(self.int(name)?)
            .map_err(|_| Raised::new("ValueError", format!("{name} must not be negative")))
    }

    /// A `FLOAT` input.
    pub fn float(&self, name: &str) -> Result<f64, Raised> {
        match self.inputs.get(name) {
            Some(Value::Json(Json::Number(number))) => Ok(number.as_f64().unwrap_or_default()),
            other => Err(mistyped(name, "FLOAT", other)),
        }
    }

    /// Any input.
    pub fn any(&self, name: &str) -> Option<&Value> {
        self.inputs.get(name)
    }
}

fn image<'v>(name: &str, value: Option<&'v Value>) -> Result<&'v Arc<Image>, Raised> {
    match value {
        Some(Value::Image(image)) => Ok(image),
        other => Err(mistyped(name, "IMAGE", other)),
    }
}

fn latent<'v>(name: &str, value: Option<&'v Value>) -> Result<&'v Arc<Latent>, Raised> {
    match value {
        Some(Value::Latent(latent)) => Ok(latent),
        other => Err(mistyped(name, "LATENT", other)),
    }
}

/// Validation lets a plain text through where an image is expected; the node finds out.
fn mistyped(name: &str, wanted: &str, found: Option<&Value>) -> Raised {
    let found = match found {
        None => return Raised::new("TypeError", format!("missing required input '{name}'")),
        Some(Value::Image(_)) => "an IMAGE",
        Some(Value::Mask(_)) => "a MASK",
        Some(Value::Latent(_)) => "a LATENT",
        Some(Value::Operation(_)) => "a LATENT_OPERATION",
        Some(Value::Json(Json::String(_))) => "a text",
        Some(Value::Json(_)) => "a plain value",
    };
    Raised::new(
        "TypeError",
        format!("input '{name}' must be {wanted}, not {found}"),
    )
}

/// Reports to nobody and is never interrupted.
#[cfg(test)]
pub struct Silent;

#[cfg(test)]
impl Progress for Silent {
    fn update(&self, _: u64, _: u64, _: Option<Preview<'_>>) -> Result<(), Raised> {
        Ok(())
    }
    fn text(&self, _: &str) {}
    fn report(&self, _: u64, _: u64) {}
    fn check(&self) -> Result<(), Raised> {
        Ok(())
    }
}
