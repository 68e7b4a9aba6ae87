//! Exec, attach and port-forward on the wire: the server side of every protocol kubectl and its peers speak.
//!
//! Owns: WebSocket channels (v5, v4 and older, base64 forms), SPDY/3.1, and SPDY tunnelled in a WebSocket.
//! Called by: the runtime's streaming server, which gets one uniform session whatever the protocol was.
//! Never: runs a command or dials a port.

mod channels;
mod command;
mod dictionary;
mod forward;
mod headers;
mod negotiate;
mod spdy;
mod tunnel;

pub use command::{CommandSession, Ends, Exit, TerminalSize};
pub use forward::{Forward, ForwardSession};
pub use negotiate::{Refusal, upgrade_command, upgrade_forward};
