//! Stage 5 of 8: the ring. The shared-memory ABI between the router and one function process.
//!
//! In: requests the engine has bound to a worker.  Out: the same requests in the worker; results back in the router.
//! Owns: one sealed memfd per worker. No tenant ever maps another tenant's bytes.
//! Always: the place of every byte follows from a slot index. The only numbers taken from the other side are
//! cursors, slot indices and lengths, and each is read once into a local, checked there, and used from there.
//! Never: allocates in a steady state, takes a lock, reads a clock, or panics on what the other side wrote.
//!
//! ```text
//!            submission ring: slot indices            request part of slot i, request region i
//!   router ───────────────────────────────▶ worker      written by the router, read by the worker
//!   [RouterEnd]                       [WorkerEnd]
//!          ◀───────────────────────────────              written by the worker, read by the router
//!            completion ring: slot indices            answer part of slot i, result region i
//! ```
//!
//! Trust: the router holds the worker for hostile. What the worker wrote ends as a [`WorkerMisbehaved`] value, and
//! what the router must be able to rely on (free list, table of slots in flight) lies in its private memory. The
//! worker trusts the router, which started it: see [`WorkerEnd`].
//!
//! Clients of the same host have such a ring too, with the roles turned round: [`client_ring`].
//!
//! Reading order: [`layout`] (the bytes), [`RouterEnd`], [`WorkerEnd`], then [`doorbell`] (sleeping and waking), then
//! [`client_ring`]. Who stamps calls does it with [`clock`].
//! Why this shape: `docs/decisions/0003-shared-memory-slots.md`. Normative text: `docs/spec/shm.md`.
//! Tests: beside the code, and `tests/{oracle,hostile,client_ring,loom,two_processes,fork,allocation,copies,spec}.rs`.

mod access;
mod area;
pub mod client_ring;
pub mod clock;
pub mod doorbell;
mod fault;
pub mod fork;
mod free_slots;
mod heap;
pub mod inspect;
pub mod layout;
mod mapped;
pub mod pass;
pub mod peer;
mod router_end;
pub mod waits;
mod worker_end;

pub use access::{BorrowPayload, CopyFrom, Memory};
pub use fault::{AttachError, GeometryError, PushRefused, RouterMisbehaved, WorkerMisbehaved};
pub use heap::HeapMemory;
pub use inspect::{RingReport, inspect};
pub use layout::{Generation, Geometry, Identity, Outcome, SlotIndex};
pub use mapped::{MapError, Mapped};
pub use router_end::{Completion, Context, PushedRequest, Request, RouterEnd, Started};
pub use worker_end::{Taken, WaitOutcome, WorkerEnd};
