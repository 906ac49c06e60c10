//! A network between agents and aggregator that does what networks do: it loses packets, repeats them, lets some
//! overtake others, is cut for a while, and gives a client another address in the middle of a stream.
//!
//! One UDP socket faces the agents; each of them has a socket of its own towards the aggregator, as behind a router
//! that translates addresses. Fates come from seeded dice, though which packet meets which fate depends on the timing
//! of real processes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catchment_firmware_sim::dice::{Chance, Dice};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How bad the network is, in either direction.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Chance that a packet is lost.
    pub loses: Chance,
    /// Chance that it comes twice.
    pub repeats: Chance,
    /// Chance that it is late, so that others overtake it.
    pub delays: Chance,
}

/// A running proxy. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped, it ends all tasks.
    _runtime: Runtime,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    weather: Weather,
    dice: Mutex<Dice>,
    is_cut: AtomicBool,
    routes: Mutex<HashMap<SocketAddr, Route>>,
    carried: AtomicU64,
    lost: AtomicU64,
}

/// A client's way to the aggregator.
#[derive(Debug)]
struct Route {
    socket: Arc<UdpSocket>,
    back: JoinHandle<()>,
}

impl Drop for Route {
    fn drop(&mut self) {
        self.back.abort();
    }
}

/// Longest delay of a late packet, in milliseconds.
const DELAY_MS_MAX: u32 = 60;
/// Clients at most; a restarted agent is a new one.
const ROUTES_MAX: usize = 1_024;
const PACKET_BYTES_MAX: usize = 65_536;

impl Weather {
    /// Nothing goes wrong.
    pub const FAIR: Self = Self {
        loses: Chance::NEVER,
        repeats: Chance::NEVER,
        delays: Chance::NEVER,
    };
    /// One packet in twenty is lost, some come twice, some late.
    pub const FOUL: Self = Self {
        loses: Chance::one_in(20),
        repeats: Chance::one_in(50),
        delays: Chance::one_in(20),
    };
}

impl Proxy {
    /// A proxy before `target`.
    pub fn start(target: SocketAddr, weather: Weather, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let front = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).unwrap();
        let address = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            weather,
            dice: Mutex::new(Dice::new(seed, 0)),
            is_cut: AtomicBool::new(false),
            routes: Mutex::new(HashMap::new()),
            carried: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        runtime.spawn(carry_in(Arc::new(front), Arc::clone(&shared)));
        Self {
            address,
            shared,
            _runtime: runtime,
        }
    }

    /// Where agents find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the link, or mends it.
    pub fn set_cut(&self, is_cut: bool) {
        self.shared.is_cut.store(is_cut, Ordering::Relaxed);
    }

    /// Gives every client another address towards the aggregator from its next packet on, as a router does that has
    /// forgotten its table. What comes back to the old addresses is lost.
    pub fn rebind(&self) {
        self.shared.routes().clear();
    }

    /// Packets carried and lost so far.
    pub fn packets(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (of(&self.shared.carried), of(&self.shared.lost))
    }
}

impl Shared {
    fn routes(&self) -> MutexGuard<'_, HashMap<SocketAddr, Route>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After how many milliseconds each copy of a packet arrives; none for a packet that is lost.
    fn fate(&self) -> Vec<u32> {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_cut.load(Ordering::Relaxed) || dice.hits(self.weather.loses) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        self.carried.fetch_add(1, Ordering::Relaxed);
        let copies = 1 + usize::from(dice.hits(self.weather.repeats));
        let delays = std::iter::repeat_with(|| {
            let is_late = dice.hits(self.weather.delays);
            let late_ms = 1 + dice.below(DELAY_MS_MAX);
            if is_late { late_ms } else { 0 }
        });
        delays.take(copies).collect()
    }

    async fn route(self: &Arc<Self>, client: SocketAddr, front: &Arc<UdpSocket>) -> Arc<UdpSocket> {
        if let Some(route) = self.routes().get(&client) {
            return Arc::clone(&route.socket);
        }
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let back = tokio::spawn(carry_back(
            Arc::clone(&socket),
            Arc::clone(front),
            client,
            Arc::clone(self),
        ));
        let route = Route {
            socket: Arc::clone(&socket),
            back,
        };
        let mut routes = self.routes();
        assert!(routes.len() < ROUTES_MAX, "one test has not so many agents");
        routes.insert(client, route);
        socket
    }

    fn send(&self, from: &Arc<UdpSocket>, to: SocketAddr, packet: &[u8]) {
        for delay in self.fate() {
            let (from, packet) = (Arc::clone(from), packet.to_vec());
            tokio::spawn(async move {
                if delay > 0 {
                    tokio::time::sleep(Duration::from_millis(delay.into())).await;
                }
                // A target that is dead refuses; that is a packet lost.
                let _ = from.send_to(&packet, to).await;
            });
        }
    }
}

async fn carry_in(front: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        if let Ok((length, client)) = front.recv_from(&mut buffer).await {
            let socket = shared.route(client, &front).await;
            shared.send(&socket, shared.target, &buffer[..length]);
        }
    }
}

async fn carry_back(socket: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr, shared: Arc<Shared>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) if from == shared.target => shared.send(&front, client, &buffer[..length]),
            // From a stranger, or the news that the target is dead.
            _ => tokio::task::yield_now().await,
        }
    }
}
