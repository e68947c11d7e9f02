use darkroom_comfy::published::{Finding, Level, ProblemKind};
use darkroom_core::workflow::Version;
use darkroom_store::jobs::JobMeta;
use serde_json::json;

use super::*;
use crate::{
    beside::IN_PLACE_BYTES,
    memory::Held,
    service::{intake::Fetch, testing::Bench},
};

fn info() -> Vec<u8> {
    json!({
        "LoadImage": {"input": {"required": {"image": [["there.png"], {"image_upload": true}]}}, "output": ["IMAGE"]},
        "Load": {"input": {"required": {"ckpt": [["sdxl_base.safetensors"], {}]}}, "output": ["MODEL"]},
        "Text": {"input": {"required": {"text": ["STRING", {}]}}, "output": ["COND"]},
        "Sample": {"input": {"required": {
            "model": ["MODEL", {}], "cond": ["COND", {}], "seed": ["INT", {"min": 0, "max": 100}], "steps": ["INT", {"min": 1, "max": 50}],
        }}, "output": ["IMAGE"]},
        "SaveImage": {"input": {"required": {"images": ["IMAGE", {}]}}, "output": [], "output_node": true},
    })
    .to_string()
    .into_bytes()
}

fn graph() -> Value {
    json!({
        "4": {"class_type": "Load", "inputs": {"ckpt": "sdxl_base.safetensors"}},
        "6": {"class_type": "Text", "inputs": {"text": "a cat"}},
        "3": {"class_type": "Sample", "inputs": {"model": ["4", 0], "cond": ["6", 0], "seed": 1, "steps": 20}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    })
}

fn publication(graph: Value) -> Publication {
    serde_json::from_value(json!({
        "endpoint": "default",
        "graph": graph,
        "inputs": [{"name": "prompt", "node": "6", "field": "text"}, {"name": "steps", "node": "3", "field": "steps"}],
        "outputs": [{"name": "images", "node": "10"}],
    }))
    .unwrap()
}

fn key(id: &str) -> WorkflowKey {
    workflow_key(&"default".parse().unwrap(), &id.parse().unwrap())
}

/// Somebody who may do everything.
fn operator() -> Actor {
    limited(&[])
}

/// Somebody whose key is for these endpoints; for none: for all.
fn limited(endpoints: &[&str]) -> Actor {
    let named: Vec<String> = endpoints.iter().map(|name| (*name).to_owned()).collect();
    let holds =
        move |endpoint: &EndpointName| named.is_empty() || named.iter().any(|n| n == endpoint.as_str());
    let holds: MayOn = Arc::new(holds);
    Actor {
        by: "me".to_owned(),
        publishes: holds.clone(),
        calls: holds,
    }
}

fn publishing(id: &str) -> Publishing {
    Publishing {
        workflow: key(id),
        note: String::new(),
        alias: None,
        from_draft: false,
    }
}

async fn published(bench: &Bench, id: &str, graph: Value) -> Version {
    match bench
        .service
        .publish(&operator(), publishing(id), publication(graph), 1000)
        .await
        .unwrap()
    {
        Outcome::Published { newly, .. } => newly.version,
        Outcome::Refused(findings) => panic!("{findings:?}"),
    }
}

async fn found(bench: &Bench, wanted: Publication) -> Vec<Finding> {
    let checked = bench
        .service
        .check_publication(&"default".parse().unwrap(), &wanted, 1000)
        .await;
    checked.unwrap().findings
}

async fn bench() -> Bench {
    let bench = Bench::new();
    bench.learn(info()).await;
    bench
}

#[tokio::test]
async fn what_is_published_is_what_is_loaded_by_version_and_by_alias() {
    let bench = bench().await;
    assert_eq!(published(&bench, "poster", graph()).await.number(), 1);
    let mut second = graph();
    second["6"]["inputs"]["text"] = json!("a dog");
    published(&bench, "poster", second).await;
    let text = async |version: Option<u32>, alias: Option<&str>| {
        let alias = alias.map(|alias| alias.parse().unwrap());
        let version = version.and_then(Version::new);
        let loaded = bench
            .service
            .load_workflow(&key("poster"), version, alias.as_ref())
            .await;
        loaded
            .map(|l| l.definition.published.graph["6"]["inputs"]["text"].clone())
            .map_err(|e| e.to_string())
    };
    assert_eq!(
        text(None, None).await.unwrap(),
        "a cat",
        "the first publish made main, later ones leave it"
    );
    assert_eq!(
        text(Some(2), Some("main")).await.unwrap(),
        "a dog",
        "an explicit version wins"
    );
    assert!(text(Some(3), None).await.unwrap_err().contains("no version 'v3'"));
    assert!(
        text(None, Some("beta"))
            .await
            .unwrap_err()
            .contains("it has main")
    );
    let to = Target::Version(Version::new(2).unwrap());
    bench
        .service
        .move_alias(&operator(), &key("poster"), &AliasName::main(), to)
        .await
        .unwrap();
    assert_eq!(text(None, None).await.unwrap(), "a dog");
    bench
        .service
        .move_alias(&operator(), &key("poster"), &AliasName::main(), Target::Back)
        .await
        .unwrap();
    assert_eq!(text(None, None).await.unwrap(), "a cat");
}

#[tokio::test]
async fn a_large_graph_goes_to_the_blob_store_and_back() {
    let bench = bench().await;
    let mut large = graph();
    for n in 0..300 {
        large[format!("n{n}")] = json!({"class_type": "Text", "inputs": {"text": "word ".repeat(40)}});
    }
    let version = published(&bench, "large", large.clone()).await;
    assert!(
        bench
            .blob_keys()
            .await
            .iter()
            .any(|key| key.starts_with("workflows/default/"))
    );
    let loaded = bench
        .service
        .load_workflow(&key("large"), Some(version), None)
        .await
        .unwrap();
    assert_eq!(loaded.definition.published.graph, large);
}

#[tokio::test]
async fn findings_name_what_is_missing_and_where() {
    let bench = bench().await;
    let codes = |findings: &[Finding]| -> Vec<(String, Option<String>)> {
        findings
            .iter()
            .map(|f| (f.code.clone(), f.node.clone()))
            .collect()
    };
    let at = |code: &str, node: &str| (code.to_owned(), Some(node.to_owned()));
    let mut unknown = graph();
    unknown["6"]["class_type"] = json!("Texts");
    let findings = found(&bench, publication(unknown)).await;
    assert!(
        codes(&findings).contains(&at("missing_node", "6")),
        "{findings:?}"
    );
    assert!(findings.iter().any(|f| f.nearest == ["Text"]), "{findings:?}");
    let mut model = graph();
    model["4"]["inputs"]["ckpt"] = json!("sdxl_bose.safetensors");
    let findings = found(&bench, publication(model)).await;
    assert_eq!(codes(&findings), [at("missing_model", "4")]);
    assert_eq!(findings[0].nearest, ["sdxl_base.safetensors"]);
    let mut link = graph();
    link["10"]["inputs"]["images"] = json!(["6", 0]);
    let findings = found(&bench, publication(link)).await;
    assert_eq!(codes(&findings), [at("invalid_graph", "10")]);
    assert_eq!(findings[0].field.as_deref(), Some("images"));
    let nothing = bench
        .service
        .seen_workflow(&operator(), &key("poster"))
        .await
        .unwrap_err();
    assert_eq!(nothing.code(), "not_found", "a check leaves nothing");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_a_warning_where_callers_bring_their_own() {
    let bench = bench().await;
    let with = |image: &str| {
        json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": image}},
            "10": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
        })
    };
    let wanted = |image: &str, inputs: Value| -> Publication {
        serde_json::from_value(json!({"endpoint": "default", "graph": with(image), "inputs": inputs}))
            .unwrap()
    };
    let input = json!([{"name": "image", "node": "1", "field": "image"}]);
    assert!(found(&bench, wanted("there.png", json!([]))).await.is_empty());
    let findings = found(&bench, wanted("mine.png", json!([]))).await;
    assert_eq!(
        (findings[0].code.as_str(), findings[0].level),
        ("missing_file", Level::Error)
    );
    let tenant = "default".parse().unwrap();
    let checked = bench
        .service
        .check_publication(&tenant, &wanted("mine.png", input.clone()), 1000)
        .await
        .unwrap();
    assert_eq!(
        (checked.findings[0].code.as_str(), checked.findings[0].level),
        ("missing_default_file", Level::Warning)
    );
    let declared = &checked.definition.unwrap().published.inputs[0];
    assert!(declared.required && declared.default.is_none());
    let there = bench
        .service
        .check_publication(&tenant, &wanted("there.png", input), 1000)
        .await
        .unwrap();
    assert!(!there.definition.unwrap().published.inputs[0].required);
}

