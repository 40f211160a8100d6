//! Failed authentications per address: whoever guesses tokens is told to wait. Valid tokens always pass, so that one
//! misconfigured client does not lock out its neighbours behind the same address.

use crate::error::ApiError;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Failures that are answered with 401 within a window; later ones with 429.
const FAILURES: u32 = 20;
const WINDOW: Duration = Duration::from_mins(1);
/// Addresses that are remembered. An attacker with more of them is not slowed down by counting addresses anyway.
const ADDRESSES: usize = 10_000;

/// The caller's address, put into the request's extensions by whoever accepted the connection (behind a named proxy:
/// what the proxy says). Without it nothing is counted.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

/// Failures of each address in its current window.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Failures {
    /// Counts one more failure at `now`; `false` when it was one too many.
    pub fn count(&self, address: IpAddr, now: Instant) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.len() >= ADDRESSES && !table.contains_key(&address) {
            table.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            if table.len() >= ADDRESSES {
                table.clear();
            }
        }
        let (since, failures) = table.entry(address).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *failures) = (now, 0);
        }
        *failures = failures.saturating_add(1);
        *failures <= FAILURES
    }
}

pub(super) fn too_many() -> ApiError {
    ApiError::too_many_requests("Too many failed authentications from this address; check the token.", WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_21st_failure_in_a_minute_is_too_many() {
        let (failures, now) = (Failures::default(), Instant::now());
        let guesser = IpAddr::from([192, 0, 2, 1]);
        assert!((0..20).all(|_| failures.count(guesser, now)));
        assert!(!failures.count(guesser, now));
        assert!(failures.count(IpAddr::from([192, 0, 2, 2]), now), "others are not affected");
        assert!(failures.count(guesser, now + WINDOW));
    }

    #[test]
    fn the_table_is_bounded() {
        let (failures, now) = (Failures::default(), Instant::now());
        for address in 0..2 * u32::try_from(ADDRESSES).unwrap() {
            failures.count(IpAddr::from(std::net::Ipv6Addr::from(u128::from(address))), now);
        }
        assert!(failures.0.lock().unwrap().len() <= ADDRESSES);
    }
}
