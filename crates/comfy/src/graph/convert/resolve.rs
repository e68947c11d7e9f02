//! Where a link really comes from, past everything that only exists on the page.

use serde_json::Value;

use super::{
    read::{Mode, Origin, UiNode},
    scopes::{MAX_PARTS, ScopeId, Scopes},
    widgets,
};

/// Steps from one input to where it comes from; more is a circle.
const MAX_STEPS: usize = 1000;
/// Steps of a whole file, sockets that are looked through included: a hundred for each of its parts.
const MAX_WORK: usize = 100 * MAX_PARTS;

/// What feeds an input.
#[derive(Debug, PartialEq)]
pub(super) enum Resolved {
    /// An output of a node that runs (or is muted: then it is forgotten later).
    Output { id: String, slot: usize },
    /// A value of the page.
    Literal(Value),
}

/// Why nothing was found.
#[derive(Debug)]
pub(super) enum Lost {
    /// It came round to where it began.
    Circle,
    /// Too much was looked through.
    TooMuch,
}

/// All searches of one file.
pub(super) struct Resolver<'a> {
    scopes: &'a Scopes,
    steps: usize,
    work: usize,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(scopes: &'a Scopes) -> Self {
        Resolver {
            scopes,
            steps: 0,
            work: 0,
        }
    }

    /// What feeds an input of type `wanted` with this link; `None`: nothing.
    pub(super) fn resolve(
        &mut self,
        scope: ScopeId,
        link: i64,
        wanted: &str,
    ) -> Result<Option<Resolved>, Lost> {
        self.steps = 0;
        self.input(scope, link, wanted)
    }

    fn input(&mut self, scope: ScopeId, link: i64, wanted: &str) -> Result<Option<Resolved>, Lost> {
        match self.scopes.origin(scope, link) {
            Some(origin) => self.origin(scope, origin, wanted),
            None => Ok(None),
        }
    }

    fn work(&mut self, more: usize) -> Result<(), Lost> {
        self.work += more;
        match self.work > MAX_WORK {
            true => Err(Lost::TooMuch),
            false => Ok(()),
        }
    }

    fn origin(&mut self, scope: ScopeId, origin: &Origin, wanted: &str) -> Result<Option<Resolved>, Lost> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(Lost::Circle);
        }
        self.work(1)?;
        if let Some((around, instance)) = self.scopes.around(scope, &origin.node) {
            return self.given_around(around, instance, origin.slot);
        }
        let Some(node) = self.scopes.node(scope, &origin.node) else {
            return Ok(None);
        };
        if node.mode == Mode::Bypassed {
            return self.through(scope, node, origin.slot, wanted);
        }
        if let Some(inner) = self.scopes.inside(scope, &node.id) {
            return match self.scopes.output(inner, origin.slot) {
                Some(origin) => self.origin(inner, origin, wanted),
                None => Ok(None),
            };
        }
        match node.kind.as_str() {
            "Reroute" | "Reroute (rgthree)" | "SetNode" => self.first_input(scope, node, wanted),
            "PrimitiveNode" => Ok(widgets::first(node).map(Resolved::Literal)),
            "GetNode" => {
                let name = node.widgets_values[0].as_str();
                match name.and_then(|name| self.scopes.set_node(scope, name)) {
                    Some(set) => self.first_input(scope, set, wanted),
                    None => Ok(None),
                }
            }
            _ => Ok(Some(Resolved::Output {
                id: self.scopes.api_id(scope, &node.id),
                slot: origin.slot,
            })),
        }
    }

    fn first_input(&mut self, scope: ScopeId, node: &UiNode, wanted: &str) -> Result<Option<Resolved>, Lost> {
        match node.inputs.first().and_then(|input| input.link) {
            Some(link) => self.input(scope, link, wanted),
            None => Ok(None),
        }
    }

    /// An input of the subgraph: what its instance is given there, by a link or by a widget.
    fn given_around(
        &mut self,
        around: ScopeId,
        instance: &UiNode,
        slot: usize,
    ) -> Result<Option<Resolved>, Lost> {
        let Some(input) = instance.inputs.get(slot) else {
            return Ok(None);
        };
        self.work(slot)?;
        match input.link {
            Some(link) => self.input(around, link, &input.kind),
            None => Ok(widgets::of_instance(instance, slot).map(Resolved::Literal)),
        }
    }

    /// A bypassed node hands on an input of the type that is wanted: the one in the same place if it fits, else the first
    /// that does.
    fn through(
        &mut self,
        scope: ScopeId,
        node: &UiNode,
        slot: usize,
        wanted: &str,
    ) -> Result<Option<Resolved>, Lost> {
        self.work(node.inputs.len())?;
        let same_place = node.inputs.get(slot).filter(|input| input.kind == wanted);
        let first = || node.inputs.iter().find(|input| input.kind == wanted);
        match same_place.or_else(first) {
            Some(input) => match input.link {
                Some(link) => self.input(scope, link, &input.kind),
                None => Ok(None),
            },
            None => Ok(None),
        }
    }
}
