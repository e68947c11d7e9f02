//! The server: configuration, access, HTTP, pages (the front), and the service, control loop, and protocols behind it.
//!
//! A request passes `http`, `auth`, one folder of `protocols`, and one operation of `service`; the `control` loop starts
//! and stops instances beside it. Nothing here knows SQL, files of blobs, or processes: those are behind the traits of
//! `store`, `blobs`, and `instances`. Start with `app`.

pub mod app;
pub mod auth;
mod beside;
pub mod config;
pub mod control;
pub mod http;
pub mod memory;
pub mod metrics;
pub mod pages;
pub mod protocols;
pub mod service;
pub mod state;
