//! How many connections there may be: in all, and from one place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::peer::site;

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// From everybody together.
    pub total: usize,
    /// From one address, or one /64 of IPv6.
    pub per_address: usize,
}

/// Counts the open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: ConnectionLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    total: usize,
    /// Only addresses that have connections are in it, so it is bounded by the total.
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Total,
    Address,
}

impl Full {
    /// For the metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Total => "too-many",
            Self::Address => "too-many-from-address",
        }
    }
}

impl Connections {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let address = site(address);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.total >= self.limits.total {
            return Err(Full::Total);
        }
        if state.by_address.get(&address).copied().unwrap_or(0) >= self.limits.per_address {
            return Err(Full::Address);
        }
        state.total += 1;
        *state.by_address.entry(address).or_default() += 1;
        Ok(Place { connections: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.connections.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.total -= 1;
        if let Some(count) = state.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn bounds_the_total_and_each_address_and_makes_room_again() {
        let connections = Connections::new(ConnectionLimits { total: 3, per_address: 2 });
        let first = connections.enter(address("192.0.2.1")).unwrap();
        let _second = connections.enter(address("192.0.2.1")).unwrap();
        assert_eq!(connections.enter(address("192.0.2.1")).unwrap_err(), Full::Address);
        let _third = connections.enter(address("192.0.2.2")).unwrap();
        assert_eq!(connections.enter(address("192.0.2.3")).unwrap_err(), Full::Total);
        drop(first);
        connections.enter(address("192.0.2.1")).unwrap();
        assert_eq!(connections.state.lock().unwrap().by_address.len(), 2);
    }

    #[test]
    fn one_ipv6_site_counts_as_one_address() {
        let connections = Connections::new(ConnectionLimits { total: 9, per_address: 1 });
        let _first = connections.enter(address("2001:db8::1")).unwrap();
        assert_eq!(connections.enter(address("2001:db8::2")).unwrap_err(), Full::Address);
        connections.enter(address("2001:db8:0:1::2")).unwrap();
    }
}
