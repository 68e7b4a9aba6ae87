//! Tests of minik as a whole.