#[tokio::test]
async fn a_draft_may_have_mistakes_and_is_published_when_it_has_none() {
    let bench = bench().await;
    let mut bad = graph();
    bad["6"]["class_type"] = json!("Nothing");
    let findings = bench
        .service
        .put_draft(&operator(), &key("poster"), publication(bad), 1000)
        .await
        .unwrap();
    assert!(findings.iter().any(Finding::is_error));
    let record = bench
        .service
        .seen_workflow(&operator(), &key("poster"))
        .await
        .unwrap();
    assert!(record.latest.is_none() && record.draft_at.is_some());
    bench
        .service
        .put_draft(&operator(), &key("poster"), publication(graph()), 1000)
        .await
        .unwrap();
    let (_, draft) = bench.service.draft(&operator(), &key("poster")).await.unwrap();
    let outcome = bench
        .service
        .publish(
            &operator(),
            Publishing {
                from_draft: true,
                ..publishing("poster")
            },
            draft,
            1000,
        )
        .await
        .unwrap();
    assert!(matches!(outcome, Outcome::Published { .. }));
    assert_eq!(
        code(
            bench
                .service
                .draft(&operator(), &key("poster"))
                .await
                .unwrap_err()
        ),
        "not_found"
    );
}

fn code(denied: Denied) -> &'static str {
    match denied {
        Denied::Endpoint(_) => "denied",
        Denied::Taken => "taken",
        Denied::Service(error) => error.code(),
    }
}

