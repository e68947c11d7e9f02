//! Where a page of a list ended. Good only for the list that gave it: the same caller, endpoint and filters.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use darkroom_core::JobId;
use uuid::Uuid;

/// Enough to tell lists apart; nothing secret rests on it, as a cursor shows only what its caller may list anyway.
const MARK_BYTES: usize = 8;

/// A cursor after this job, in the list that `of` describes.
pub fn write(after: JobId, of: &str) -> String {
    let mut bytes = after.as_uuid().as_bytes().to_vec();
    bytes.extend_from_slice(&mark(after, of));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The job that a cursor of this list stands after; `None` for what is none.
pub fn read(cursor: &str, of: &str) -> Option<JobId> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (id, told) = bytes.split_at_checked(16)?;
    let after = JobId::from_uuid(Uuid::from_slice(id).ok()?);
    (told == mark(after, of)).then_some(after)
}

fn mark(after: JobId, of: &str) -> [u8; MARK_BYTES] {
    let hash = blake3::hash(format!("{after} {of}").as_bytes());
    let mut mark = [0; MARK_BYTES];
    mark.copy_from_slice(&hash.as_bytes()[..MARK_BYTES]);
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_list() {
        let job = JobId::from_uuid(Uuid::from_u128(7));
        let cursor = write(job, "a");
        assert_eq!(read(&cursor, "a"), Some(job));
        assert_eq!(read(&cursor, "b"), None);
        for wrong in ["", "x", "AAAA", "é", &cursor[1..], &format!("{cursor}A")] {
            assert_eq!(read(wrong, "a"), None, "{wrong}");
        }
    }
}
