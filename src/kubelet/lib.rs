//! Runs the Pods bound to one Node.
