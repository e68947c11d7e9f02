//! Pages that are rendered here, without a build step and without assets from elsewhere.

pub mod frontend;
pub mod home;
pub mod login;
