//! Wiring: a configuration and a listening socket become a running server.

use std::{net::TcpListener, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_blobs::{Blobs, Failpoint, LocalBlobs, S3Blobs, signed_url::Signer};
use darkroom_core::{Clock, Ids, NodeName};
use darkroom_instances::{Backends, InstanceBackend, ProcessBackend, ProcessConfig, RemoteBackend};
use darkroom_store::{
    Store,
    sqlite::{Options, SqliteStore},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{AuthState, Keyring, Rules, ServerKey, check_listen, end_streams, login},
    config::{BlobLocation, Config, Credential, Database, layout},
    control::Control,
    http::{BaseUrl, BlobAccess, Cors, Outer, Readiness, Stop, around, blobs, health, serve},
    memory::BodyMemory,
    metrics::Metrics,
    pages::frontend::Frontends,
    protocols,
    service::{self, Parts, Service, Settings, fetch},
    state::{App, AppState, Reload},
};

/// What the caller of [`run`] decides beside the configuration.
#[derive(Default)]
pub struct RunOptions {
    /// Program and first arguments of the embedded engine.
    pub engine_command: Vec<String>,
    /// The embedded engine's `/object_info`, so that graphs are checked before an instance ever ran.
    pub engine_object_info: Option<Vec<u8>>,
    /// Named points at which tests end the process.
    pub failpoint: Option<Failpoint>,
    /// Look at what the endpoint `default` runs on at the start, and say in the log what is there.
    pub introduce: bool,
    /// Configurations to change to while running: keys and endpoints count at once, the rest at the next start.
    pub reload: Option<mpsc::Receiver<Config>>,
}

/// How long requests that still run may take after the grace of a stop.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long instances may take to end.
const INSTANCES_DEADLINE: Duration = Duration::from_secs(30);

/// Serves until `shutdown`, then stops without dropping anybody. The caller holds the lock of the data directory.
///
/// # Errors
/// When something needed cannot be opened, or the control loop cannot recover.
pub async fn run(
    config: Config,
    listener: TcpListener,
    mut options: RunOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener
        .local_addr()
        .context("the listening socket has no address")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(SystemIds);
    let data_dir = std::path::absolute(&config.server.data_dir)?;

    let metrics = Arc::new(Metrics::new());
    let (store, sqlite) = open_store(&config, &data_dir, &clock, &metrics, &options)?;
    let blobs = open_blobs(&config, &data_dir, &options)?;
    let key = ServerKey::load_or_create(&config.server, &*ids)?;
    let signer = Signer::new(key.expose());
    let base_url = BaseUrl::new(&config.server, address);
    let service = Service::new(Parts {
        store: store.clone(),
        blobs: blobs.clone(),
        hub: service::hub::Hub::default(),
        clock: clock.clone(),
        ids: ids.clone(),
        signer: signer.clone(),
        vault: service::credentials::Vault::new(key.expose()),
        fetcher: fetch::Fetcher::new(fetch::Rules {
            allow: config.fetch.allow.clone(),
            deny: config.fetch.deny.clone(),
            max_bytes: config.fetch.max_bytes,
            timeout: config.fetch.timeout,
        })?,
        webhooks: service::webhooks::Webhooks::new(key.expose()),
        memory: BodyMemory::new(config.server.body_memory),
        object_infos: service::object_info::Cache::default(),
        pickers: Default::default(),
        facts: Default::default(),
        buckets: service::intake::buckets::Buckets::new(
            config.blobs.bucket().cloned(),
            config.fetch.buckets.clone(),
        ),
        fetched: service::intake::Cached::new(config.fetch.cache_bytes),
        looks: Default::default(),
        pictures: Default::default(),
        node: "local".parse::<NodeName>().context("the node's name")?,
        endpoints: std::sync::RwLock::new(Arc::new(service::shared(config.endpoints.clone()))),
        settings: Settings {
            url_expiry: config.blobs.url_expiry,
        },
        metrics: metrics.clone(),
        planner: std::sync::OnceLock::new(),
        attached: Default::default(),
        attention: Default::default(),
        holding: Default::default(),
        deletions: tokio::sync::RwLock::default(),
        chores: Default::default(),
        clients: Default::default(),
        lengths: Default::default(),
        streams: service::streams::Streams::new(config.server.max_event_streams),
        agents: Default::default(),
        pull: service::pull::PullWorkers::new(key.expose(), base_url.local()),
        objects: service::objects::Objects::new(key.expose(), base_url.fixed()),
        pools: std::sync::RwLock::new(Arc::new(config.resources.clone())),
        published: Default::default(),
        failpoint: options.failpoint.clone(),
    });
    service.set_status_bodies(protocols::status_bodies());
    service
        .configure(
            config.endpoints.clone(),
            config.default_is_implied,
            options.engine_object_info.as_deref(),
        )
        .await?;
    service.recover_queues().await?;
    service.forget_fetched().await?;

    let stored_keys = store.keys().await?;
    let keyring = Keyring::with_apps(
        &config.keys,
        &stored_keys,
        |app| service.app_secret(app),
        service.endpoints().values().map(AsRef::as_ref),
    );
    check_listen(address, keyring.has_live_keys(), config.server.insecure_no_auth)
        .map_err(anyhow::Error::msg)?;
    let auth = AuthState::new(
        Rules::new(&config.server, address),
        keyring,
        clock.clone(),
        ids.clone(),
    );

    let backend: Arc<dyn InstanceBackend> = Arc::new(Backends {
        process: ProcessBackend::open(
            &data_dir,
            ProcessConfig {
                engine_command: options.engine_command.clone(),
                hidden_env: secrets_in_env(&config),
            },
        )?,
        remote: RemoteBackend::new(Arc::new({
            let service = service.clone();
            move |handle| service.remote_server(&handle.endpoint, &handle.base_url)
        }))?,
    });
    let control = Control::new(
        service.clone(),
        backend,
        data_dir.join("spool"),
        config.server.stop_grace,
    );
    service.set_planner(Arc::new(control.clone()));

    let (stopping, closing) = (CancellationToken::new(), CancellationToken::new());
    let readiness = Readiness::default();
    let state = AppState::from(App {
        service: service.clone(),
        auth: auth.clone(),
        stopping: stopping.clone(),
        closing: closing.clone(),
        base_url,
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        blobs: BlobAccess {
            blobs,
            signer,
            clock: clock.clone(),
        },
        reload: Reload::new(auth, config.keys.clone()),
        frontends: Frontends::new(data_dir.join("frontend")),
    });
    let reloading = tokio::spawn(reload(
        state.clone(),
        control.clone(),
        options.reload.take(),
        options.engine_object_info.clone(),
    ));
    let outer = Outer {
        metrics,
        clock,
        ids,
        cors: Cors::new(&config.server.cors_origins),
    };
    let router = with_all_around(router(state.clone()), outer, state);

    let stop = Stop {
        stopping: stopping.clone(),
        closing,
        grace: config.server.stop_grace,
        deadline: STOP_DEADLINE,
    };
    let serving = tokio::spawn(serve(listener, router, stop));
    let planning = tokio::spawn({
        let (control, shutdown, readiness) = (control.clone(), shutdown.clone(), readiness.clone());
        async move { control.run(readiness, shutdown).await }
    });
    let introducing = tokio::spawn({
        let (service, readiness, introduce) = (service.clone(), readiness.clone(), options.introduce);
        async move {
            if introduce && let Ok(default) = "default".parse() {
                readiness.reached().await;
                service.introduce(&default).await;
            }
        }
    });
    let sweeping = tokio::spawn({
        let (control, shutdown) = (control.clone(), shutdown.clone());
        async move { control.sweep(shutdown).await }
    });
    let served_all = CancellationToken::new();
    let keeping = tokio::spawn({
        let (service, served_all) = (service.clone(), served_all.clone());
        async move { service.keep_queues(served_all).await }
    });
    let telling = tokio::spawn({
        let (service, served_all) = (service.clone(), served_all.clone());
        async move { service.send_webhooks(served_all).await }
    });
    let counting = tokio::spawn({
        let (service, served_all) = (service.clone(), served_all.clone());
        async move { service.keep_lengths(served_all).await }
    });
    let looking = tokio::spawn({
        let (service, served_all) = (service.clone(), served_all.clone());
        async move { service.keep_agents(served_all).await }
    });
    let keeping_workers = tokio::spawn({
        let (service, served_all) = (service.clone(), served_all.clone());
        async move { service.keep_workers(served_all).await }
    });
    tracing::info!(listen = %address, data_dir = %data_dir.display(), "darkroom is serving");

    // It returns at the shutdown. A plan that is being carried out then is waited for: an instance that it starts after
    // the others were told to end would be told by nobody, and outlive this process.
    let planned = planning
        .await
        .context("the control loop panicked")
        .and_then(|r| r);
    readiness.set(false);
    // Instances are given their time while connections are given theirs.
    let (served, ()) = tokio::join!(
        async {
            stopping.cancel();
            serving.await
        },
        control.close(INSTANCES_DEADLINE),
    );
    shutdown.cancel();
    reloading.abort();
    introducing.abort();
    let _ = sweeping.await;
    // What the last connections left to do is done before the store closes.
    served_all.cancel();
    service.attached_is_settled().await;
    let _ = tokio::join!(keeping, telling, counting, looking, keeping_workers);
    sqlite.close().await;
    tracing::info!("darkroom has stopped");
    served.context("serving panicked")?.context("serving failed")?;
    planned
}

/// Changes keys and endpoints as new configurations come; running jobs are not touched.
async fn reload(
    state: AppState,
    control: Control,
    configs: Option<mpsc::Receiver<Config>>,
    engine_object_info: Option<Vec<u8>>,
) {
    let Some(mut configs) = configs else { return };
    while let Some(config) = configs.recv().await {
        let configured = state.service.configure(
            config.endpoints,
            config.default_is_implied,
            engine_object_info.as_deref(),
        );
        if let Err(error) = configured.await {
            tracing::error!(error = ?error, "the endpoints could not be read; the old ones stay");
        }
        state.service.set_pools(config.resources);
        state.reload.set_configured(config.keys);
        match state.reload.keys(&state.service).await {
            Ok(()) => tracing::info!("keys and endpoints were read anew"),
            Err(error) => tracing::error!(error = ?error, "stored keys could not be read; the old ones stay"),
        }
        control.wake();
    }
}

/// Puts around the routes what is done for every request, in one layer: each costs every request some microseconds.
fn with_all_around(router: Router, outer: Outer, state: AppState) -> Router {
    let around_all = AroundAll {
        outer,
        proxy: protocols::kubeai::Proxy::new(state.clone()),
        state,
    };
    Router::new()
        .fallback_service(router)
        .layer(from_fn_with_state(Arc::new(around_all), answer))
}

/// What [`answer`] needs.
struct AroundAll {
    outer: Outer,
    state: AppState,
    proxy: protocols::kubeai::Proxy,
}

async fn answer(State(all): State<Arc<AroundAll>>, request: Request, next: Next) -> Response {
    let routed = |request| async {
        // Who looks at a path before it is routed.
        let request = protocols::speedpix::find_own_path(&all.state, request);
        match all.proxy.lead(request).await {
            Ok((request, _led)) => end_streams(&all.state.auth, request, |request| next.run(request)).await,
            Err(refused) => refused,
        }
    };
    around(&all.outer, request, routed).await
}

fn router(state: AppState) -> Router {
    let programs_first = from_fn_with_state(state.clone(), protocols::eas::before_routes_of_others);
    let selected = protocols::fc::routes()
        .merge(protocols::native::routes())
        .merge(protocols::comfy_v2::routes());
    Router::new()
        .merge(protocols::async_endpoints::routes())
        .merge(protocols::eas::routes())
        .merge(protocols::speedpix::routes())
        .merge(protocols::darkroom::document())
        .merge(protocols::native::service_routes().route_layer(programs_first))
        .merge(selected.clone())
        .nest("/e/{endpoint}", selected)
        .merge(protocols::native::page())
        .nest("/darkroom/v1", protocols::darkroom::routes())
        .merge(protocols::home::routes())
        .merge(protocols::s3::routes())
        .merge(blobs::routes())
        .merge(health::routes())
        .merge(login::routes())
        .with_state(state)
}

fn open_store(
    config: &Config,
    data_dir: &Path,
    clock: &Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
    options: &RunOptions,
) -> anyhow::Result<(Arc<dyn Store>, Arc<SqliteStore>)> {
    match &config.store.database {
        Database::Sqlite => {
            let file = layout::database(data_dir);
            let metrics = metrics.clone();
            let options = Options {
                failpoint: options.failpoint.clone(),
                disk_reserve_bytes: config.store.disk_reserve_bytes,
                on_commit: Some(Arc::new(move |commit| metrics.commit(commit))),
                ..Options::new(clock.clone())
            };
            let store = SqliteStore::open(&file, options)
                .with_context(|| format!("cannot open {}", file.display()))?;
            let store = Arc::new(store);
            Ok((store.clone(), store))
        }
    }
}

fn open_blobs(config: &Config, data_dir: &Path, options: &RunOptions) -> anyhow::Result<Arc<dyn Blobs>> {
    match &config.blobs.location {
        BlobLocation::Local => {
            let dir = data_dir.join("blobs");
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            Ok(Arc::new(LocalBlobs::open(&dir, options.failpoint.clone())?))
        }
        // A bucket that is away is no reason not to start: what needs it waits for it.
        BlobLocation::S3(bucket) => Ok(Arc::new(S3Blobs::new(bucket)?)),
    }
}

/// Names of variables that hold a configured secret (`secret_env`, or a copy of it): instances must not see them.
fn secrets_in_env(config: &Config) -> Vec<String> {
    let of_keys = config.keys.iter().map(|key| match &key.credential {
        Credential::Key(secret) => secret.expose(),
        Credential::App { app_secret, .. } => app_secret.expose(),
    });
    let of_bucket = match &config.blobs.location {
        BlobLocation::Local => None,
        BlobLocation::S3(bucket) => Some(&bucket.credentials),
    };
    let of_bucket = of_bucket.into_iter().flat_map(|credentials| {
        [Some(&credentials.secret_key), credentials.session_token.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
    });
    let secrets: Vec<&str> = of_keys.chain(of_bucket).collect();
    let holds_one = |value: &str| secrets.contains(&value.trim());
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(_, value)| holds_one(value))
        .map(|(name, _)| name)
        .collect()
}