async fn exported(bench: &Bench, id: &str) -> Value {
    let file = bench
        .service
        .export_workflow(&operator(), &key(id))
        .await
        .unwrap();
    serde_json::from_slice(&file).unwrap()
}

async fn brought(bench: &Bench, id: &str, file: &Value) -> Result<Brought, Denied> {
    brought_by(bench, &operator(), id, file, false).await
}

async fn brought_by(
    bench: &Bench,
    actor: &Actor,
    id: &str,
    file: &Value,
    force: bool,
) -> Result<Brought, Denied> {
    let import = Import {
        file: serde_json::from_value(file.clone()).unwrap(),
        endpoint: None,
        force,
        size: 1000,
    };
    bench.service.import_workflow(actor, &key(id), import).await
}

#[tokio::test]
async fn an_export_brought_in_elsewhere_is_the_same_workflow() {
    let (here, there) = (bench().await, bench().await);
    published(&here, "poster", graph()).await;
    let mut second = graph();
    second["3"]["inputs"]["steps"] = json!(30);
    published(&here, "poster", second).await;
    let to = Target::Version(Version::new(2).unwrap());
    here.service
        .move_alias(&operator(), &key("poster"), &"beta".parse().unwrap(), to)
        .await
        .unwrap();
    let file = exported(&here, "poster").await;
    let Brought::In { imported, findings } = brought(&there, "poster", &file).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!((imported.versions.len(), imported.aliases.len()), (2, 2));
    assert_eq!(findings, []);
    assert_eq!(exported(&there, "poster").await, file);
    // Once more: numbers go on, aliases stay.
    let Brought::In { imported, .. } = brought(&there, "poster", &file).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(imported.versions.first().unwrap().number(), 3);
    assert!(imported.aliases.is_empty());
}

