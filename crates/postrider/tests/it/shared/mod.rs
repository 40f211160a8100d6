//! What there is on a shared database only: several nodes, and a way to it that can be cut. Always on PostgreSQL, so that a
//! run of everything on PostgreSQL skips `shared::`.

mod asking;
mod load;
mod nodes;
mod outages;
mod publishing;
mod resting;
mod roles;
