//! Which node classes exist, what they declare, and the function behind each.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use darkroom_comfy::{
    graph::validate::{InputChecks, Literals, Refusal},
    object_info::{InputKind, InputSpec, NodeClass, ObjectInfo},
};
use serde_json::Value as Json;

use crate::{
    exec::Raised,
    files::Directories,
    nodes::{
        self, Run,
        call::{Call, Inputs},
    },
};

/// `IS_CHANGED`: a text that is equal as long as the result may be reused; `None`: never reuse.
pub type Fingerprint = fn(&Inputs, &Directories) -> Option<String>;
/// `VALIDATE_INPUTS`: judges the literal inputs; the refusals are shown to the user.
pub type Check = fn(&Literals<'_>, &Directories) -> Vec<Refusal>;

/// One class: its name, its function, and the hooks it has.
#[derive(Clone, Copy)]
pub struct NodeKind {
    /// The class name.
    pub name: &'static str,
    /// The function.
    pub run: Run,
    /// Whether the result depends on more than the inputs.
    pub fingerprint: Option<Fingerprint>,
    /// The class's own validator, and the inputs it takes (which are then not checked against lists and limits).
    pub check: Option<(&'static [&'static str], Check)>,
    /// Whether one call takes whole lists (`INPUT_IS_LIST`); other classes are called once for each item.
    pub takes_lists: bool,
}

impl NodeKind {
    /// A class without hooks.
    pub const fn new(name: &'static str, run: Run) -> NodeKind {
        NodeKind {
            name,
            run,
            fingerprint: None,
            check: None,
            takes_lists: false,
        }
    }

    /// With `IS_CHANGED`.
    pub const fn changes(self, fingerprint: Fingerprint) -> NodeKind {
        NodeKind {
            fingerprint: Some(fingerprint),
            ..self
        }
    }

    /// With `INPUT_IS_LIST`.
    pub const fn takes_lists(self) -> NodeKind {
        NodeKind {
            takes_lists: true,
            ..self
        }
    }

    /// With `VALIDATE_INPUTS`.
    pub const fn checks(self, inputs: &'static [&'static str], check: Check) -> NodeKind {
        NodeKind {
            check: Some((inputs, check)),
            ..self
        }
    }
}

/// The classes of one engine.
pub struct Registry {
    test_nodes: bool,
    kinds: HashMap<&'static str, NodeKind>,
    info: OnceLock<Arc<ObjectInfo>>,
}

impl Registry {
    /// The built-in classes, and the test classes if asked for. Cheap: schemas are parsed on first use.
    pub fn new(test_nodes: bool) -> Registry {
        let test: &[NodeKind] = if test_nodes { nodes::TEST_TABLE } else { &[] };
        let kinds = nodes::FAMILIES
            .iter()
            .copied()
            .chain([test])
            .flatten()
            .map(|kind| (kind.name, *kind))
            .collect();
        Registry {
            test_nodes,
            kinds,
            info: OnceLock::new(),
        }
    }

    /// The class of this name.
    pub fn kind(&self, class_type: &str) -> Option<&NodeKind> {
        self.kinds.get(class_type)
    }

    /// What all classes declare. File pickers are empty here: validation asks the file system.
    pub fn info(&self) -> &Arc<ObjectInfo> {
        self.info.get_or_init(|| {
            let test: &[&str] = if self.test_nodes {
                &[nodes::TEST_SCHEMA]
            } else {
                &[]
            };
            let mut all = ObjectInfo::default();
            for text in nodes::SCHEMAS.iter().chain(test) {
                let info: ObjectInfo =
                    serde_json::from_str(text).expect("schemas are compiled in and tested");
                all.classes.extend(info.classes);
            }
            Arc::new(all)
        })
    }

    /// The declaration of one class with file pickers filled in, as `/object_info` shows it.
    pub fn describe(&self, class_type: &str, files: &[String]) -> Option<NodeClass> {
        let mut class = self.info().get(class_type)?.clone();
        for spec in class.input.values_mut().flat_map(|section| section.values_mut()) {
            // A combo without a list gets its files from the route it names.
            if spec.is_file_picker() && matches!(spec.kind, InputKind::Choices(_)) {
                spec.kind = InputKind::Choices(files.iter().cloned().map(Json::from).collect());
            }
        }
        Some(class)
    }
}

/// The classes' own validators, as validation of a graph asks them.
pub struct Checks<'a> {
    /// The classes.
    pub registry: &'a Registry,
    /// Where the files are that they look for.
    pub directories: &'a Directories,
}

impl Checks<'_> {
    fn of(&self, class_type: &str) -> Option<(&'static [&'static str], Check)> {
        self.registry.kind(class_type)?.check
    }
}

impl InputChecks for Checks<'_> {
    fn covers(&self, class_type: &str, input: &str, _spec: &InputSpec) -> bool {
        self.of(class_type)
            .is_some_and(|(inputs, _)| inputs.contains(&input))
    }

    fn check(&self, class_type: &str, literals: &Literals<'_>) -> Vec<Refusal> {
        self.of(class_type)
            .map(|(_, check)| check(literals, self.directories))
            .unwrap_or_default()
    }
}

/// The path of a file a loader names, if it is inside the instance's directories and exists.
pub fn existing_file(name: &str, directories: &Directories) -> Option<PathBuf> {
    directories.annotated(name).filter(|path| path.is_file())
}

/// Runs a class's function; a panic in it is a failure of the node and not the end of the worker.
pub fn run(kind: &NodeKind, call: &Call<'_>) -> Result<nodes::call::Output, Raised> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (kind.run)(call)));
    outcome.unwrap_or_else(|_| {
        Err(Raised::new(
            "RuntimeError",
            format!("internal error in node class {}", kind.name),
        ))
    })
}