#[tokio::test]
async fn what_could_not_be_published_is_not_brought_in_and_nothing_else_of_its_file() {
    let bench = bench().await;
    published(&bench, "poster", graph()).await;
    published(&bench, "poster", graph()).await;
    let file = exported(&bench, "poster").await;
    let blobs = bench.blob_keys().await;
    let changed = |pointer: &str, value: Value| {
        let mut file = file.clone();
        *file.pointer_mut(pointer).unwrap() = value;
        file
    };
    // Of the file as a whole.
    for (wrong, part) in [
        (changed("/format", json!("other/1")), FORMAT),
        (changed("/versions", json!([])), "no version"),
        (
            changed("/versions/1/version", json!("v1")),
            "version 2 of the file is called v1",
        ),
        (changed("/versions/1/version", json!("v3")), "called v3"),
        (changed("/aliases/main", json!("v3")), "'main' points at v3"),
        (changed("/versions/0/note", json!("x".repeat(20_000))), "at most"),
    ] {
        let refused = brought(&bench, "x", &wrong).await.unwrap_err();
        assert!(refused.to_string().contains(part), "{refused}");
    }
    // Of one version, by the same check as a publish.
    let input = "/versions/1/definition/inputs/0";
    for (wrong, finding) in [
        (
            changed("/versions/1/definition/graph/6/class_type", json!("Texts")),
            "missing_node",
        ),
        (
            changed(
                "/versions/1/definition/graph/4/inputs/ckpt",
                json!("none.safetensors"),
            ),
            "missing_model",
        ),
        (changed(&format!("{input}/node"), json!("77")), "unknown_node"),
        (
            changed(&format!("{input}/field"), json!("texts")),
            "unknown_field",
        ),
        (
            changed(&format!("{input}/name"), json!("steps")),
            "duplicate_name",
        ),
        (changed(&format!("{input}/default"), json!(7)), "bad_default"),
        (
            changed("/versions/1/definition/outputs/0/node", json!("6")),
            "no_output_node",
        ),
    ] {
        let Brought::Refused(findings) = brought(&bench, "x", &wrong).await.unwrap() else {
            panic!("{finding}: brought in")
        };
        let first = &findings[0];
        assert!(
            first.is_error() && first.message.starts_with("v2: "),
            "{findings:?}"
        );
        assert!(
            findings.iter().any(|one| one.code == finding),
            "{finding}: {findings:?}"
        );
    }
    let nothing = bench
        .service
        .seen_workflow(&operator(), &key("x"))
        .await
        .unwrap_err();
    assert_eq!(nothing.code(), "not_found");
    assert_eq!(bench.blob_keys().await, blobs);
    // Seeds are looked for in the graph: what a file says of them cannot break a call.
    let seeds = json!([{"node": "6", "field": "text", "min": 9, "max": 3}]);
    let strange = changed("/versions/0/definition/seeds", seeds);
    assert!(matches!(
        brought(&bench, "seeds", &strange).await,
        Ok(Brought::In { .. })
    ));
    let loaded = bench
        .service
        .load_workflow(&key("seeds"), Version::new(1), None)
        .await
        .unwrap();
    let seeds = &loaded.definition.published.seeds;
    assert_eq!(
        seeds.iter().map(|s| (s.node.as_str(), s.max)).collect::<Vec<_>>(),
        [("3", 100)]
    );
    // What is only not here may be brought in by who says so; mistakes may not.
    let lacks = changed("/versions/1/definition/graph/6/class_type", json!("Texts"));
    let Brought::In { findings, .. } = brought_by(&bench, &operator(), "forced", &lacks, true)
        .await
        .unwrap()
    else {
        panic!("refused")
    };
    assert!(
        findings
            .iter()
            .any(|one| one.code == "missing_node" && !one.is_error()),
        "{findings:?}"
    );
    let wrong = changed(&format!("{input}/name"), json!("steps"));
    assert!(matches!(
        brought_by(&bench, &operator(), "y", &wrong, true).await,
        Ok(Brought::Refused(_))
    ));
}

