//! The stories of the other files once more, told by routers that run on epoll: [`support::Setup`] sees in which program
//! it is. Whoever adds a story there has added it here.
#![allow(clippy::duplicate_mod, reason = "each story brings its bench along")]

#[path = "clients.rs"]
mod clients;
#[path = "wire.rs"]
mod wire;
#[path = "workers.rs"]
mod workers;
