//! Calls of node functions in tests, without a server around them.

use std::{cell::Cell, sync::Arc};

use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_comfy::graph::Graph;
use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::call::{Call, Host, Inputs, NodeObject, Output, Preview, Progress};
use crate::{
    exec::{Lists, Raised},
    files::Directories,
    registry::{self, Registry},
    value::{Image, Mask, Value},
};

/// A call that is being put together.
pub struct Trial {
    class: &'static str,
    inputs: Inputs,
    interrupt_after: usize,
}

impl Trial {
    /// A call of this class.
    pub fn new(class: &'static str) -> Trial {
        Trial {
            class,
            inputs: Inputs::new(),
            interrupt_after: usize::MAX,
        }
    }

    pub fn input(mut self, name: &str, value: impl Into<Value>) -> Trial {
        self.inputs.insert(name.to_owned(), value.into());
        self
    }

    pub fn image(self, name: &str, image: &Image) -> Trial {
        self.input(name, image.clone())
    }

    pub fn text(self, name: &str, text: &str) -> Trial {
        self.input(name, Json::from(text))
    }

    pub fn int(self, name: &str, number: i64) -> Trial {
        self.input(name, Json::from(number))
    }

    pub fn float(self, name: &str, number: f64) -> Trial {
        self.input(name, json!(number))
    }

    pub fn flag(self, name: &str, flag: bool) -> Trial {
        self.input(name, Json::from(flag))
    }

    /// The prompt is interrupted when the node has looked for that this often.
    pub fn interrupted_after(mut self, looks: usize) -> Trial {
        self.interrupt_after = looks;
        self
    }

    pub fn run(self) -> Result<Output, Raised> {
        let directories = Directories {
            input: "no-input".into(),
            output: "no-output".into(),
            temp: "no-temp".into(),
            user: "no-user".into(),
        };
        let host = Host {
            directories,
            clock: Arc::new(SystemClock::new()),
            ids: Arc::new(SystemIds),
            embed_metadata: false,
        };
        let call = Call {
            node: "1",
            inputs: &self.inputs,
            lists: &Lists::default(),
            graph: &Graph::default(),
            extra_data: &Map::new(),
            host: &host,
            progress: &Quiet {
                looks_left: Cell::new(self.interrupt_after),
            },
            object: &NodeObject::default(),
        };
        let registry = Registry::new(false);
        registry::run(registry.kind(self.class).expect("a class that exists"), &call)
    }

    /// The values of the output slots, one each.
    pub fn results(self) -> Vec<Value> {
        let slots = self.run().unwrap().values;
        slots
            .into_iter()
            .map(|mut values| values.swap_remove(0))
            .collect()
    }

    /// The first result.
    pub fn image_result(self) -> Image {
        match self.results().swap_remove(0) {
            Value::Image(image) => Arc::unwrap_or_clone(image),
            other => panic!("not an image: {other:?}"),
        }
    }

    /// The second result of classes that give an image and a mask, otherwise the first.
    pub fn mask_result(self) -> Mask {
        match self.results().pop() {
            Some(Value::Mask(mask)) => Arc::unwrap_or_clone(mask),
            other => panic!("not a mask: {other:?}"),
        }
    }

    /// The name of the exception that the call ends with.
    pub fn exception(self) -> String {
        match self.run() {
            Err(Raised::Error { kind, .. }) => kind,
            Err(other) => format!("{other:?}"),
            Ok(_) => "none".to_owned(),
        }
    }
}

/// Nobody listens; interrupted after so many looks.
pub struct Quiet {
    looks_left: Cell<usize>,
}

impl Default for Quiet {
    fn default() -> Quiet {
        Quiet {
            looks_left: Cell::new(usize::MAX),
        }
    }
}

impl Progress for Quiet {
    fn update(&self, _: u64, _: u64, _: Option<Preview<'_>>) -> Result<(), Raised> {
        self.check()
    }

    fn text(&self, _: &str) {}

    fn report(&self, _: u64, _: u64) {}

    fn check(&self) -> Result<(), Raised> {
        match self.looks_left.get() {
            0 => Err(Raised::Interrupted),
            left => {
                self.looks_left.set(left - 1);
                Ok(())
            }
        }
    }
}

/// Small images as files give them: 1 or 2 frames, RGB or RGBA, samples that are bytes.
pub fn any_image() -> impl Strategy<Value = Image> {
    (1usize..3, 1usize..14, 1usize..14, 3usize..5).prop_flat_map(|(batch, height, width, channels)| {
        let samples = batch * height * width * channels;
        prop::collection::vec(any::<u8>(), samples).prop_map(move |bytes| Image {
            batch,
            height,
            width,
            channels,
            data: bytes.into_iter().map(crate::pixels::from_byte).collect(),
        })
    })
}

/// Noise of a given size that is the same in every run.
pub fn noise(batch: usize, (width, height): (usize, usize), channels: usize) -> Image {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        crate::pixels::from_byte((state >> 8) as u8)
    };
    let data = (0..batch * height * width * channels).map(|_| next()).collect();
    Image {
        batch,
        height,
        width,
        channels,
        data,
    }
}