#[tokio::test]
async fn a_key_of_one_endpoint_neither_takes_over_nor_sees_what_serves_another() {
    let bench = Bench::configured("[endpoints.default]\n[endpoints.other]\n");
    bench.learn(info()).await;
    let other: EndpointName = "other".parse().unwrap();
    bench
        .service
        .learn_object_info(&other, "engine", info())
        .await
        .unwrap();
    let service = &bench.service;
    let (theirs, all) = (limited(&["other"]), operator());
    let on_other = || Publication {
        endpoint: other.clone(),
        ..publication(graph())
    };
    let poster = key("poster");
    published(&bench, "poster", graph()).await;
    let denied = |outcome: Result<_, Denied>| outcome.map(|_: ()| "done").unwrap_or_else(code);
    // Of another endpoint alone, it is as if it were not there, and its id is taken.
    let main = AliasName::main();
    let v1 = Target::Version(Version::new(1).unwrap());
    assert_eq!(
        denied(
            service
                .publish(&theirs, publishing("poster"), on_other(), 9)
                .await
                .map(drop)
        ),
        "taken"
    );
    assert_eq!(
        denied(
            service
                .try_publication(&theirs, &poster, &on_other(), 9)
                .await
                .map(drop)
        ),
        "taken"
    );
    assert_eq!(
        denied(service.put_draft(&theirs, &poster, on_other(), 9).await.map(drop)),
        "taken"
    );
    assert_eq!(
        denied(service.move_alias(&theirs, &poster, &main, v1).await.map(drop)),
        "not_found"
    );
    assert_eq!(
        denied(service.export_workflow(&theirs, &poster).await.map(drop)),
        "not_found"
    );
    assert_eq!(
        denied(
            service
                .alias_history(&theirs, &poster, None, None, 9)
                .await
                .map(drop)
        ),
        "not_found"
    );
    let file = exported(&bench, "poster").await;
    let import = Import {
        file: serde_json::from_value(file).unwrap(),
        endpoint: Some(other.clone()),
        force: false,
        size: 9,
    };
    assert_eq!(
        denied(service.import_workflow(&theirs, &poster, import).await.map(drop)),
        "taken"
    );
    let page = service.workflows(&theirs, &poster.tenant, None, 1).await.unwrap();
    assert_eq!(page, (vec![], None), "no trace of what others have");
    assert_eq!(
        service
            .workflow_versions(&theirs, &poster, None, 9)
            .await
            .unwrap()
            .0,
        []
    );
    assert_eq!(
        service
            .workflows(&theirs, &poster.tenant, None, 9)
            .await
            .unwrap()
            .0,
        []
    );
    // With versions on both, each sees its own, and only who may publish on both changes anything.
    service
        .publish(&all, publishing("poster"), on_other(), 9)
        .await
        .unwrap();
    let seen = service
        .workflow_versions(&theirs, &poster, None, 9)
        .await
        .unwrap()
        .0;
    assert_eq!(seen.iter().map(|v| v.version.number()).collect::<Vec<_>>(), [2]);
    let record = service.seen_workflow(&theirs, &poster).await.unwrap();
    assert_eq!(
        theirs.seen_aliases(&record).count(),
        0,
        "main is at the version that it does not see"
    );
    let version = async |number| {
        let loaded = service
            .seen_version(&theirs, &poster, Version::new(number), None)
            .await;
        loaded
            .map(|l| l.record.version.number())
            .map_err(|e| e.to_string())
    };
    assert_eq!(version(2).await, Ok(2));
    assert_eq!(
        version(1).await,
        version(9).await.map_err(|e| e.replace("v9", "v1")),
        "as unknown as one that is not there"
    );
    let by_main = service
        .seen_version(&theirs, &poster, None, None)
        .await
        .unwrap_err();
    assert_eq!(by_main.to_string(), "workflow 'poster' has no alias 'main'");
    for actor in [&theirs, &limited(&["default"])] {
        let on_own = if actor.sees(&other) {
            on_other()
        } else {
            publication(graph())
        };
        assert_eq!(
            denied(
                service
                    .publish(actor, publishing("poster"), on_own.clone(), 9)
                    .await
                    .map(drop)
            ),
            "denied"
        );
        assert_eq!(
            denied(service.put_draft(actor, &poster, on_own, 9).await.map(drop)),
            "denied"
        );
        assert_eq!(
            denied(service.move_alias(actor, &poster, &main, v1).await.map(drop)),
            "denied"
        );
        assert_eq!(
            denied(
                service
                    .move_alias(actor, &poster, &main, Target::Back)
                    .await
                    .map(drop)
            ),
            "denied"
        );
        assert_eq!(
            denied(service.export_workflow(actor, &poster).await.map(drop)),
            "denied"
        );
    }
    assert_eq!(
        service.seen_workflow(&all, &poster).await.unwrap().latest,
        Version::new(2)
    );
    // A draft is seen, replaced and thrown away by who may publish on its endpoint.
    service
        .put_draft(&theirs, &key("sketch"), on_other(), 9)
        .await
        .unwrap();
    let ours = limited(&["default"]);
    assert_eq!(
        service
            .seen_workflow(&ours, &key("sketch"))
            .await
            .unwrap_err()
            .code(),
        "not_found"
    );
    assert_eq!(
        denied(service.draft(&ours, &key("sketch")).await.map(drop)),
        "not_found"
    );
    assert_eq!(
        denied(service.remove_draft(&ours, &key("sketch")).await),
        "not_found"
    );
    assert_eq!(
        denied(
            service
                .put_draft(&ours, &key("sketch"), publication(graph()), 9)
                .await
                .map(drop)
        ),
        "taken"
    );
    assert_eq!(
        denied(
            service
                .publish(&ours, publishing("sketch"), publication(graph()), 9)
                .await
                .map(drop)
        ),
        "taken"
    );
    service.draft(&theirs, &key("sketch")).await.unwrap();
    service.remove_draft(&theirs, &key("sketch")).await.unwrap();
}

