use std::{collections::BTreeMap, time::Duration};

use darkroom_core::endpoint::{Backend, Kind, OnExit, RemoteServer};

use super::*;

fn read(text: &str) -> Result<Config, Error> {
    Config::from_text(None, text, &BTreeMap::new(), &Overrides::default())
}

fn problems(text: &str) -> Vec<String> {
    match read(text) {
        Err(Error::Invalid { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("expected problems, got {other:?}"),
    }
}

fn default_endpoint(config: &Config) -> &Endpoint {
    &config.endpoints[&"default".parse::<EndpointName>().unwrap()]
}

#[test]
fn nothing_at_all_is_one_endpoint_on_the_embedded_engine() {
    let config = read("").unwrap();
    assert_eq!(config.server.listen.to_string(), DEFAULT_LISTEN);
    assert!(config.server.data_dir.is_absolute() && config.server.data_dir.ends_with("darkroom-data"));
    assert!(config.keys.is_empty());
    let endpoint = default_endpoint(&config);
    assert_eq!(endpoint.kind, Kind::Comfyui);
    assert!(matches!(&endpoint.backend, Backend::Process(spec) if spec.command.is_empty()));
    assert_eq!(endpoint.scaling.idle_timeout, Duration::from_secs(30));
    assert_eq!(endpoint.limits, darkroom_core::endpoint::Limits::default());
}

#[test]
fn the_example_is_the_defaults() {
    let example = read(Config::example()).unwrap();
    assert!(!example.default_is_implied, "it writes `default` down");
    let implied = Config {
        default_is_implied: true,
        ..example
    };
    assert_eq!(implied, read("").unwrap());
}

#[test]
fn every_problem_is_reported_at_once_with_its_path() {
    let found = problems(
        r#"
        colour = 1
        [server]
        lisen = "127.0.0.1:1"
        listen = "nowhere"
        public_url = "ftp://x"
        trusted_proxies = ["10.0.0.0/99"]
        [store]
        url = "postgres://u:hunter2@db/x"
        [fetch]
        timeout = 30
        max_bytes = "lots"
        [[keys]]
        name = "a"
        secret = "s1"
        scopes = ["cleint"]
        [[keys]]
        name = "a"
        [endpoints.api]
        kind = "comfy"
        [endpoints.sdxl]
        backend = "remote"
        comfyui = "/opt/ComfyUI"
        anonymous = "yes"
        [endpoints.sdxl.scaling]
        max_instance = 3
        idle_timeout = "5 min"
        [endpoints.sdxl.limits]
        max_attempts = 0
        queue_ttl = "never"
        "#,
    );
    let expected = [
        "server.listen: expected an address and port like \"127.0.0.1:8288\" or \"0.0.0.0:8288\", got \"nowhere\"",
        "server.public_url: expected a URL like \"https://gpu.example\", got \"ftp://x\"",
        "server.trusted_proxies[0]: expected an address or network like \"10.0.0.0/8\", got \"10.0.0.0/99\"",
        "server.lisen: unknown key; did you mean 'listen'?",
        "store.url: postgres is not supported by this version; use \"sqlite\"",
        "fetch.max_bytes: expected a size like \"256MB\" or \"0\", got \"lots\"",
        "fetch.timeout: expected a text, got 30",
        "keys[0].scopes[0]: 'cleint' is not one of client, publish, worker, admin; did you mean 'client'?",
        "keys[1].secret: is missing: give secret, secret_file or secret_env, or app_key and app_secret",
        "endpoints.api: 'api' is a reserved name",
        "endpoints.api.kind: 'comfy' is not one of comfyui, worker, queue",
        "endpoints.sdxl.comfyui: belongs to backend = \"process\"",
        "endpoints.sdxl.urls: is missing: backend = \"remote\" needs the URLs of its servers",
        "endpoints.sdxl.anonymous: expected true or false, got \"yes\"",
        "endpoints.sdxl.scaling.idle_timeout: expected a duration like \"300s\", \"15m\" or \"2h\", got \"5 min\"",
        "endpoints.sdxl.scaling.max_instance: unknown key; did you mean 'max_instances'?",
        "endpoints.sdxl.limits.queue_ttl: expected a duration like \"300s\" or \"2h\", or \"none\", got \"never\"",
        "endpoints.sdxl.limits.max_attempts: expected a whole number of at least 1, got 0",
        "colour: unknown key",
    ];
    for line in expected {
        assert!(
            found.iter().any(|p| p.starts_with(line)),
            "missing: {line}\nfound: {found:#?}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(!format!("{found:?}").contains("hunter2"));
}

#[test]
fn the_environment_lies_over_the_file_and_flags_over_both() {
    let env = BTreeMap::from([
        ("DARKROOM__SERVER__LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
        (
            "DARKROOM__SERVER__DATA_DIR".to_owned(),
            "/srv/from-env".to_owned(),
        ),
        (
            "DARKROOM__SERVER__CORS_ORIGINS".to_owned(),
            "https://a.example, https://b.example".to_owned(),
        ),
        ("DARKROOM__FETCH__MAX_BYTES".to_owned(), "1MB".to_owned()),
    ]);
    let flags = Overrides {
        listen: Some("127.0.0.1:3".to_owned()),
        ..Overrides::default()
    };
    let config = Config::from_text(None, "[server]\nlisten = '127.0.0.1:1'", &env, &flags).unwrap();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.data_dir, Path::new("/srv/from-env"));
    assert_eq!(
        config.server.cors_origins,
        ["https://a.example", "https://b.example"]
    );
    assert_eq!(config.fetch.max_bytes, 1_000_000);
}

#[test]
fn a_problem_names_the_variable_or_flag_that_caused_it() {
    let env = BTreeMap::from([
        ("DARKROOM__SERVER__LISTEM".to_owned(), "x".to_owned()),
        ("DARKROOM__ENDPOINTS__A__KIND".to_owned(), "x".to_owned()),
    ]);
    let flags = Overrides {
        listen: Some("9999".to_owned()),
        ..Overrides::default()
    };
    let text = Config::from_text(None, "", &env, &flags).unwrap_err().to_string();
    assert!(text.starts_with("3 problems in the configuration"), "{text}");
    assert!(
        text.contains("server.listen (from --listen): expected an address"),
        "{text}"
    );
    assert!(
        text.contains("server.listem (from DARKROOM__SERVER__LISTEM): unknown key; did you mean 'listen'?"),
        "{text}"
    );
    assert!(
        text.contains("DARKROOM__ENDPOINTS__A__KIND names no setting"),
        "{text}"
    );
}

#[test]
fn a_comfyui_checkout_becomes_a_command() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("main.py"), "").unwrap();
    let text = format!(
        "[endpoints.sdxl]\ncomfyui = {:?}\nargs = ['--lowvram']\ngpus = ['0', '1']\nscaling.on_exit = 'keep'",
        dir.path()
    );
    let config = read(&text).unwrap();
    assert_eq!(
        config.endpoints.len(),
        1,
        "'default' is only made up when no endpoint is given"
    );
    let endpoint = config.endpoints.values().next().unwrap();
    let Backend::Process(spec) = &endpoint.backend else {
        panic!("{endpoint:?}")
    };
    assert_eq!(spec.command[0], "python3");
    assert_eq!(spec.command[1], dir.path().join("main.py").to_str().unwrap());
    assert_eq!(spec.command[2..6], ["--listen", "127.0.0.1", "--port", "{port}"]);
    assert_eq!(spec.command.last().unwrap(), "--lowvram");
    assert_eq!(spec.working_dir.as_deref(), Some(dir.path()));
    assert_eq!(endpoint.scaling.max_instances, 2, "one per GPU");
    assert_eq!(endpoint.scaling.idle_timeout, Duration::from_secs(300));
    assert_eq!(endpoint.scaling.on_exit, OnExit::Keep);
}

#[test]
fn the_comfyui_flag_takes_a_directory_or_a_url() {
    let flags = |comfyui: &str| Overrides {
        comfyui: Some(comfyui.to_owned()),
        ..Overrides::default()
    };
    let file = "[endpoints.default]\ncommand = ['x', '{port}']\nlimits.max_queued = 7";
    let config = Config::from_text(None, file, &BTreeMap::new(), &flags("http://gpu:8188/")).unwrap();
    let default = &config.endpoints[&"default".parse().unwrap()];
    let servers = vec![RemoteServer::new("http://gpu:8188")];
    assert_eq!(default.backend, Backend::Remote { servers });
    assert_eq!(default.limits.max_queued, 7);
    let error = Config::from_text(None, "", &BTreeMap::new(), &flags("/nowhere/ComfyUI")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("endpoints.default.comfyui (from --comfyui): there is no main.py in /nowhere/ComfyUI"),
        "{error}"
    );
}

#[test]
fn a_remote_server_has_a_name_and_headers_that_are_not_shown() {
    let file = "[endpoints.far]\nbackend = 'remote'\nurls = ['http://gpu-a:8188/', { url = 'https://b/comfy', name = 'b', \
                header = { Authorization = 'Bearer sk_far' } }]";
    let config = Config::from_text(None, file, &BTreeMap::new(), &Overrides::default()).unwrap();
    let far = &config.endpoints[&"far".parse().unwrap()];
    let Backend::Remote { servers } = &far.backend else {
        panic!("{:?}", far.backend)
    };
    let named: Vec<_> = servers
        .iter()
        .map(|s| (s.name.as_str(), s.url.as_str()))
        .collect();
    assert_eq!(
        named,
        [("gpu-a:8188", "http://gpu-a:8188"), ("b", "https://b/comfy")]
    );
    assert_eq!(servers[1].headers["Authorization"], "Bearer sk_far");
    assert!(!format!("{config:?}").contains("sk_far"));
    assert_eq!(
        (far.scaling.max_instances, far.scaling.on_exit),
        (2, OnExit::Keep)
    );
}

#[test]
fn commands_are_checked() {
    for (text, problem) in [
        ("command = ['run']", "command: must hold {port}"),
        ("command = []", "command: must name a program"),
        (
            "command = ['run', '{prot}', '{port}']",
            "command[1]: unknown placeholder {prot}",
        ),
        ("args = ['--lowvram']", "args: belongs beside comfyui"),
        ("kind = 'queue'\nbackend = 'process'", "command: is missing"),
        ("urls = ['http://x']", "urls: belongs to backend = \"remote\""),
        (
            "backend = 'remote'\nurls = ['gpu:8188']",
            "urls[0]: expected a URL",
        ),
        (
            "backend = 'kubernetes'",
            "backend: container and kubernetes are not supported",
        ),
        (
            "kind = 'queue'\nbackend = 'remote'\nurls = ['http://gpu:8188']",
            "backend: remote servers are ComfyUIs or programs",
        ),
        (
            "backend = 'remote'\nurls = ['http://u:p@gpu:8188']",
            "urls[0]: must not hold a name or password",
        ),
        (
            "backend = 'remote'\nurls = ['http://gpu:8188', 'http://gpu:8188/']",
            "urls[1]: http://gpu:8188 is listed twice",
        ),
        (
            "backend = 'remote'\nurls = [{ url = 'http://a', name = 'x' }, { url = 'http://b', name = 'x' }]",
            "urls[1]: another server has the name 'x' already",
        ),
        (
            "backend = 'remote'\nurls = [{ url = 'http://a', header = { 'x y' = 'z' } }]",
            "urls[0]: header.x y: is no name of a header",
        ),
        (
            "backend = 'remote'\nurls = [{ url = 'http://a', key = 'z' }]",
            "urls[0].key: unknown key",
        ),
        (
            "kind = 'worker'\nhandler = '/nowhere/handler.py'",
            "handler: there is no file /nowhere/handler.py",
        ),
        (
            "kind = 'worker'\ncommand = ['run']\nworking_dir = '/'",
            "working_dir: a worker that takes jobs by polls runs in an empty directory of its own",
        ),
        (
            "handler = '/nowhere/handler.py'",
            "handler: belongs to kind = \"worker\"",
        ),
        (
            "kind = 'worker'\ncommand = ['run']\nbucket = { endpoint_url = 'http://s3' }",
            "bucket.access_key_id: is missing",
        ),
        (
            "scaling = { min_instances = 2, max_instances = 1 }",
            "scaling.min_instances: 2 is more than max_instances, 1",
        ),
        (
            "gpus = ['0']\nscaling = { max_instances = 2 }",
            "scaling.max_instances: 2 is more than the 1",
        ),
        (
            "anonymous_history = true",
            "anonymous_history: needs anonymous = true",
        ),
        (
            "hosts = ['a:80']",
            "hosts[0]: expected a host name without a port",
        ),
        (
            "warmup = '/no/such/graph.json'",
            "warmup: cannot read /no/such/graph.json",
        ),
        ("limits = 3", "limits: expected a section [endpoints.x.limits]"),
        (
            "env = { 'A=B' = '1' }",
            "env.A=B: is not a valid environment variable",
        ),
    ] {
        let found = problems(&format!("[endpoints.x]\n{text}"));
        assert!(
            found[0].starts_with(&format!("endpoints.x.{problem}")),
            "{text}: {found:#?}"
        );
    }
}

#[test]
fn a_queue_without_a_command_is_served_from_outside() {
    let config = read("[endpoints.w]\nkind = 'queue'").unwrap();
    assert_eq!(
        config.endpoints.values().next().unwrap().backend,
        Backend::External
    );
}

#[test]
fn a_host_selects_one_endpoint() {
    let found = problems("[endpoints.a]\nhosts = ['x.example']\n[endpoints.b]\nhosts = ['X.example']");
    assert_eq!(
        found,
        ["endpoints.b.hosts: 'x.example' already selects the endpoint 'a'"]
    );
}

#[test]
fn secrets_come_from_three_places_and_are_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "from-file\n").unwrap();
    let env = BTreeMap::from([("APP_KEY".to_owned(), "from-env".to_owned())]);
    let text = format!(
        "[[keys]]\nname='a'\nsecret='plain'\n[[keys]]\nname='b'\nsecret_file={path:?}\n[[keys]]\nname='c'\nsecret_env='APP_KEY'\n\
         [[keys]]\nname='d'\napp_key='ak'\napp_secret='signing'\ntenant='acme'\nendpoints=['default']"
    );
    let config = Config::from_text(None, &text, &env, &Overrides::default()).unwrap();
    let secrets: Vec<&str> = config
        .keys
        .iter()
        .map(|key| match &key.credential {
            Credential::Key(secret) => secret.expose(),
            Credential::App { app_secret, .. } => app_secret.expose(),
        })
        .collect();
    assert_eq!(secrets, ["plain", "from-file", "from-env", "signing"]);
    let shown = format!("{config:?}");
    for secret in secrets {
        assert!(
            !shown.contains(&format!("\"{secret}\"")),
            "{secret} is in {shown}"
        );
    }
}

