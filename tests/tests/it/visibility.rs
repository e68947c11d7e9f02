//! What a key sees: jobs of the endpoints it may use, and of their instances nothing that belongs to operators.

use std::time::Duration;

use darkroom_tests::{Api, Options, Server, boxes::Engine, config, eventually, fc, graphs, http::Answer};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(180);

fn keys() -> String {
    let side = "endpoints = [\"side\"]";
    config::key("app", &["client"], "")
        + &config::key("narrow", &["client"], side)
        + &config::key("keeper", &["admin"], side)
        + &config::key("worker", &["worker"], "")
        + &config::key("operator", &["admin"], "")
        + "[endpoints.side]\n"
}

/// What an instance prints, and nobody but an operator may read.
const PRINTED: &str = "PRINTED-BY-THE-INSTANCE";

/// An endpoint whose instance prints a line and then does this.
fn talkative(name: &str, then: &str) -> String {
    let script = format!("echo {PRINTED}; {then}");
    config::endpoint_of_script(name, &script, "sh")
}

async fn start(default: &str) -> Server {
    let config = keys() + &talkative("default", default);
    Server::start(Options::default().with_config(&config)).await
}

/// The refusal without what differs between any two answers.
fn refusal(answer: &Answer, id: &str) -> Value {
    let mut body = answer.json();
    body["error"]["request_id"] = Value::Null;
    serde_json::from_str(&body.to_string().replace(id, "ID")).expect("still JSON")
}