#[tokio::test]
async fn a_missing_class_hides_no_other_mistake() {
    let bench = bench().await;
    let mut wrong = graph();
    wrong["6"]["class_type"] = json!("Texts");
    wrong["3"]["inputs"]["steps"] = json!(900);
    wrong["4"]["inputs"]["ckpt"] = json!("sdxl_bose.safetensors");
    wrong["11"] = json!({"class_type": "SaveImage", "inputs": {}});
    wrong["12"] = json!({"class_type": "Odd", "inputs": {"x": ["3", 0]}});
    let mut wanted = publication(wrong);
    wanted.inputs.pop();
    let findings = found(&bench, wanted).await;
    let mut told: Vec<_> = findings
        .iter()
        .map(|f| (f.code.as_str(), f.node.as_deref().unwrap_or("")))
        .collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            ("invalid_graph", "11"),
            ("invalid_graph", "3"),
            ("missing_model", "4"),
            ("missing_node", "12"),
            ("missing_node", "6"),
        ],
        "{findings:?}"
    );
}

#[tokio::test]
async fn a_version_that_could_not_be_checked_is_checked_by_the_first_call_after_its_endpoint_has_told() {
    let bench = Bench::new();
    let mut wrong = graph();
    wrong["3"]["inputs"]["stepz"] = wrong["3"]["inputs"]["steps"].take();
    wrong["3"]["inputs"]["steps"] = json!(20);
    let mut wanted = publication(wrong);
    wanted.inputs[1].field = "stepz".to_owned();
    let outcome = bench
        .service
        .publish(&operator(), publishing("poster"), wanted, 1000)
        .await
        .unwrap();
    let Outcome::Published { findings, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (findings[0].code.as_str(), findings[0].is_error()),
        ("not_checked", false)
    );
    published(&bench, "good", graph()).await;
    // Nobody can tell: the instance will.
    called(&bench, "poster", json!({})).await.unwrap();
    bench.learn(info()).await;
    let refused = called(&bench, "poster", json!({})).await.unwrap_err();
    let CallError::Unfit(findings) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(findings[0].code, "unknown_field");
    called(&bench, "good", json!({})).await.unwrap();
    let loaded = bench
        .service
        .load_workflow(&key("good"), None, None)
        .await
        .unwrap();
    assert!(!loaded.definition.unchecked, "once is enough");
}

