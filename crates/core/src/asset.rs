//! What files are called that callers brought or jobs made: by what they hold, and by id.

use std::{fmt, str::FromStr};

use crate::{
    JobId,
    id::{AssetId, Error},
    name::shorten,
};

/// A hash of 256 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of these bytes, which a hash function made.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }

    /// From 64 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Digest(bytes))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What bytes are known by: `blake3:<64 hex>` or `sha256:<64 hex>` (`protocols/comfy-v2.md` §6 has the first only).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentHash {
    /// BLAKE3.
    Blake3(Digest),
    /// SHA-256.
    Sha256(Digest),
}

/// A text that is no hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no hash: it is 'blake3:' or 'sha256:' and 64 hexadecimal digits")]
pub struct NoHash(String);

impl FromStr for ContentHash {
    type Err = NoHash;
    fn from_str(text: &str) -> Result<Self, NoHash> {
        let bad = || NoHash(shorten(text));
        let (kind, hex) = text.split_once(':').ok_or_else(bad)?;
        let digest = Digest::from_hex(hex).ok_or_else(bad)?;
        match kind.to_ascii_lowercase().as_str() {
            "blake3" => Ok(ContentHash::Blake3(digest)),
            "sha256" => Ok(ContentHash::Sha256(digest)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ContentHash::Blake3(digest) => write!(f, "blake3:{digest}"),
            ContentHash::Sha256(digest) => write!(f, "sha256:{digest}"),
        }
    }
}

/// A file that can be asked for by id: `<uuid>` for one that was brought, `<job>.<position>` for one that a job made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AssetRef {
    /// A caller brought it.
    Brought(AssetId),
    /// A job made it: its place among the job's outputs, from 0.
    Made {
        /// The job.
        job: JobId,
        /// The place.
        position: u32,
    },
}

impl FromStr for AssetRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let Some((job, position)) = text.split_once('.') else {
            return text.parse().map(AssetRef::Brought);
        };
        let digits = position.bytes().all(|b| b.is_ascii_digit());
        // One spelling, one id.
        let spelled = digits && (position == "0" || !position.starts_with('0'));
        let bad = || Error::NotAnId(shorten(text), "asset");
        let position = position.parse().ok().filter(|_| spelled).ok_or_else(bad)?;
        let job = job.parse().map_err(|_| bad())?;
        Ok(AssetRef::Made { job, position })
    }
}

impl fmt::Display for AssetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AssetRef::Brought(id) => id.fmt(f),
            AssetRef::Made { job, position } => write!(f, "{job}.{position}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn hashes_have_a_name_and_either_case() {
        let hex = "ab".repeat(32);
        let hash: ContentHash = format!("BLAKE3:{}", hex.to_uppercase()).parse().unwrap();
        assert_eq!(hash.to_string(), format!("blake3:{hex}"));
        let other: ContentHash = format!("sha256:{hex}").parse().unwrap();
        assert_ne!(hash, other);
        let short = format!("blake3:{}", &hex[1..]);
        let umlauts = format!("blake3:{}", "ü".repeat(32));
        for bad in ["", "blake3:", &hex, &short, &umlauts, "md5:00"] {
            assert!(bad.parse::<ContentHash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_have_one_spelling() {
        let id = "01998f2e-7e2f-7c3a-8a52-3f1d7a1b2c3d";
        for good in [id.to_owned(), format!("{id}.0"), format!("{id}.12")] {
            assert_eq!(good.parse::<AssetRef>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            ".",
            "x",
            "x.0",
            &format!("{id}."),
            &format!("{id}.01"),
            &format!("{id}.+1"),
        ] {
            assert!(bad.parse::<AssetRef>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id in any::<u128>(), position in any::<u32>(), bytes in any::<[u8; 32]>()) {
            let job = JobId::from_uuid(Uuid::from_u128(id));
            for asset in [AssetRef::Made { job, position }, AssetRef::Brought(AssetId::from_uuid(Uuid::from_u128(id)))] {
                prop_assert_eq!(asset.to_string().parse(), Ok(asset));
            }
            let digest = Digest::new(bytes);
            prop_assert_eq!(Digest::from_hex(&digest.to_string()), Some(digest));
        }
    }
}
