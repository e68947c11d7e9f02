//! All black-box tests, one binary: linking once is a third of the time of linking per file.

mod access;
mod bad_input;
mod bench;
mod cli;
mod credentials;
mod driver;
mod durability;
mod fc;
mod first_run;
mod inputs;
mod memory;
mod native;
mod real_comfyui;
mod removed;
mod rooms;
mod visibility;