async fn called(bench: &Bench, id: &str, inputs: Value) -> Result<Called, CallError> {
    let call = WorkflowCall {
        tenant: "default".parse().unwrap(),
        workflow: id.parse().unwrap(),
        version: None,
        alias: None,
        inputs: inputs.as_object().unwrap().clone(),
        randomise_seeds: false,
        return_temp_files: false,
        resources: Vec::new(),
        may: &|_| true,
        fetch: Fetch::Now,
        priority: 0,
        external_id: None,
        meta: JobMeta::default(),
        size_bytes: inputs.to_string().len(),
        memory: Held::default(),
    };
    bench.service.call_workflow(call).await
}

#[tokio::test]
async fn pages_hold_as_many_as_are_seen_and_lead_on_by_them() {
    let bench = bench().await;
    for id in ["a", "b", "c"] {
        published(&bench, id, graph()).await;
    }
    let (operator, tenant) = (operator(), key("a").tenant);
    let list = async |after: Option<&str>| {
        let after = after.map(|id| id.parse().unwrap());
        let page = bench.service.workflows(&operator, &tenant, after.as_ref(), 2);
        let (seen, next) = page.await.unwrap();
        let ids: Vec<String> = seen.iter().map(|one| one.key.id.to_string()).collect();
        (ids.join(" "), next.map(|id| id.to_string()))
    };
    assert_eq!(list(None).await, ("a b".to_owned(), Some("b".to_owned())));
    assert_eq!(list(Some("b")).await, ("c".to_owned(), None));
}

#[tokio::test]
async fn a_workflow_is_not_larger_than_calls_can_work_on() {
    let bench = bench().await;
    let mut large = graph();
    large["6"]["inputs"]["text"] = json!("x".repeat(8 << 20));
    let (service, operator, size) = (&bench.service, operator(), 9 << 20);
    let code = |outcome: Result<_, Denied>| outcome.map(|_: ()| "done").unwrap_or_else(code);
    let refused = service
        .publish(&operator, publishing("poster"), publication(large.clone()), size)
        .await;
    assert_eq!(code(refused.map(drop)), "too_large");
    let refused = service
        .put_draft(&operator, &key("poster"), publication(large), size)
        .await;
    assert_eq!(code(refused.map(drop)), "too_large");
}

