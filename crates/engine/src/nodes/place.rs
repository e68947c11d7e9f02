//! Where one picture lies on another along one side, by the rules of Python's slices.

use std::ops::Range;

use crate::exec::Raised;

/// The part of a side that is covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Positions below; they show the same number of positions of what lies over them, from its first.
    pub target: Range<usize>,
}

impl Place {
    /// `visible` positions of what is laid over `target`; torch refuses two lengths that differ, unless one position is
    /// spread over none. `dimension` names the side in the message.
    pub fn new(target: Range<usize>, visible: usize, dimension: usize) -> Result<Place, Raised> {
        if visible == target.len() || visible == 1 && target.is_empty() {
            return Ok(Place { target });
        }
        Err(Raised::new(
            "RuntimeError",
            format!(
                "The size of tensor a ({visible}) must match the size of tensor b ({}) at non-singleton dimension {dimension}",
                target.len()
            ),
        ))
    }

    /// Which position of what is laid over shows at this one below.
    pub fn source(&self, at: usize) -> Option<usize> {
        self.target.contains(&at).then(|| at - self.target.start)
    }
}
