//! The maps in memory that `memory` and `ttl` compare.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use dashmap::DashMap;
use moka::sync::Cache;
use persistify::CachingMap;
use persistify_benches::{Customer, Discard};
use tokio::runtime::Runtime;

use crate::{ours::Ours, shared_map::SharedMap};

/// The time after which the entries of `ttl` expire. None does while it is measured.
pub const TTL: Duration = Duration::from_hours(1);

impl SharedMap for DashMap<Box<str>, Customer> {
    fn orders(&self, key: &str) -> Option<u64> {
        self.get(key).map(|customer| customer.orders())
    }

    fn put(&self, key: &str, customer: Customer) {
        self.insert(key.into(), customer);
    }
}

impl SharedMap for papaya::HashMap<Box<str>, Customer> {
    fn orders(&self, key: &str) -> Option<u64> {
        self.pin().get(key).map(Customer::orders)
    }

    fn put(&self, key: &str, customer: Customer) {
        self.pin().insert(key.into(), customer);
    }
}

impl SharedMap for RwLock<HashMap<Box<str>, Customer>> {
    fn orders(&self, key: &str) -> Option<u64> {
        let map = self.read().unwrap_or_else(PoisonError::into_inner);
        map.get(key).map(Customer::orders)
    }

    fn put(&self, key: &str, customer: Customer) {
        let mut map = self.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(key.into(), customer);
    }
}

/// `get` of moka clones the value, so it holds an `Arc`, as its documentation advises.
impl SharedMap for Cache<Box<str>, Arc<Customer>> {
    fn orders(&self, key: &str) -> Option<u64> {
        self.get(key).map(|customer| customer.orders())
    }

    fn put(&self, key: &str, customer: Customer) {
        self.insert(key.into(), Arc::new(customer));
    }

    fn settle(&self) {
        self.run_pending_tasks();
    }
}

impl SharedMap for Ours<'_> {
    fn orders(&self, key: &str) -> Option<u64> {
        self.map.read(key, Customer::orders)
    }

    fn put(&self, key: &str, customer: Customer) {
        self.map.insert(key, customer);
    }

    fn settle(&self) {
        self.flush();
    }
}

/// A map whose entries each have a time to live, and the runtime of its flusher.
pub struct Caching<'r>(&'r Runtime, CachingMap<Customer>);

impl<'r> Caching<'r> {
    pub fn open(runtime: &'r Runtime) -> Self {
        let map = CachingMap::builder(Discard, "bench").open();
        Self(runtime, runtime.block_on(map).expect("an open map"))
    }
}

impl SharedMap for Caching<'_> {
    fn orders(&self, key: &str) -> Option<u64> {
        self.1.read(key, Customer::orders)
    }

    fn put(&self, key: &str, customer: Customer) {
        self.1.insert_with_ttl(key, customer, TTL);
    }

    fn settle(&self) {
        self.0.block_on(self.1.flush()).expect("all saved");
    }
}

/// A moka cache whose entries each have a time to live.
pub struct Moka(Cache<Box<str>, (Duration, Arc<Customer>)>);

struct OwnTtl;

impl<K, V> moka::Expiry<K, (Duration, V)> for OwnTtl {
    fn expire_after_create(&self, _: &K, value: &(Duration, V), _: Instant) -> Option<Duration> {
        Some(value.0)
    }
}

impl Moka {
    pub fn new() -> Self {
        Self(Cache::builder().expire_after(OwnTtl).build())
    }
}

impl SharedMap for Moka {
    fn orders(&self, key: &str) -> Option<u64> {
        self.0.get(key).map(|(_, customer)| customer.orders())
    }

    fn put(&self, key: &str, customer: Customer) {
        self.0.insert(key.into(), (TTL, Arc::new(customer)));
    }

    fn settle(&self) {
        self.0.run_pending_tasks();
    }
}

/// A map whose readers check the deadline, without a sweeper. Expired entries stay.
#[derive(Default)]
pub struct Deadlines(DashMap<Box<str>, (Instant, Customer)>);

impl SharedMap for Deadlines {
    fn orders(&self, key: &str) -> Option<u64> {
        let entry = self.0.get(key)?;
        (Instant::now() < entry.0).then(|| entry.1.orders())
    }

    fn put(&self, key: &str, customer: Customer) {
        self.0.insert(key.into(), (Instant::now() + TTL, customer));
    }
}
