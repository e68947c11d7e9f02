//! The server: configuration, access, HTTP, pages (the front), and the service, control loop, and protocols behind it.

pub mod auth;
pub mod config;
pub mod http;
pub mod metrics;
pub mod pages;
