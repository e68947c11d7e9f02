//! Every golden case of the original, run on a real engine.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use common::{
    TestEngine,
    compare::{self, Difference, Leeway, Tolerance, equal},
    files, story,
};
use serde_json::{Map, Value, json};

/// Whatever else is the same to the bit.
const EXACT: Tolerance = Tolerance { max: 0, share: 0.0 };
/// torch's kernels differ among processors by one level.
const ONE_LEVEL: Tolerance = Tolerance { max: 1, share: 0.02 };
/// JPEG and lossy WebP depend on the decoder (chroma upsampling, IDCT).
const LOSSY: Tolerance = Tolerance { max: 3, share: 1.0 };
/// A difference of two samples that each depend on the decoder.
const LOSSY_TWICE: Tolerance = Tolerance { max: 6, share: 1.0 };
/// The lobes of Lanczos, and the way from YUV to RGB, enlarge what the decoder did otherwise.
const LOSSY_ENLARGED: Tolerance = Tolerance { max: 4, share: 1.0 };
/// Hysteresis can flip single pixels.
const EDGES: Tolerance = Tolerance {
    max: 255,
    share: 0.01,
};

/// Cases whose arithmetic torch does in an order that depends on the processor.
const BY_PROCESSOR: [&str; 20] = [
    "scale_up_bilinear",
    "scale_down_bilinear",
    "scale_width0",
    "scale_height0",
    "resizepad_bilinear",
    "batch_diff_size",
    "blur_r1",
    "blur_r5",
    "sharpen_r1",
    "sharpen_r3",
    "composite_resize_mask",
    "composite_mask_resized",
    "pd_diff_sizes",
    "join_alpha_resize",
    "join_batch_min",
    "addnoise",
    "addnoise_small",
    "yuv",
    "multi_cache_one_param",
    "multi_cache_identical",
];

/// Cases that subtract two images made from a JPEG.
const SUBTRACTING: [&str; 3] = ["morph_gradient", "morph_top_hat", "morph_bottom_hat"];

fn tolerance(case: &str, graph: &Value) -> Tolerance {
    let text = graph.to_string();
    let has_one_of = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if has_one_of(&["\"Canny\""]) {
        EDGES
    } else if SUBTRACTING.contains(&case) {
        LOSSY_TWICE
    } else if has_one_of(&[".jpg", "web_44x36.webp"]) {
        if has_one_of(&["lanczos", "\"match_image_size\":true", "ImageYUVToRGB"]) {
            LOSSY_ENLARGED
        } else {
            LOSSY
        }
    } else if BY_PROCESSOR.contains(&case) {
        ONE_LEVEL
    } else {
        EXACT
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_gives_what_the_original_gave() {
    let known = TestEngine::start().await.json("/object_info").await;
    let mut failed = Vec::new();
    let mut missing = BTreeSet::new();
    let mut worst: BTreeMap<String, (usize, Difference)> = BTreeMap::new();
    let mut names: Vec<PathBuf> = std::fs::read_dir(golden().join("cases"))
        .unwrap()
        .map(|case| case.unwrap().path())
        .collect();
    names.sort();
    for case in &names {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let classes = classes(case);
        let unknown: Vec<_> = classes
            .iter()
            .filter(|class| known.get(class).is_none())
            .collect();
        if !unknown.is_empty() {
            missing.extend(unknown.into_iter().cloned());
            continue;
        }
        match run_case(case, &name).await {
            Ok(difference) => {
                for class in classes {
                    let (cases, most) = worst.entry(class).or_default();
                    *cases += 1;
                    *most = most.max(difference);
                }
            }
            Err(difference) => failed.push(format!("{name}: {difference}")),
        }
    }
    println!(
        "{:34} {:>5}  worst difference of a case it takes part in",
        "class", "cases"
    );
    for (class, (cases, difference)) in &worst {
        println!("{class:34} {cases:>5}  {difference}");
    }
    assert_eq!(names.len(), 275, "cases");
    assert_eq!(missing, BTreeSet::new(), "classes that are not there");
    assert!(
        failed.is_empty(),
        "{} of {} cases differ:\n{}",
        failed.len(),
        names.len(),
        failed.join("\n")
    );
}

/// The classes of a case's graphs.
fn classes(case: &Path) -> BTreeSet<String> {
    let mut classes = BTreeSet::new();
    for file in ["graph.json", "graph2.json"] {
        let text = std::fs::read_to_string(case.join(file)).unwrap_or_else(|_| "{}".to_owned());
        let graph: Map<String, Value> = serde_json::from_str(&text).unwrap();
        classes.extend(
            graph
                .values()
                .map(|node| node["class_type"].as_str().unwrap().to_owned()),
        );
    }
    classes
}

async fn run_case(case: &Path, name: &str) -> Result<Difference, String> {
    let mut worst = Difference::default();
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("input");
    std::fs::create_dir(&input).unwrap();
    for file in std::fs::read_dir(golden().join("inputs")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), input.join(file.file_name())).unwrap();
    }
    let engine = TestEngine::start_in(dir).await;
    for run in ["", "2"] {
        let read = |file: &str| {
            let text = std::fs::read_to_string(case.join(file)).ok()?;
            Some(serde_json::from_str::<Value>(&text).unwrap())
        };
        let Some(graph) = read(&format!("graph{run}.json")) else {
            continue;
        };
        let expected = read(&format!("expected{run}.json")).expect("every graph has an expectation");
        let before = [files(&engine.file("output")), files(&engine.file("temp"))];
        let answer = submit(&engine, &graph, read("extra_data.json")).await;
        compare_answer(&answer, &expected, &graph, name).map_err(|e| format!("run{run}: {e}"))?;
        for (folder, before) in ["output", "temp"].into_iter().zip(before) {
            let wanted = case.join(format!("{folder}{run}"));
            let tolerance = tolerance(name, &graph);
            let difference = compare_files(&engine.file(folder), &before, &wanted, name, tolerance)
                .map_err(|e| format!("run{run}: {e}"))?;
            worst = worst.max(difference);
        }
        compare_frames(&answer, &expected, case).map_err(|e| format!("run{run}: {e}"))?;
    }
    Ok(worst)
}