async fn page(api: &Api) -> String {
    api.get("/").await.expect(200).text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_an_endpoint_that_the_key_may_not_use_is_unknown() {
    let server = start("exec \"$@\"").await;
    let app = server.api_as(Some("sk_app"));
    let id = app.submit(&graphs::plain(1, 8, 8)).await;
    app.finished(&id).await;
    let never = "01890a5d-ac96-774b-bcce-b302099a8057";
    for key in ["sk_narrow", "sk_keeper"] {
        let other = server.api_as(Some(key));
        let mut answers = Vec::new();
        for job in [id.as_str(), never] {
            let path = format!("/darkroom/v1/jobs/{job}");
            let mut of_job = Vec::new();
            for answer in [
                other.get(&path).await,
                other.get(&format!("{path}/events")).await,
                other.post(&format!("{path}/cancel"), &json!({})).await,
                other.post(&format!("{path}/retry"), &json!({})).await,
            ] {
                of_job.push(refusal(&answer.expect(404), job));
            }
            answers.push(of_job);
        }
        assert_eq!(answers[0], answers[1], "{key}: foreign and unknown look alike");
        let status = format!("/e/side/api/serverless/status?task_id={id}");
        assert_eq!(other.get(&status).await.expect(200).json(), json!([]), "{key}");
        let task = format!("/e/side/api/serverless/task/{id}");
        other.get(&task).await.expect(404);
    }
    // Nothing of that happened.
    assert_eq!(app.job(&id).await["state"], "succeeded");
    let worker = server.api_as(Some("sk_worker"));
    for path in ["", "/events"] {
        worker
            .get(&format!("/darkroom/v1/jobs/{id}{path}"))
            .await
            .expect(403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_the_page_hold_only_what_the_key_may_use() {
    let server = start("exec \"$@\"").await;
    let app = server.api_as(Some("sk_app"));
    let id = app.submit(&graphs::plain(1, 8, 8)).await;
    app.finished(&id).await;
    let side = app
        .post(
            "/darkroom/v1/endpoints/side/jobs",
            &json!({"graph": graphs::plain(2, 8, 8)}),
        )
        .await
        .expect(201)
        .json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    app.finished(&side).await;
    let names = |answer: &Value, list: &str, field: &str| -> Vec<String> {
        let items = answer[list].as_array().expect("a list");
        let mut names: Vec<String> = items
            .iter()
            .map(|item| item[field].as_str().expect("a text").to_owned())
            .collect();
        names.sort();
        names
    };
    for (key, wanted) in [
        ("sk_app", &["default", "side"][..]),
        ("sk_narrow", &["side"]),
        ("sk_keeper", &["side"]),
        ("sk_operator", &["default", "side"]),
    ] {
        let api = server.api_as(Some(key));
        for (list, field) in [
            ("jobs", "endpoint"),
            ("instances", "endpoint"),
            ("endpoints", "name"),
        ] {
            let answer = api.get(&format!("/darkroom/v1/{list}")).await.expect(200).json();
            assert_eq!(names(&answer, list, field), wanted, "{key}: {list}");
        }
        let page = page(&api).await;
        assert!(page.contains(&side), "{key}");
        assert_eq!(page.contains(&id), wanted.len() > 1, "{key}");
    }
    let narrow = server.api_as(Some("sk_narrow"));
    narrow.get("/darkroom/v1/jobs?endpoint=default").await.expect(403);
    narrow.get("/darkroom/v1/endpoints/default").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_shown_without_its_process_address_and_log() {
    let server = start("exec \"$@\"").await;
    let (app, operator) = (server.api_as(Some("sk_app")), server.api_as(Some("sk_operator")));
    let id = app.submit(&graphs::plain(1, 8, 8)).await;
    let job = app.finished(&id).await;
    let instance = job["attempts"][0]["instance"]
        .as_str()
        .expect("it ran")
        .to_owned();
    let path = format!("/darkroom/v1/instances/{instance}");
    let full = operator.get(&path).await.expect(200).json();
    let (pid, url) = (full["pid"].as_u64().expect("a pid"), full["url"].as_str());
    assert_eq!(server.instance_pids(), [i32::try_from(pid).expect("a pid")]);
    let url = url.expect("an address").to_owned();
    let log = operator.get(&format!("{path}/logs")).await.expect(200).text();
    assert!(log.contains(PRINTED), "{log}");

    app.get(&format!("{path}/logs")).await.expect(403);
    for other in ["sk_narrow", "sk_keeper"] {
        let other = server.api_as(Some(other));
        other.get(&path).await.expect(404);
    }
    let keeper = server.api_as(Some("sk_keeper"));
    keeper.get(&format!("{path}/logs")).await.expect(404);
    let mut shown = vec![page(&app).await];
    for path in [path.as_str(), "/darkroom/v1/instances", "/darkroom/v1/endpoints"] {
        let answer = app.get(path).await.expect(200);
        assert!(answer.text().contains(&instance), "{path}: it is shown");
        assert!(!answer.text().contains("\"pid\""), "{path}");
        shown.push(answer.text());
    }
    for text in shown {
        assert!(!text.contains(&url) && !text.contains(PRINTED), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_start_fails_is_told_to_operators_only() {
    let server = start("exit 3").await;
    let (app, operator) = (server.api_as(Some("sk_app")), server.api_as(Some("sk_operator")));
    let id = app.submit(&graphs::plain(1, 8, 8)).await;
    let waits = async |api: &Api| {
        eventually("the job waits for another start", LIMIT, async || {
            let job = api.job(&id).await;
            (job["waiting"]["reason"]["waiting_for"] == "backing_off").then(|| job.to_string())
        })
        .await
    };
    let job = waits(&operator).await;
    assert!(
        job.contains(PRINTED),
        "an operator sees what the start printed: {job}"
    );
    let mut shown = vec![waits(&app).await, page(&app).await];
    for path in ["instances?all=true", "endpoints", "jobs"] {
        shown.push(app.get(&format!("/darkroom/v1/{path}")).await.expect(200).text());
    }
    for text in shown {
        assert!(!text.contains(PRINTED), "{text}");
    }
    let all = operator
        .get("/darkroom/v1/instances?all=true")
        .await
        .expect(200)
        .text();
    assert!(all.contains(PRINTED), "{all}");
    let of = async |api: &Api| {
        let endpoint = api.get("/darkroom/v1/endpoints/default").await.expect(200).json();
        endpoint["start_failures"].clone()
    };
    let trouble = of(&operator).await;
    assert!(trouble["in_a_row"].as_u64() >= Some(1), "{trouble}");
    assert!(trouble["last_error"].to_string().contains(PRINTED), "{trouble}");
    let trouble = of(&app).await;
    assert!(
        trouble["next_try_at"].is_string(),
        "when it goes on is everybody's: {trouble}"
    );
    assert!(trouble.get("last_error").is_none(), "{trouble}");
    app.post(&format!("/darkroom/v1/jobs/{id}/cancel"), &json!({}))
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dying_instance_printed_is_no_part_of_its_jobs() {
    let server = start("exec \"$@\"").await;
    let (app, operator) = (server.api_as(Some("sk_app")), server.api_as(Some("sk_operator")));
    let exit = graphs::through("TestExit", json!({"code": 3}), "a", 1);
    let told = fc::run(&app, "", &exit).await.expect(500).text();
    let jobs = app.get("/darkroom/v1/jobs").await.expect(200).json();
    let id = jobs["jobs"][0]["id"].as_str().expect("an id");
    let job = app.job(id).await;
    assert_eq!(job["failure"]["code"], "instance_lost", "{job}");
    let events = app
        .get(&format!("/darkroom/v1/jobs/{id}/events"))
        .await
        .expect(200)
        .text();
    for text in [told, job.to_string(), events] {
        assert!(text.contains("exited with code 3"), "{text}");
        assert!(!text.contains(PRINTED), "{text}");
    }
    // Its operator finds it where the instance is.
    let all = operator
        .get("/darkroom/v1/instances?all=true")
        .await
        .expect(200)
        .text();
    assert!(all.contains(PRINTED), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_read_the_given_names_of_boxes_and_no_addresses() {
    let (plain, fancy) = (Engine::running(false), Engine::running(true));
    let urls = format!(
        "urls = [{:?}, {{ url = {:?}, name = \"b\" }}]",
        plain.url(),
        fancy.url()
    );
    let config = keys() + &format!("[endpoints.default]\nbackend = \"remote\"\n{urls}\n");
    let server = Server::start(Options::default().with_config(&config)).await;
    let (app, operator) = (server.api_as(Some("sk_app")), server.api_as(Some("sk_operator")));
    let names = async |api: &Api| {
        let mut names: Vec<String> = api
            .instances()
            .await
            .iter()
            .filter(|instance| instance["state"] == "ready")
            .filter_map(|instance| instance["box"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        names
    };
    eventually("both are ready", LIMIT, async || {
        (names(&operator).await == [plain.name(), "b".to_owned()]).then_some(())
    })
    .await;
    assert_eq!(names(&app).await, ["b", "box-1"]);

    // Wrong everywhere, and lacking on one.
    let mut wrong = graphs::sleep(0.1, "s", 1);
    wrong["9"]["class_type"] = json!("SaveImag");
    let refused = app.post("/prompt", &json!({"prompt": wrong})).await.expect(400);
    let on = &refused.json()["error"]["extra_info"]["suggestions_on"]["SaveImage"];
    assert_eq!(*on, json!(["box-1", "b"]), "{}", refused.text());
    let check = json!({"graph": graphs::sleep(0.1, "s", 1)});
    let path = "/darkroom/v1/endpoints/default/check";
    let checked = app.post(path, &check).await.expect(200).json();
    let mut told: Vec<&Value> = checked["boxes"]
        .as_array()
        .expect("boxes")
        .iter()
        .map(|b| &b["name"])
        .collect();
    told.sort_by_key(|name| name.to_string());
    assert_eq!(told, ["b", "box-1"]);
    for text in [refused.text(), checked.to_string()] {
        assert!(!text.contains("127.0.0.1"), "{text}");
    }
    let checked = operator.post(path, &check).await.expect(200).text();
    assert!(checked.contains(&plain.name()), "{checked}");
}
