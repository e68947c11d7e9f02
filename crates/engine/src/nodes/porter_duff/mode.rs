//! The modes of compositing: Porter's and Duff's operators, and the blends that are defined on alpha likewise.
//!
//! Colours are premultiplied by alpha. The order of the operations is torch's in the original: 32-bit floats show it.

/// What of source and destination is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Both, added up.
    Add,
    /// Nothing.
    Clear,
    /// Both, the darker where they meet.
    Darken,
    /// The destination.
    Dst,
    /// The destination within the source, and the source around it.
    DstAtop,
    /// The destination within the source.
    DstIn,
    /// The destination without the source.
    DstOut,
    /// The destination over the source.
    DstOver,
    /// Both, the lighter where they meet.
    Lighten,
    /// The product, where both are.
    Multiply,
    /// Product or screen by the destination.
    Overlay,
    /// Both, light added to light.
    Screen,
    /// The source.
    Src,
    /// The source within the destination, and the destination around it.
    SrcAtop,
    /// The source within the destination.
    SrcIn,
    /// The source without the destination.
    SrcOut,
    /// The source over the destination.
    SrcOver,
    /// Each without the other.
    Xor,
}

impl Mode {
    /// The mode a widget names.
    pub fn parse(name: &str) -> Option<Mode> {
        Some(match name {
            "ADD" => Mode::Add,
            "CLEAR" => Mode::Clear,
            "DARKEN" => Mode::Darken,
            "DST" => Mode::Dst,
            "DST_ATOP" => Mode::DstAtop,
            "DST_IN" => Mode::DstIn,
            "DST_OUT" => Mode::DstOut,
            "DST_OVER" => Mode::DstOver,
            "LIGHTEN" => Mode::Lighten,
            "MULTIPLY" => Mode::Multiply,
            "OVERLAY" => Mode::Overlay,
            "SCREEN" => Mode::Screen,
            "SRC" => Mode::Src,
            "SRC_ATOP" => Mode::SrcAtop,
            "SRC_IN" => Mode::SrcIn,
            "SRC_OUT" => Mode::SrcOut,
            "SRC_OVER" => Mode::SrcOver,
            "XOR" => Mode::Xor,
            _ => return None,
        })
    }

    /// The alpha of the result, from those of source and destination.
    pub fn alpha(self, s: f32, d: f32) -> f32 {
        match self {
            Mode::Add => (s + d).clamp(0.0, 1.0),
            Mode::Clear => 0.0,
            Mode::Darken | Mode::Lighten | Mode::Overlay | Mode::Screen => s + d - s * d,
            Mode::Dst | Mode::SrcAtop => d,
            Mode::Src | Mode::DstAtop => s,
            Mode::DstIn | Mode::SrcIn | Mode::Multiply => s * d,
            Mode::DstOut => (1.0 - s) * d,
            Mode::SrcOut => (1.0 - d) * s,
            Mode::DstOver => d + (1.0 - d) * s,
            Mode::SrcOver => s + (1.0 - s) * d,
            Mode::Xor => (1.0 - d) * s + (1.0 - s) * d,
        }
    }

    /// A sample of the result, premultiplied, from those of source and destination and their alphas.
    pub fn color(self, s: f32, d: f32, sa: f32, da: f32) -> f32 {
        match self {
            Mode::Add => (s + d).clamp(0.0, 1.0),
            Mode::Clear => 0.0,
            Mode::Darken => (1.0 - da) * s + (1.0 - sa) * d + s.min(d),
            Mode::Lighten => (1.0 - da) * s + (1.0 - sa) * d + s.max(d),
            Mode::Dst => d,
            Mode::DstAtop => sa * d + (1.0 - da) * s,
            Mode::DstIn => d * sa,
            Mode::DstOut => (1.0 - sa) * d,
            Mode::DstOver => d + (1.0 - da) * s,
            Mode::Multiply => s * d,
            Mode::Overlay if 2.0 * d < da => 2.0 * s * d,
            Mode::Overlay => sa * da - 2.0 * (da - s) * (sa - d),
            Mode::Screen => s + d - s * d,
            Mode::Src => s,
            Mode::SrcAtop => da * s + (1.0 - sa) * d,
            Mode::SrcIn => s * da,
            Mode::SrcOut => (1.0 - da) * s,
            Mode::SrcOver => s + (1.0 - sa) * d,
            Mode::Xor => (1.0 - da) * s + (1.0 - sa) * d,
        }
    }
}
