//! Development only: a whole server in the test's process, scripted receivers, stub DNS, a clock that can be moved.
