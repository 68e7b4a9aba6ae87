//! Pod network namespaces, addresses, and routes between nodes.
