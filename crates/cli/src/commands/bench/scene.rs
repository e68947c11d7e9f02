//! Where scenarios run, and how long they may.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;

use super::wire::{self, Wire};
use crate::{
    exit::Failure,
    local::{LocalServer, Setup, data_home},
};

/// A directory on the disk that is measured, and the amount of everything.
#[derive(Debug)]
pub struct Scene {
    quick: bool,
    /// Files go here; removed at the end.
    pub dir: PathBuf,
    _owned: tempfile::TempDir,
}

impl Scene {
    /// Below `dir`, or where local servers keep their data.
    pub fn new(quick: bool, dir: Option<PathBuf>) -> Result<Self, Failure> {
        let home = dir.unwrap_or_else(data_home);
        let failed = |error: std::io::Error| Failure::local(format!("{}: {error}", home.display()));
        std::fs::create_dir_all(&home).map_err(failed)?;
        let owned = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&home)
            .map_err(failed)?;
        let dir = std::path::absolute(owned.path()).map_err(failed)?;
        Ok(Scene {
            quick,
            dir,
            _owned: owned,
        })
    }

    /// `full` of something, or `quick` of it.
    pub fn amount<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The length of one measurement.
    pub fn lasting(&self, full: Duration) -> Duration {
        self.amount(full, Duration::from_millis(200).min(full))
    }

    /// A server with this configuration, and its address.
    pub async fn server(&self, config: &str) -> anyhow::Result<(LocalServer, SocketAddr)> {
        self.start(None, config).await
    }

    /// The same on the data of an earlier one.
    pub async fn server_on(
        &self,
        data: Arc<tempfile::TempDir>,
        config: &str,
    ) -> anyhow::Result<(LocalServer, SocketAddr)> {
        self.start(Some(data), config).await
    }

    async fn start(
        &self,
        data: Option<Arc<tempfile::TempDir>>,
        config: &str,
    ) -> anyhow::Result<(LocalServer, SocketAddr)> {
        let server = LocalServer::start_with(Setup {
            port: 0,
            home: self.dir.clone(),
            data,
            config,
        })
        .await?;
        let address = server.url().trim_start_matches("http://").parse();
        let address = address.context("the server's address")?;
        Ok((server, address))
    }
}

/// The server's metrics.
pub async fn metrics(address: SocketAddr) -> anyhow::Result<String> {
    let mut wire = Wire::connect(address).await?;
    wire.expect(200, &wire::get("/metrics")).await?;
    Ok(wire.body().into_owned())
}
