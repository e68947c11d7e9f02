//! Classes for testing clients and servers; they exist only with `--test-nodes`.
//!
//! Every class takes an optional `image`, which it passes on, and an optional `seed` of any type that busts the cache.

use std::{sync::Arc, thread, time::Duration};

use darkroom_core::Clock;
use serde_json::{Value as Json, json};

use super::call::{Call, Output, Preview};
use crate::{
    exec::Raised,
    files::{Folder, inside},
    pixels::encode,
    registry::NodeKind,
    value::{Image, Value},
};

/// The test classes.
pub const TABLE: &[NodeKind] = &[
    NodeKind::new("TestSleep", sleep),
    NodeKind::new("TestSleepOutput", sleep_output),
    NodeKind::new("TestSilentSleep", silent_sleep),
    NodeKind::new("TestUntil", until),
    NodeKind::new("TestIgnoreInterrupt", ignore_interrupt),
    NodeKind::new("TestRaise", raise),
    NodeKind::new("TestOutOfMemory", out_of_memory),
    NodeKind::new("TestExit", exit),
    NodeKind::new("TestKillWorker", |_| Err(Raised::WorkerGone)),
    NodeKind::new("TestText", text),
    NodeKind::new("TestFile", file),
    NodeKind::new("TestPreview", preview),
    NodeKind::new("TestNeverCached", pass_on).changes(|_, _| None),
];

/// Their `/object_info` entries.
pub const SCHEMA: &str = include_str!("schemas/testing.json");

/// How often a sleeping node looks whether it should stop.
const TICK: Duration = Duration::from_millis(5);
/// How often a waiting one looks for its file.
const LOOK: Duration = Duration::from_millis(20);
const EXIT_DELAY: Duration = Duration::from_millis(100);
/// Side of the black image that stands in for a missing one.
const STAND_IN: usize = 8;

fn image(call: &Call<'_>) -> Arc<Image> {
    match call.any("image") {
        Some(Value::Image(image)) => Arc::clone(image),
        _ => {
            let data = vec![0.0; STAND_IN * STAND_IN * 3];
            Arc::new(Image {
                batch: 1,
                height: STAND_IN,
                width: STAND_IN,
                channels: 3,
                data,
            })
        }
    }
}

fn pass_on(call: &Call<'_>) -> Result<Output, Raised> {
    Ok(Output::one(Value::Image(image(call))))
}

fn seconds(call: &Call<'_>) -> Result<Duration, Raised> {
    Ok(Duration::from_secs_f64(call.float("seconds")?.clamp(0.0, 3600.0)))
}

/// Sleeps `steps` times, with what to do in each tick and after each step.
fn steps(
    call: &Call<'_>,
    tick: impl Fn() -> Result<(), Raised>,
    step: impl Fn(u64, u64) -> Result<(), Raised>,
) -> Result<Output, Raised> {
    let total = call.size("steps")?.max(1);
    let each = seconds(call)? / u32::try_from(total).unwrap_or(u32::MAX);
    for done in 1..=total {
        wait(&*call.host.clock, each, &tick)?;
        step(done as u64, total as u64)?;
    }
    pass_on(call)
}

fn wait(clock: &dyn Clock, time: Duration, tick: &impl Fn() -> Result<(), Raised>) -> Result<(), Raised> {
    let end = clock.monotonic() + time;
    loop {
        tick()?;
        let left = end.saturating_sub(clock.monotonic());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(TICK));
    }
}

fn sleep(call: &Call<'_>) -> Result<Output, Raised> {
    steps(
        call,
        || call.progress.check(),
        |value, max| call.progress.update(value, max, None),
    )
}

fn sleep_output(call: &Call<'_>) -> Result<Output, Raised> {
    let slept = sleep(call)?;
    Ok(Output {
        ui: Output::ui("text", vec![json!("slept")]).ui,
        ..slept
    })
}

fn silent_sleep(call: &Call<'_>) -> Result<Output, Raised> {
    wait(&*call.host.clock, seconds(call)?, &|| Ok(()))?;
    pass_on(call)
}

/// A run that a test ends when it has seen what it wants to see.
fn until(call: &Call<'_>) -> Result<Output, Raised> {
    let path = std::path::Path::new(call.text("path")?);
    while !path.exists() {
        wait(&*call.host.clock, LOOK, &|| call.progress.check())?;
    }
    pass_on(call)
}

fn ignore_interrupt(call: &Call<'_>) -> Result<Output, Raised> {
    steps(
        call,
        || Ok(()),
        |value, max| {
            call.progress.report(value, max);
            Ok(())
        },
    )
}

fn raise(call: &Call<'_>) -> Result<Output, Raised> {
    Err(Raised::new("ValueError", call.text("message")?))
}

fn out_of_memory(_: &Call<'_>) -> Result<Output, Raised> {
    Err(Raised::new(
        "torch.OutOfMemoryError",
        "simulated: the GPU is out of memory",
    ))
}

/// Waits a little by default: the submitter should have its answer before the process is gone.
fn exit(call: &Call<'_>) -> Result<Output, Raised> {
    let delay = call.any("seconds").map_or(Ok(EXIT_DELAY), |_| seconds(call))?;
    wait(&*call.host.clock, delay, &|| Ok(()))?;
    std::process::exit(call.int("code")? as i32)
}

fn text(call: &Call<'_>) -> Result<Output, Raised> {
    let text = Json::from(call.text("text")?);
    Ok(Output {
        ui: Output::ui("text", vec![text.clone()]).ui,
        ..Output::one(text)
    })
}

fn file(call: &Call<'_>) -> Result<Output, Raised> {
    let folder = Folder::parse(call.text("folder")?).unwrap_or(Folder::Output);
    let name = call.text("filename")?;
    let path = inside(call.host.directories.path(folder), name.as_ref())
        .ok_or_else(|| Raised::new("ValueError", format!("'{name}' is outside the folder")))?;
    let size = call.any("size").map_or(Ok(0), |_| call.size("size"))? as u64;
    let write = || -> std::io::Result<()> {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(&path, call.text("content").unwrap_or_default())?;
        match call.any("size").is_some() {
            true => std::fs::File::options().write(true).open(&path)?.set_len(size),
            false => Ok(()),
        }
    };
    write().map_err(|error| Raised::io(&error))?;
    let (subfolder, filename) = name.rsplit_once('/').unwrap_or(("", name));
    let kind = call.text("kind")?;
    let mut output = pass_on(call)?;
    if kind != "hidden" {
        let mut reported = json!({"filename": filename, "subfolder": subfolder, "type": folder.name()});
        if kind == "gifs" {
            reported["format"] = json!("video/h264-mp4");
            reported["frame_rate"] = json!(8.0);
        }
        output.ui = Output::ui(kind, vec![reported]).ui;
    }
    Ok(output)
}

fn preview(call: &Call<'_>) -> Result<Output, Raised> {
    let image = image(call);
    let frame = image.frames().next().unwrap_or_default();
    let bytes = encode::frame_bytes(&image, frame);
    let count = call.size("count")? as u64;
    for step in 1..=count {
        call.progress.update(step, count, Some(Preview::Jpeg(&bytes)))?;
    }
    pass_on(call)
}