#[test]
fn bad_keys_are_named() {
    for (text, problem) in [
        ("secret='s'", "keys[0].name: is missing"),
        (
            "name='a'\nsecret='s'\nsecret_env='X'",
            "keys[0].secret: give only one of",
        ),
        (
            "name='a'\nsecret_env='X'",
            "keys[0].secret_env: the environment variable 'X' is not set",
        ),
        (
            "name='a'\nsecret_file='/nowhere'",
            "keys[0].secret_file: cannot read '/nowhere'",
        ),
        (
            "name='a'\nsecret=''",
            "keys[0].secret: a secret must not be empty",
        ),
        (
            "name='a'\napp_key='k'",
            "keys[0].app_secret: is missing beside app_key",
        ),
        (
            "name='a'\nsecret='s'\ntenant='anonymous'",
            "keys[0].tenant: 'anonymous' is the tenant of",
        ),
        (
            "name='a'\nsecret='s'\nendpoints=['../x']",
            "keys[0].endpoints[0]: '../x' is not a valid endpoint name",
        ),
    ] {
        let found = problems(&format!("[[keys]]\n{text}"));
        assert!(found[0].starts_with(problem), "{text}: {found:#?}");
    }
}

#[test]
fn broken_toml_says_where() {
    let error = read("[server\nlisten = 3").unwrap_err().to_string();
    assert!(
        error.contains("is not valid TOML") && error.contains("line 1"),
        "{error}"
    );
}

