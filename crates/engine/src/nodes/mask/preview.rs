//! `MaskPreview`

use crate::{
    exec::Raised,
    files::Folder,
    nodes::{
        call::{Call, Output},
        save,
    },
};

use super::convert;

/// `MaskPreview`: the mask as grey PNGs in the temporary directory, packed as saved images are.
pub fn preview(call: &Call<'_>) -> Result<Output, Raised> {
    let grey = convert::grey(call.mask("mask")?)?;
    let suffix = call.object.suffix(&*call.host.ids);
    save::save(
        call,
        &grey,
        Folder::Temp,
        &format!("ComfyUI_temp_{suffix}"),
        save::SAVE_LEVEL,
    )
}