#[tokio::test]
async fn choices_and_ranges_of_a_file_count_as_far_as_they_are_here() {
    let bench = bench().await;
    let mut file = {
        let there = self::bench().await;
        let mut wanted = publication(graph());
        wanted
            .inputs
            .push(serde_json::from_value(json!({"name": "model", "node": "4", "field": "ckpt"})).unwrap());
        let done = there
            .service
            .publish(&operator(), publishing("poster"), wanted, 9)
            .await;
        assert!(matches!(done.unwrap(), Outcome::Published { .. }));
        exported(&there, "poster").await
    };
    let inputs = &mut file["versions"][0]["definition"]["inputs"];
    let inputs = inputs.as_array_mut().expect("a list");
    for input in inputs {
        match input["name"].as_str().unwrap() {
            "model" => input["choices"] = json!(["only-there.safetensors", "sdxl_base.safetensors"]),
            "steps" => input["max"] = json!(90),
            _ => {}
        }
    }
    match brought(&bench, "poster", &file).await.unwrap() {
        Brought::In { findings, .. } => assert_eq!(findings, []),
        Brought::Refused(findings) => panic!("{findings:?}"),
    }
    let loaded = bench
        .service
        .load_workflow(&key("poster"), None, None)
        .await
        .unwrap();
    let input = |name: &str| {
        let inputs = &loaded.definition.published.inputs;
        inputs.iter().find(|input| input.name == name).unwrap().clone()
    };
    assert_eq!(input("model").choices, Some(vec![json!("sdxl_base.safetensors")]));
    assert_eq!(input("steps").max, Some(json!(50)));
}

#[tokio::test]
async fn files_that_cannot_be_had_are_told_by_the_names_that_callers_know() {
    let bench = bench().await;
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "there.png"}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    });
    let wanted: Publication = serde_json::from_value(json!({"endpoint": "default", "graph": graph,
        "inputs": [{"name": "photo", "node": "1", "field": "image"}]}))
    .unwrap();
    bench
        .service
        .publish(&operator(), publishing("photo"), wanted, 9)
        .await
        .unwrap();
    for (value, part) in [
        ("mine.png", "there is no file 'mine.png'"),
        ("a/mine.png [input]", "there is no file"),
        ("mine.png [output]", "none of your jobs here made mine.png"),
        ("s3://bucket/mine.png", "in no bucket that the operator opened"),
        (
            "data:image/png;base64,aGVsbG8gd29ybGQ=",
            "the bytes are not an image",
        ),
        (
            "http://127.0.0.1:1/a.png",
            "http://127.0.0.1:1/a.png cannot be fetched: ",
        ),
    ] {
        let refused = called(&bench, "photo", json!({"photo": value}))
            .await
            .unwrap_err();
        let CallError::Inputs(problems) = &refused else {
            panic!("{value}: {refused:?}")
        };
        assert_eq!(
            (problems[0].input.as_str(), problems[0].kind),
            ("photo", ProblemKind::BadFile),
            "{value}"
        );
        let told = refused.to_string();
        assert!(
            told.starts_with("input 'photo': ") && told.contains(part),
            "{value}: {told}"
        );
        assert!(
            !told.contains("LoadImage") && !told.contains("node"),
            "{value}: {told}"
        );
    }
}

#[tokio::test]
async fn an_export_counts_against_the_memory_for_answers_until_it_is_sent() {
    let bench = bench().await;
    let mut large = graph();
    large["6"]["inputs"]["text"] = json!("word ".repeat(IN_PLACE_BYTES / 4));
    published(&bench, "large", large).await;
    let memory = &bench.service.memory;
    // All there is of it.
    let all = || Box::pin(memory.answer(u64::MAX / 8));
    let file = bench
        .service
        .export_workflow(&operator(), &key("large"))
        .await
        .unwrap();
    assert!(futures::poll!(all()).is_pending());
    drop(file);
    assert!(futures::poll!(all()).is_ready());
}

#[tokio::test]
async fn large_calls_are_put_together_beside_the_runtime() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let bench = bench().await;
    published(&bench, "poster", graph()).await;
    let pieces = Arc::new(AtomicU32::new(0));
    let count = pieces.clone();
    let meanwhile: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let text = "word ".repeat(IN_PLACE_BYTES / 4);
    let call = called(&bench, "poster", json!({"prompt": text}));
    crate::beside::tests::MEANWHILE
        .scope(meanwhile, call)
        .await
        .unwrap();
    // Looking for assets, reading and writing the graph are the others.
    assert_eq!(pieces.load(Ordering::SeqCst), 4);
}
