use darkroom_comfy::published::{Finding, Level};
use serde_json::json;

use super::*;
use crate::service::testing::Bench;

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

fn publishing(id: &str) -> Publishing {
    Publishing {
        workflow: key(id),
        note: String::new(),
        alias: None,
        by: "me".to_owned(),
        from_draft: false,
    }
}

async fn published(bench: &Bench, id: &str, graph: Value) -> Version {
    match bench
        .service
        .publish(publishing(id), publication(graph), 1000)
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
    checked.unwrap().1
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
        .move_alias(&key("poster"), &AliasName::main(), to, "me")
        .await
        .unwrap();
    assert_eq!(text(None, None).await.unwrap(), "a dog");
    bench
        .service
        .move_alias(&key("poster"), &AliasName::main(), Target::Back, "me")
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
    let nothing = bench.service.workflow(&key("poster")).await.unwrap_err();
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
        (checked.1[0].code.as_str(), checked.1[0].level),
        ("missing_default_file", Level::Warning)
    );
    let declared = &checked.0.unwrap().published.inputs[0];
    assert!(declared.required && declared.default.is_none());
    let there = bench
        .service
        .check_publication(&tenant, &wanted("there.png", input), 1000)
        .await
        .unwrap();
    assert!(!there.0.unwrap().published.inputs[0].required);
}

#[tokio::test]
async fn a_draft_may_have_mistakes_and_is_published_when_it_has_none() {
    let bench = bench().await;
    let mut bad = graph();
    bad["6"]["class_type"] = json!("Nothing");
    let findings = bench
        .service
        .put_draft(&key("poster"), publication(bad), 1000)
        .await
        .unwrap();
    assert!(findings.iter().any(Finding::is_error));
    let record = bench.service.workflow(&key("poster")).await.unwrap();
    assert!(record.latest.is_none() && record.draft_at.is_some());
    bench
        .service
        .put_draft(&key("poster"), publication(graph()), 1000)
        .await
        .unwrap();
    let (_, draft) = bench.service.draft(&key("poster")).await.unwrap();
    let outcome = bench
        .service
        .publish(
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
        bench.service.draft(&key("poster")).await.unwrap_err().code(),
        "not_found"
    );
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
        .move_alias(&key("poster"), &"beta".parse().unwrap(), to, "me")
        .await
        .unwrap();
    let file = here.service.export_workflow(&key("poster")).await.unwrap();
    let whole: WholeWorkflow = serde_json::from_value(file.clone()).unwrap();
    let imported = there
        .service
        .import_workflow(&key("poster"), whole.clone(), None, "me")
        .await
        .unwrap();
    assert_eq!(imported.versions.len(), 2);
    assert_eq!(there.service.export_workflow(&key("poster")).await.unwrap(), file);
    // Once more: numbers go on, aliases stay.
    let again = there
        .service
        .import_workflow(&key("poster"), whole, None, "me")
        .await
        .unwrap();
    assert_eq!(again.versions.first().unwrap().number(), 3);
    assert!(again.aliases.is_empty());
    let mut strange = file;
    strange["format"] = json!("other/1");
    let strange: WholeWorkflow = serde_json::from_value(strange).unwrap();
    let refused = there
        .service
        .import_workflow(&key("x"), strange, None, "me")
        .await
        .unwrap_err();
    assert!(refused.to_string().contains(FORMAT), "{refused}");
}
