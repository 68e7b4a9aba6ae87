//! Stand-ins for the API server and the runtime, in memory.
//!
//! Owns: just enough of both that a kubelet cannot tell.
//! Called by: this crate's tests.
//! Never: is compiled into the product.

mod api;
mod runtime;

pub use api::FakeApi;
pub use runtime::FakeRuntime;
