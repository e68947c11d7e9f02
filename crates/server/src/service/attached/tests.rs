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

fn as_configured(service: &Service) -> BTreeMap<EndpointName, Endpoint> {
    let endpoints = service.endpoints();
    let plain = |(name, endpoint): (&EndpointName, &Arc<Endpoint>)| (name.clone(), Endpoint::clone(endpoint));
    endpoints.iter().map(plain).collect()
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
    let configured = as_configured(service);
    service.configure(configured.clone(), true, None).await.unwrap();
    let endpoints = service.endpoints();
    assert_eq!(
        endpoints.keys().map(EndpointName::as_str).collect::<Vec<_>>(),
        ["default"]
    );
    let default = &endpoints[&bench.endpoint()];
    assert!(default.has_box("a:1") && default.has_box("b") && !default.has_box("engine"));
    assert_eq!(default.scaling.max_instances, 2);

    service.configure(configured, false, None).await.unwrap();
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
        .configure(as_configured(service), true, None)
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
        (
            "new",
            server("HTTP://A:1/", None),
            "works for endpoint 'gpu' already",
        ),
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

#[test]
fn one_server_is_known_however_its_address_is_spelt() {
    for (one, other, same) in [
        ("http://localhost:8188", "HTTP://127.0.0.1:8188/", true),
        ("http://[::1]:80/a/", "http://LOCALHOST/a", true),
        ("https://gpu.example", "https://GPU.example.:443/", true),
        ("http://gpu:1", "http://gpu:2", false),
        ("http://gpu:1/a", "http://gpu:1/b", false),
    ] {
        let (one, other) = (server(one, None), server(other, None));
        assert_eq!(one.address() == other.address(), same, "{one:?} {other:?}");
        assert!(other.is_server() && other.address().is_some());
    }
    assert_eq!(server("/opt/ComfyUI", None).address(), None);
}

#[tokio::test]
async fn what_another_version_wrote_is_not_overwritten() {
    let bench = Bench::new();
    let service = &bench.service;
    service
        .configure(as_configured(service), true, None)
        .await
        .unwrap();
    let endpoint: EndpointName = "newer".parse().unwrap();
    let newer = r#"{"machines": 3}"#.to_owned();
    service
        .store
        .put_endpoint(&endpoint, newer.clone())
        .await
        .unwrap();
    let wish = Attach {
        endpoint: endpoint.clone(),
        attached: server("http://127.0.0.1:1", None),
    };
    let refused = service.attach(wish).await.unwrap_err().to_string();
    assert!(refused.contains("written by another version"), "{refused}");
    assert_eq!(service.store.endpoints().await.unwrap(), [(endpoint, newer)]);
}

#[tokio::test]
async fn a_box_that_hangs_is_in_nobodys_way_and_a_caller_that_left_leaves_nothing_half_done() {
    let bench = Bench::new();
    let service = bench.service.clone();
    service
        .configure(as_configured(&service), true, None)
        .await
        .unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let wish = Attach {
        endpoint: "slow".parse().unwrap(),
        attached: server(&url, None),
    };
    let hanging = tokio::spawn({
        let service = service.clone();
        async move { service.attach(wish).await }
    });
    let _accepted = silent.accept().await.unwrap();
    // Another one is refused at once, not when the first has its answer.
    let other = service.detach("nothing", None).await.unwrap_err().to_string();
    assert!(other.contains("nothing is attached"), "{other}");
    hanging.abort();
    let _ = hanging.await;
    assert!(service.attached_boxes().await.unwrap().is_empty());
    assert!(!service.endpoints().contains_key(&"slow".parse().unwrap()));
}
