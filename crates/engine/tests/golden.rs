//! Every golden case of the original, run on a real engine.

mod common;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use common::{TestEngine, files, story};
use serde_json::{Map, Value, json};

/// Largest difference of a sample, and how many samples in a thousand may differ at all.
type Tolerance = (u8, usize);
const EXACT: Tolerance = (0, 0);
/// torch's kernels differ among processors by one level.
const BILINEAR: Tolerance = (1, 20);
/// JPEG and lossy WebP depend on the decoder (chroma upsampling, IDCT).
const LOSSY: Tolerance = (3, 1000);

fn tolerance(case: &str) -> Tolerance {
    match case {
        "scale_up_bilinear" | "scale_down_bilinear" | "scale_width0" | "scale_height0" => BILINEAR,
        "batch_diff_size"
        | "load_photo_48x64_jpg"
        | "load_gray_30x20_jpg"
        | "load_exif6_40x24_jpg"
        | "load_web_44x36_webp"
        | "load_trunc_jpg"
        | "loadmask_exif6_green" => LOSSY,
        _ => EXACT,
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_gives_what_the_original_gave() {
    let mut failed = Vec::new();
    let mut ran = 0;
    for case in std::fs::read_dir(golden().join("cases")).unwrap() {
        let case = case.unwrap().path();
        ran += 1;
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        if let Err(difference) = run_case(&case, &name).await {
            failed.push(format!("{name}: {difference}"));
        }
    }
    assert!(ran >= 90, "only {ran} cases found");
    assert!(
        failed.is_empty(),
        "{} of {ran} cases differ:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

async fn run_case(case: &Path, name: &str) -> Result<(), String> {
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
            compare_files(&engine.file(folder), &before, &wanted, name)
                .map_err(|e| format!("run{run}: {e}"))?;
        }
    }
    Ok(())
}

struct Answer {
    status: u16,
    reply: Value,
    messages: Vec<Value>,
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
        history,
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what}: found {found:?}, wanted {wanted:?}"))
    }
}

fn compare_answer(answer: &Answer, expected: &Value, graph: &Value, name: &str) -> Result<(), String> {
    equal("HTTP status", &json!(answer.status), &expected["http_status"])?;
    equal(
        "node_errors",
        &answer.reply["node_errors"],
        &expected["node_errors"],
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
fn compare_files(found: &Path, before: &[String], wanted: &Path, name: &str) -> Result<(), String> {
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
        return compare_png(&found.join(file), &wanted.join(&recorded[0]), name);
    }
    let all = files(found);
    for file in &recorded {
        let Some(own) = all.iter().find(|own| without_suffix(own) == without_suffix(file)) else {
            return Err(format!("{file} was not written; there are {all:?}"));
        };
        compare_png(&found.join(own), &wanted.join(file), name).map_err(|e| format!("{file}: {e}"))?;
    }
    let known: BTreeSet<String> = recorded.iter().chain(before).map(|f| without_suffix(f)).collect();
    match all.iter().find(|own| !known.contains(&without_suffix(own))) {
        Some(extra) => Err(format!("{extra} was written too")),
        None => Ok(()),
    }
}

struct Png {
    info: (u32, u32, png::ColorType, png::BitDepth, bool),
    texts: Vec<(String, String)>,
    pixels: Vec<u8>,
}

fn read_png(path: &Path) -> Png {
    let mut reader = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    reader.finish().unwrap();
    let info = reader.info();
    let texts = info
        .uncompressed_latin1_text
        .iter()
        .map(|t| (t.keyword.clone(), t.text.clone()))
        .collect();
    Png {
        info: (
            info.width,
            info.height,
            info.color_type,
            info.bit_depth,
            info.interlaced,
        ),
        texts,
        pixels,
    }
}

fn compare_png(found: &Path, wanted: &Path, name: &str) -> Result<(), String> {
    let (found, wanted) = (read_png(found), read_png(wanted));
    equal("header", &found.info, &wanted.info)?;
    equal("text chunks", &found.texts, &wanted.texts)?;
    let (max, thousandths) = tolerance(name);
    // Where a JPEG breaks off, the rest of that row of blocks is the decoder's guess.
    let row = found.pixels.len() / found.info.1 as usize;
    let guessed = if name == "load_trunc_jpg" {
        31 * row..49 * row
    } else {
        0..0
    };
    let differences: Vec<u8> = (0..found.pixels.len())
        .filter(|at| !guessed.contains(at))
        .map(|at| found.pixels[at].abs_diff(wanted.pixels[at]))
        .filter(|d| *d > 0)
        .collect();
    let worst = differences.iter().max().copied().unwrap_or(0);
    if worst > max || differences.len() * 1000 > thousandths * wanted.pixels.len() {
        return Err(format!(
            "{} of {} samples differ, by up to {worst}",
            differences.len(),
            wanted.pixels.len()
        ));
    }
    Ok(())
}
