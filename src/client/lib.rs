//! List, watch, cache and the driver that runs reconcilers.