struct Answer {
    status: u16,
    reply: Value,
    messages: Vec<Value>,
    binary: Vec<Vec<u8>>,
    history: Value,
}

async fn submit(engine: &TestEngine, graph: &Value, extra: Option<Value>) -> Answer {
    let mut socket = engine.connect("golden").await;
    let mut body = json!({"prompt": graph, "client_id": "golden"});
    if let Some(extra) = extra {
        body["extra_data"] = extra;
    }
    let (status, reply) = engine.post("/prompt", body).await;
    if status != 200 {
        return Answer {
            status,
            reply,
            messages: Vec::new(),
            binary: Vec::new(),
            history: Value::Null,
        };
    }
    let id = reply["prompt_id"].as_str().unwrap().to_owned();
    let messages = socket.until_end(&id).await;
    let history = engine.json(&format!("/history/{id}")).await[&id].clone();
    Answer {
        status,
        reply,
        messages,
        binary: socket.binary,
        history,
    }
}

/// Binary messages: the kinds in order, the lengths of texts, the pixels of images.
fn compare_frames(answer: &Answer, expected: &Value, case: &Path) -> Result<(), String> {
    let wanted = expected["binary_frames"].as_array().cloned().unwrap_or_default();
    equal("binary messages", &answer.binary.len(), &wanted.len())?;
    for (number, (found, wanted)) in answer.binary.iter().zip(&wanted).enumerate() {
        let event = u32::from_be_bytes(found[..4].try_into().unwrap());
        equal("event", &json!(event), &wanted["event"])?;
        if event == 1 {
            let recorded = std::fs::read(case.join(format!("ws_{}.bin", number + 1))).unwrap();
            equal("image format", &&found[..8], &&recorded[..8])?;
            compare::png(&found[8..], &recorded[8..], &EXACT.into())?;
        } else {
            equal("length", &json!(found.len()), &wanted["len"])?;
        }
    }
    Ok(())
}

fn compare_answer(answer: &Answer, expected: &Value, graph: &Value, name: &str) -> Result<(), String> {
    equal("HTTP status", &json!(answer.status), &expected["http_status"])?;
    equal(
        "node_errors",
        &sorted_errors(&answer.reply["node_errors"]),
        &sorted_errors(&expected["node_errors"]),
    )?;
    if answer.status != 200 {
        return equal("error", &answer.reply["error"], &expected["error"]);
    }
    let by_the_clock = name == "save_date_vars";
    if !by_the_clock {
        let outputs = |value: &Value| value["outputs"].as_object().cloned().unwrap_or_default();
        let anonymous = |map: Map<String, Value>| -> Map<String, Value> {
            map.into_iter()
                .map(|(id, ui)| (id, hide_temp_names(ui)))
                .collect()
        };
        equal(
            "outputs",
            &anonymous(outputs(&answer.history)),
            &anonymous(outputs(expected)),
        )?;
    }
    equal("meta", &answer.history["meta"], &expected["meta"])?;
    equal(
        "status",
        &answer.history["status"]["status_str"],
        &expected["status"]["status_str"],
    )?;
    equal(
        "completed",
        &answer.history["status"]["completed"],
        &expected["status"]["completed"],
    )?;
    let last = |value: &Value| {
        value["status"]["messages"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone()
    };
    let (found, wanted) = (last(&answer.history), last(expected));
    equal("last message", &found[0], &wanted[0])?;
    for key in ["node_id", "node_type", "exception_type"] {
        equal(key, &found[1].get(key), &wanted[1].get(key))?;
    }
    let cached = answer
        .messages
        .iter()
        .find(|m| m["type"] == "execution_cached")
        .unwrap();
    equal("cached", &cached["data"]["nodes"], &expected["cached"])?;
    let failed = wanted[0] == "execution_error";
    for kind in ["executing", "executed"] {
        let spoken: Vec<String> = story(&answer.messages);
        let found: BTreeSet<String> = spoken
            .iter()
            .filter_map(|s| s.strip_prefix(kind)?.strip_prefix(' '))
            .map(str::to_owned)
            .collect();
        let wanted: BTreeSet<String> = expected[kind]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|id| Some(id.as_str()?.to_owned()))
            .collect();
        // How far other branches came before a failure depends on a random order in the original.
        if !failed {
            equal(kind, &found, &wanted)?;
        }
    }
    in_topological_order(&answer.messages, graph)
}