proptest::proptest! {
    #[test]
    fn no_file_panics(text in "(\\[[a-z.]{0,12}\\]\n|[a-z_]{1,12} *= *(1|true|\"[a-z0-9:/]{0,12}\"|\\[\\]|\\{\\})\n){0,8}") {
        let _ = read(&text);
    }
}

fn bucket(config: &Config) -> &darkroom_blobs::S3Options {
    match &config.blobs.location {
        BlobLocation::S3(options) => options,
        BlobLocation::Local => panic!("a bucket is configured"),
    }
}

#[test]
fn a_bucket_is_an_address_and_two_keys() {
    let config = read("[blobs]\nurl='s3://pictures/some/prefix/'\naccess_key='a'\nsecret_key='b'\n").unwrap();
    let options = bucket(&config);
    assert_eq!(
        (options.bucket.as_str(), options.prefix.as_str()),
        ("pictures", "some/prefix")
    );
    assert_eq!(
        (options.region.as_str(), options.virtual_host),
        ("us-east-1", false)
    );
    assert_eq!(options.endpoint, None);
    // OSS is known by its address.
    let oss = read(
        "[blobs]\nurl='s3://b'\nendpoint='https://oss-cn-hangzhou-internal.aliyuncs.com/'\naccess_key='a'\nsecret_key='b'\n",
    )
    .unwrap();
    let options = bucket(&oss);
    assert_eq!(
        (options.region.as_str(), options.virtual_host),
        ("oss-cn-hangzhou", true)
    );
    let endpoint = options.endpoint.as_deref();
    assert_eq!(endpoint, Some("https://oss-cn-hangzhou-internal.aliyuncs.com"));
}

