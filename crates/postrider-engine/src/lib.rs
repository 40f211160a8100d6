//! Turns due deliveries into attempts: scheduler, lanes, retries, retention.
