//! The embedded store: one writer with group commit, a pool of readers, WAL with synchronous=FULL.