#[test]
fn a_buckets_keys_come_from_files_and_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "of-a-file\n").unwrap();
    let env = BTreeMap::from([
        ("AWS_ACCESS_KEY_ID".to_owned(), "AKIA".to_owned()),
        (
            "AWS_SECRET_ACCESS_KEY".to_owned(),
            "of-the-environment".to_owned(),
        ),
        ("AWS_SESSION_TOKEN".to_owned(), "token".to_owned()),
    ]);
    let with = |more: &str| {
        let text = format!("[blobs]\nurl='s3://b'\n{more}");
        Config::from_text(None, &text, &env, &Overrides::default()).unwrap()
    };
    let config = with("");
    let found = &bucket(&config).credentials;
    assert_eq!(
        (found.access_key.as_str(), found.secret_key.as_str()),
        ("AKIA", "of-the-environment")
    );
    assert_eq!(found.session_token.as_deref(), Some("token"));
    let config = with(&format!("access_key='a'\nsecret_key_file={path:?}\n"));
    let found = &bucket(&config).credentials;
    assert_eq!(
        (found.access_key.as_str(), found.secret_key.as_str()),
        ("a", "of-a-file")
    );
    assert_eq!(found.session_token, None, "it belongs to the other key");
    assert!(!format!("{config:?}").contains("of-a-file"));
}

#[test]
fn what_is_wrong_with_a_bucket_is_said_by_its_key() {
    for (text, wanted) in [
        ("url='s3://b'", "blobs.access_key: is missing"),
        ("url='s3://b'\naccess_key='a'", "blobs.access_key: is missing"),
        (
            "url='s3:///x'\naccess_key='a'\nsecret_key='b'",
            "blobs.url: expected the bucket's name",
        ),
        (
            "url='s3://b/../x'\naccess_key='a'\nsecret_key='b'",
            "blobs.url: the prefix",
        ),
        ("url='gs://b'", "blobs.url: expected \"local\" or"),
        (
            "url='s3://b'\nendpoint='ftp://x'\naccess_key='a'\nsecret_key='b'",
            "blobs.endpoint: expected",
        ),
        (
            "url='s3://b'\nendpoint='https://u:p@x'\naccess_key='a'\nsecret_key='b'",
            "blobs.endpoint: expected",
        ),
        ("region='x'", "blobs.region: belongs to url"),
    ] {
        let found = problems(&format!("[blobs]\n{text}\n"));
        assert!(
            found.len() == 1 && found[0].starts_with(wanted),
            "{text}: {found:?}"
        );
    }
}