/// The original walks a set of inputs, so the order of a node's errors differs from process to process.
fn sorted_errors(node_errors: &Value) -> Value {
    let mut sorted = node_errors.clone();
    for node in sorted
        .as_object_mut()
        .into_iter()
        .flat_map(|nodes| nodes.values_mut())
    {
        if let Some(errors) = node["errors"].as_array_mut() {
            errors.sort_by_key(|error| error["details"].to_string());
        }
    }
    sorted
}

fn hide_temp_names(mut ui: Value) -> Value {
    for image in ui
        .get_mut("images")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if image["type"] == "temp" {
            image["filename"] = json!(without_suffix(image["filename"].as_str().unwrap()));
        }
    }
    ui
}

/// `ComfyUI_temp_abcde_00001_.png` without its random letters.
fn without_suffix(name: &str) -> String {
    match name.strip_prefix("ComfyUI_temp_") {
        Some(rest) => {
            let (letters, rest) = rest.split_at(5);
            assert!(letters.chars().all(|c| c.is_ascii_lowercase()), "{name}");
            format!("ComfyUI_temp_*{rest}")
        }
        None => name.to_owned(),
    }
}

fn in_topological_order(messages: &[Value], graph: &Value) -> Result<(), String> {
    let executing: Vec<&str> = messages
        .iter()
        .filter(|m| m["type"] == "executing")
        .filter_map(|m| m["data"]["node"].as_str())
        .collect();
    for (at, id) in executing.iter().enumerate() {
        for input in graph[id]["inputs"].as_object().unwrap().values() {
            if let Some(source) = input.get(0).and_then(Value::as_str)
                && executing[at..].contains(&source)
            {
                return Err(format!("node {id} ran before its source {source}"));
            }
        }
    }
    Ok(())
}

/// Files that are new (or, on a second run, changed) against the recorded ones.
fn compare_files(
    found: &Path,
    before: &[String],
    wanted: &Path,
    name: &str,
    tolerance: Tolerance,
) -> Result<Difference, String> {
    let recorded = files(wanted);
    if name == "save_date_vars" && !recorded.is_empty() {
        let written = files(found);
        let [file] = written.as_slice() else {
            return Err(format!("one file, not {written:?}"));
        };
        let pattern: String = file
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        equal("file", &pattern.as_str(), &"0000-00-00/00_00_00_00000_.png")?;
        return compare_file(&found.join(file), &wanted.join(&recorded[0]), name, tolerance);
    }
    let all = files(found);
    let mut worst = Difference::default();
    for file in &recorded {
        let Some(own) = all.iter().find(|own| without_suffix(own) == without_suffix(file)) else {
            return Err(format!("{file} was not written; there are {all:?}"));
        };
        let difference = compare_file(&found.join(own), &wanted.join(file), name, tolerance)
            .map_err(|e| format!("{file}: {e}"))?;
        worst = worst.max(difference);
    }
    let known: BTreeSet<String> = recorded.iter().chain(before).map(|f| without_suffix(f)).collect();
    match all.iter().find(|own| !known.contains(&without_suffix(own))) {
        Some(extra) => Err(format!("{extra} was written too")),
        None => Ok(worst),
    }
}

fn compare_file(found: &Path, wanted: &Path, name: &str, tolerance: Tolerance) -> Result<Difference, String> {
    let (own, recorded) = (std::fs::read(found).unwrap(), std::fs::read(wanted).unwrap());
    let leeway = Leeway {
        // Where a JPEG breaks off, the rest of that row of blocks is the decoder's guess.
        rows: if name == "load_trunc_jpg" { 31..49 } else { 0..0 },
        // What it loads was saved by the engine itself.
        hashes: name == "load_image_output",
        ..tolerance.into()
    };
    let result = match wanted.extension().and_then(|e| e.to_str()) {
        Some("png") => compare::png(&own, &recorded, &leeway),
        Some("webp") => compare::webp(&own, &recorded, tolerance),
        Some("latent") => compare::latent(&own, &recorded),
        other => Err(format!("no comparison for {other:?}")),
    };
    result.inspect_err(|_| compare::keep_side_by_side(name, &own, &recorded))
}
