//! All black-box tests, one binary: linking once is a third of the time of linking per file.

mod access;
mod agent;
mod attach;
mod bad_input;
mod bench;
mod boxes;
mod bucket;
mod cli;
mod credentials;
mod driver;
mod durability;
mod editor;
mod fc;
mod first_run;
mod inputs;
mod kubeai;
mod lifecycle;
mod memory;
mod native;
mod native_files;
mod real_boxes;
mod real_comfyui;
mod removed;
mod rooms;
mod visibility;
mod webhooks;
