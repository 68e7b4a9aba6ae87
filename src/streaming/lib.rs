//! Exec, attach and port-forward wire protocols: WebSocket channels and SPDY/3.1.
