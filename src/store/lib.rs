//! Bytes with revisions: MVCC in memory, watch by revision, durability by group commit.
