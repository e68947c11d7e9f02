//! What a graph needs of the box it runs on, and what a box offers: unequal boxes have other node packs and other models.
//!
//! A box is what an instance runs on as far as its abilities go: a ComfyUI installation, or one remote server. What it
//! offers is learned from its `/object_info`; what a graph needs is written down when the job is accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that a graph needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Need {
    /// A node class.
    Class(String),
    /// A choice of an input: class, input, and the value that must be on offer (a model's file name, a sampler).
    Choice(String, String, String),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Class(class) => write!(f, "node class '{class}'"),
            Need::Choice(class, input, value) => write!(f, "'{value}' ({class}.{input})"),
        }
    }
}

/// All that a graph needs; nothing where that is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Needs(pub BTreeSet<Need>);

impl Needs {
    /// Whether nothing is needed, or nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The choices of one class by input; an input that is not here takes any value.
type Inputs = BTreeMap<String, BTreeSet<String>>;

/// What a box offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offers {
    classes: BTreeMap<String, Inputs>,
}

impl Offers {
    /// Adds a class that offers any value at every input.
    pub fn add_class(&mut self, class: &str) {
        self.classes.entry(class.to_owned()).or_default();
    }

    /// Adds an input of a class that takes these values only.
    pub fn add_choices(&mut self, class: &str, input: &str, values: impl IntoIterator<Item = String>) {
        let inputs = self.classes.entry(class.to_owned()).or_default();
        inputs.entry(input.to_owned()).or_default().extend(values);
    }

    /// Whether it has this one thing.
    pub fn has(&self, need: &Need) -> bool {
        match need {
            Need::Class(class) => self.classes.contains_key(class),
            Need::Choice(class, input, value) => self
                .classes
                .get(class)
                .is_some_and(|inputs| inputs.get(input).is_none_or(|values| values.contains(value))),
        }
    }

    /// Whether it has all that is needed.
    pub fn meets(&self, needs: &Needs) -> bool {
        needs.0.iter().all(|need| self.has(need))
    }

    /// What it lacks, in the order of needs; a choice of a class that is missing as a whole is not named again.
    pub fn lacks<'a>(&self, needs: &'a Needs) -> Vec<&'a Need> {
        let lacks = |need: &&Need| match need {
            Need::Class(_) => !self.has(need),
            Need::Choice(class, ..) => self.classes.contains_key(class) && !self.has(need),
        };
        needs.0.iter().filter(lacks).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choice(value: &str) -> Need {
        Need::Choice("Loader".into(), "ckpt".into(), value.into())
    }

    fn sdxl_box() -> Offers {
        let mut offers = Offers::default();
        offers.add_class("SaveImage");
        offers.add_choices("Loader", "ckpt", ["sdxl".to_owned()]);
        offers
    }

    #[test]
    fn a_box_meets_what_it_has_and_names_what_it_lacks() {
        let offers = sdxl_box();
        let needs = |all: &[Need]| Needs(all.iter().cloned().collect());
        let save = Need::Class("SaveImage".into());
        let odd = Need::Class("Odd".into());
        assert!(offers.meets(&needs(&[save.clone(), choice("sdxl")])));
        // An input that takes any value there is no obstacle.
        assert!(offers.has(&Need::Choice("SaveImage".into(), "mode".into(), "x".into())));
        let wanted = needs(&[
            odd.clone(),
            choice("flux"),
            Need::Choice("Odd".into(), "a".into(), "b".into()),
        ]);
        assert!(!offers.meets(&wanted));
        assert_eq!(offers.lacks(&wanted), [&odd, &choice("flux")]);
        assert_eq!(odd.to_string(), "node class 'Odd'");
        assert_eq!(choice("flux").to_string(), "'flux' (Loader.ckpt)");
    }

    #[test]
    fn needs_are_written_briefly_and_read_back() {
        let needs = Needs([Need::Class("A".into()), choice("x")].into());
        let text = serde_json::to_string(&needs).unwrap();
        assert_eq!(text, r#"["A",["Loader","ckpt","x"]]"#);
        assert_eq!(serde_json::from_str::<Needs>(&text).unwrap(), needs);
        assert!(serde_json::from_str::<Needs>("[]").unwrap().is_empty());
    }

    fn need() -> impl Strategy<Value = Need> {
        let name = || "[ab]";
        prop_oneof![
            name().prop_map(Need::Class),
            (name(), name(), name()).prop_map(|(c, i, v)| Need::Choice(c, i, v)),
        ]
    }

    proptest! {
        /// Meeting is lacking nothing, whatever was offered; and offering more classes never loses one.
        #[test]
        fn meeting_is_lacking_nothing(
            offered in proptest::collection::vec(need(), 0..6),
            needed in proptest::collection::btree_set(need(), 0..6),
        ) {
            let mut offers = Offers::default();
            for one in &offered {
                match one {
                    Need::Class(class) => offers.add_class(class),
                    Need::Choice(c, i, v) => offers.add_choices(c, i, [v.clone()]),
                }
            }
            prop_assert!(offered.iter().all(|one| offers.has(one)));
            // What a graph chooses, it needs the class of.
            let classes = needed.iter().map(|need| match need {
                Need::Class(class) | Need::Choice(class, ..) => Need::Class(class.clone()),
            });
            let needs = Needs(classes.chain(needed.iter().cloned()).collect());
            prop_assert_eq!(offers.meets(&needs), offers.lacks(&needs).is_empty());
        }
    }
}
