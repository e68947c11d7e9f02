//! The port over HTTP does what the port does: an agent's link, a real socket, the routes, and the server behind them.

use std::sync::Arc;

use darkroom_agent::{
    link::HttpLink,
    server::{Access, Server},
};
use tokio_util::sync::CancellationToken;

use crate::{
    service::testing::{Bench, SlotWorld},
    state::AppState,
};

async fn world() -> SlotWorld {
    let bench = Bench::configured("[endpoints.default]\nbackend = \"external\"\n");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let state = AppState::around(bench.service.clone(), address);
    let router = axum::Router::new()
        .nest("/darkroom/v1", super::super::routes())
        .with_state(state);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let access = Access {
        server: format!("http://{address}").parse().unwrap(),
        key: None,
        endpoint: bench.endpoint(),
        name: "box".to_owned(),
    };
    let server = Arc::new(Server::connect(access).await.unwrap());
    let instance = server.instance();
    let service = bench.service.clone();
    SlotWorld {
        link: Arc::new(HttpLink::new(server, CancellationToken::new())),
        instance,
        drain: Box::new(move || service.agent_drains(instance)),
        bench,
    }
}

darkroom_runner::attempt_link_tests!(world().await);
