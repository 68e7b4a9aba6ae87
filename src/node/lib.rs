//! What runs inside a node container: init and the wiring of components.
