//! One folder per wire protocol: DTOs, routes, error mapping, and no behaviour of its own.

pub mod darkroom;
pub mod eas;
pub mod fc;
pub mod home;
pub mod native;
