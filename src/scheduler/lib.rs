//! Chooses Nodes for Pods.
