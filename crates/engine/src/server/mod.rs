//! The engine as a ComfyUI server: state, worker thread, and the routes under `/` and `/api`.

mod body;
mod history;
mod origin;
mod queue;
mod routes;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64},
    },
};

use axum::{Router, middleware};
use darkroom_core::{Clock, Ids};
use tokio::net::TcpListener;

use crate::{files::Directories, hub::Hub, nodes::call::Host, options::Options, registry::Registry};
use history::History;
use queue::Queue;

/// Why an engine cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot be made or emptied.
    #[error("cannot prepare the engine's directories")]
    Directories(#[source] std::io::Error),
    /// The worker cannot be started.
    #[error("cannot start the engine's worker thread")]
    Worker(#[source] std::io::Error),
    /// The listener failed.
    #[error("cannot serve")]
    Serve(#[source] std::io::Error),
}

/// Everything the routes share with the worker.
pub struct Engine {
    host: Arc<Host>,
    registry: Arc<Registry>,
    queue: Queue,
    history: History,
    hub: Arc<Hub>,
    interrupt: AtomicBool,
    /// The number the next prompt without one gets.
    counter: AtomicI64,
    max_upload_bytes: usize,
}

/// A started engine; its worker ends after the current prompt when this is dropped.
pub struct Running {
    engine: Arc<Engine>,
}

impl Running {
    /// Prepares the directories and starts the worker.
    pub fn start(options: &Options, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Result<Running, Error> {
        let directories = Directories {
            input: absolute(&options.input_dir)?,
            output: absolute(&options.output_dir)?,
            temp: absolute(&options.temp_dir)?,
            user: absolute(&options.user_dir)?,
        };
        directories.prepare().map_err(Error::Directories)?;
        let hub = Arc::new(Hub::default());
        let told = Arc::clone(&hub);
        let engine = Arc::new(Engine {
            host: Arc::new(Host {
                directories,
                clock,
                ids,
                embed_metadata: !options.disable_metadata,
            }),
            registry: Arc::new(Registry::new(options.test_nodes)),
            queue: Queue::new(move |remaining| told.send_status(remaining)),
            history: History::default(),
            hub,
            interrupt: AtomicBool::new(false),
            counter: AtomicI64::new(0),
            max_upload_bytes: options.max_upload_bytes,
        });
        worker::start(Arc::clone(&engine)).map_err(Error::Worker)?;
        Ok(Running { engine })
    }

    /// The routes.
    pub fn router(&self) -> Router {
        let engine = Arc::clone(&self.engine);
        let api = routes::table();
        api.clone()
            .nest("/api", api)
            .merge(routes::internal())
            .fallback(routes::not_found)
            .method_not_allowed_fallback(routes::not_found)
            .layer(axum::extract::DefaultBodyLimit::max(engine.max_upload_bytes))
            .layer(middleware::from_fn_with_state(Arc::clone(&engine), body::limit))
            .layer(middleware::from_fn(origin::check))
            .with_state(engine)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.queue.close();
    }
}

/// Runs an engine on `listener` until the process ends.
pub async fn serve(
    options: Options,
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
) -> Result<(), Error> {
    let running = Running::start(&options, clock, ids)?;
    axum::serve(NoDelay(listener), running.router())
        .await
        .map_err(Error::Serve)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::Directories)
}

/// Small messages leave at once: a client waits for each of them.
struct NoDelay(TcpListener);

impl axum::serve::Listener for NoDelay {
    type Io = tokio::net::TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}
