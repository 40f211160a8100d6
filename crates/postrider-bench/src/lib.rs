//! Load generator, receiver and the raw limit, with figures from one run.
