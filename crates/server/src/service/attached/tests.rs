use super::*;
use crate::service::testing::Bench;

fn server(target: &str, name: Option<&str>) -> AttachedBox {
    AttachedBox {
        name: name.map(str::to_owned),
        target: target.to_owned(),
        python: None,
        args: vec![],
    }
}

fn stored(boxes: &[(&str, Option<&str>)]) -> Stored {
    Stored {
        boxes: boxes.iter().map(|(target, name)| server(target, *name)).collect(),
    }
}

async fn kept(bench: &Bench, endpoint: &str, stored: &Stored) {
    bench
        .service
        .keep(&endpoint.parse().unwrap(), stored)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_attached_is_laid_over_what_is_implied_and_under_what_is_configured() {
    let bench = Bench::new();
    let service = &bench.service;
    kept(
        &bench,
        "default",
        &stored(&[("http://a:1", None), ("http://b:1", Some("b"))]),
    )
    .await;
    kept(&bench, "broken", &stored(&[("/no/such/place", None)])).await;
    let configured = BTreeMap::clone(&service.endpoints());
    service.configure(configured.clone(), true).await.unwrap();
    let endpoints = service.endpoints();
    assert_eq!(
        endpoints.keys().map(EndpointName::as_str).collect::<Vec<_>>(),
        ["default"]
    );
    let default = &endpoints[&bench.endpoint()];
    assert!(default.has_box("a:1") && default.has_box("b") && !default.has_box("engine"));
    assert_eq!(default.scaling.max_instances, 2);

    service.configure(configured, false).await.unwrap();
    assert!(
        service.endpoints()[&bench.endpoint()].has_box("engine"),
        "the configuration has the last word"
    );
    let refused = Attach {
        endpoint: bench.endpoint(),
        attached: server("http://c:1", None),
    };
    let refused = service.attach(refused).await.unwrap_err().to_string();
    assert!(refused.contains("stands in the configuration"), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_attached_or_detached_is_said_in_words() {
    let bench = Bench::new();
    let service = &bench.service;
    service
        .configure(BTreeMap::clone(&service.endpoints()), true)
        .await
        .unwrap();
    kept(&bench, "gpu", &stored(&[("http://a:1", Some("one"))])).await;
    kept(&bench, "more", &stored(&[("http://b:1", Some("one"))])).await;
    service.lay_over().await.unwrap();
    let attach = async |endpoint: &str, attached: AttachedBox| {
        let endpoint = endpoint.parse().unwrap();
        let outcome = service.attach(Attach { endpoint, attached }).await;
        outcome.unwrap_err().to_string()
    };
    for (endpoint, attached, said) in [
        ("gpu", server("http://b:1", Some("one")), "'one' is taken"),
        ("gpu", server("http://a:1/", None), "attached to 'gpu' already"),
        (
            "gpu",
            server("/opt/ComfyUI", None),
            "an installation is an endpoint of its own",
        ),
        (
            "new",
            server("/no/such/place", None),
            "there is no main.py in /no/such/place",
        ),
        (
            "new",
            server("http://name:secret@a:1", None),
            "must not hold a name or password",
        ),
        ("new", server("http://127.0.0.1:1", None), "nothing listens"),
    ] {
        let told = attach(endpoint, attached).await;
        assert!(told.contains(said), "{told}");
    }
    assert!(
        !service.endpoints().contains_key(&"new".parse().unwrap()),
        "nothing was kept"
    );

    let detach = async |what: &str, from: Option<&str>| {
        let from = from.map(|name| name.parse().unwrap());
        service.detach(what, from.as_ref()).await
    };
    for (what, from, said) in [
        ("two", None, "there are one (gpu), one (more)"),
        ("one", None, "name one with --endpoint"),
        ("one", Some("nowhere"), "no endpoint 'nowhere'"),
        ("http://b:1", Some("gpu"), "nothing attached is called"),
    ] {
        let told = detach(what, from).await.unwrap_err().to_string();
        assert!(told.contains(said), "{told}");
    }
    let detached = detach("http://a:1/", None).await.unwrap();
    assert!(detached.endpoint_is_gone && detached.endpoint.as_str() == "gpu");
    assert!(!service.endpoints().contains_key(&detached.endpoint));
    assert_eq!(service.attached_boxes().await.unwrap().len(), 1);
}
