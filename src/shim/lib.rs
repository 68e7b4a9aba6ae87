//! The short-lived helper around one container: the only user of libcontainer.
