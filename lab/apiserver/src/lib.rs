//! The lab's Kubernetes API server: what kubectl, kube-rs and the controllers talk to on one machine.
//!
//! ```text
//!  TLS listener ─▶ router ─▶ handle ─▶ prepare ─▶ kind (parse, defaults, rules) ─▶ store ─▶ log ─▶ watches
//!                    │          │                                                    ▲
//!                discovery    view (JSON, Table, metadata)                 allocate (Service addresses)
//! ```
//!
//! One table of kinds (`registry`) drives it all. Objects are JSON values in memory; the generated API types are
//! used to parse, default and validate them, and never stored.
//!
//! Promises: an unmodified kubectl gets, applies, edits, scales, describes, watches and deletes the kinds listed in
//! `registry/kinds.rs` and reads Kubernetes' own words when it is refused.
//!
//! Left out: durability (a restart forgets), server-side apply (415), authorization of people (the lab's own token may do everything;
//! RBAC is asked for ServiceAccounts, `authorize.rs`), admission webhooks, the CEL rules and conversions of custom resources, protobuf (but for the bodies that kubectl's
//! imperative commands send), the kubelet's streams (logs, exec, port-forward: 501), enforcing
//! quotas, limit ranges and disruption budgets, `kubectl explain`. Controllers live in their own crate: this one never
//! acts on an object it was not asked to write.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use ipnet::{Ipv4Net, Ipv6Net};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

mod allocate;
mod authorize;
mod body;
mod custom;

mod defaults;
mod discovery;
mod events;
mod handle;
mod kind;
mod openapi;
mod patch;
mod prepare;
mod protobuf;
mod random;
mod registry;
mod request;
mod router;
mod seed;
mod select;
mod service_addresses;
mod status;
mod store;
mod table;
mod tls;
mod validate;
mod view;
mod watch;

pub use allocate::Family;
pub use authorize::Right;
pub use status::ApiError;

use allocate::Addresses;
use handle::Core;
use store::Store;
use tls::Tls;

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Families of the cluster, the preferred one first.
    pub families: Vec<Family>,
    /// Range of IPv4 Services; needed if IPv4 is a family.
    pub service_cidr_v4: Option<Ipv4Net>,
    /// Range of IPv6 Services; needed if IPv6 is a family.
    pub service_cidr_v6: Option<Ipv6Net>,
    /// Addresses the server is reached by besides loopback, for its certificate.
    pub extra_sans: Vec<IpAddr>,
    /// The bearer token; a random one if absent.
    pub token: Option<String>,
    /// Where nodes and pods reach the server; these addresses go into its certificate too.
    pub advertise: Vec<SocketAddr>,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificates could not be made.
    #[error("cannot make the API server's certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("cannot set up TLS for the API server: {0}")]
    Tls(#[from] rustls::Error),
    /// A family without a range.
    #[error(
        "the lab has {0} Services but no range to give them addresses from: set its service CIDR"
    )]
    NoRange(&'static str),
    /// The first objects were refused.
    #[error("cannot create the objects every cluster has: {0}")]
    Seed(#[from] ApiError),
    /// A listener could not be used.
    #[error("cannot serve on {address}: {source}")]
    Listener {
        /// The listener's address, if it has one.
        address: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// The API server. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Server {
    core: Arc<Core>,
    tls: Arc<Tls>,
    token: Arc<str>,
}

impl Server {
    /// Sets up a server with the objects every cluster has. Nothing listens yet.
    pub fn new(config: Config) -> Result<Self, Error> {
        for family in &config.families {
            let ranged = match family {
                Family::Ipv4 => config.service_cidr_v4.is_some(),
                Family::Ipv6 => config.service_cidr_v6.is_some(),
            };
            if !ranged {
                return Err(Error::NoRange(family.name()));
            }
        }
        let addresses = Addresses::new(
            config.service_cidr_v4,
            config.service_cidr_v6,
            config.families.clone(),
        );
        let core = Core {
            store: Store::new(registry::slots(), addresses, first_revision()),
            stop: CancellationToken::new(),
            customs: custom::Customs::default(),
            accounts: authorize::Accounts::default(),
        };
        seed::seed(&core)?;
        let sans: Vec<IpAddr> = config
            .extra_sans
            .iter()
            .copied()
            .chain(config.advertise.iter().map(SocketAddr::ip))
            .collect();
        let tls = Tls::generate(&sans)?;
        let token = config.token.unwrap_or_else(random::token);
        Ok(Server {
            core: Arc::new(core),
            tls: Arc::new(tls),
            token: token.into(),
        })
    }

    /// The bearer token clients must send.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A token with the rights that RBAC gives this ServiceAccount, whether there is one yet or not.
    pub fn account_token(&self, namespace: &str, name: &str) -> String {
        self.core.accounts.give(namespace, name)
    }

    /// The rights of ServiceAccounts that requests have needed so far.
    pub fn used_rights(&self) -> BTreeSet<Right> {
        self.core.accounts.used()
    }

    /// The certificate clients must trust, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.tls.ca_pem
    }

    /// A kubeconfig, as YAML, for a server reached at `server_url` (such as `https://127.0.0.1:6443`), and for who may do
    /// everything.
    pub fn kubeconfig(&self, server_url: &str, context_name: &str) -> String {
        self.kubeconfig_of(self.token(), server_url, context_name)
    }

    /// The same for whose token this is.
    pub fn kubeconfig_of(&self, token: &str, server_url: &str, context_name: &str) -> String {
        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(self.ca_pem());
        let name = context_name;
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: {name}\nclusters:\n- name: {name}\n  cluster:\n    \
             server: {server_url}\n    certificate-authority-data: {ca}\nusers:\n- name: {name}\n  user:\n    \
             token: {token}\ncontexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n    \
             namespace: default\n"
        )
    }

    /// Everything the server answers as a tower service, without TLS and without asking for the token: for
    /// controllers in the same process (`kube::Client::new(server.in_process(), "default")`).
    pub fn in_process(&self) -> axum::Router {
        router::trusted(self.core.clone())
    }

    /// Serves HTTPS on already bound listeners until `shutdown` completes, then ends watches and connections.
    pub async fn serve(
        &self,
        listeners: Vec<std::net::TcpListener>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let router = router::guarded(self.core.clone(), &self.token);
        let acceptor = TlsAcceptor::from(self.tls.config.clone());
        let mut listening = JoinSet::new();
        let stop = self.core.stop.clone();
        for listener in listeners {
            let address = listener
                .local_addr()
                .map(|a| a.to_string())
                .unwrap_or_else(|_| "?".to_owned());
            let at = |source| Error::Listener {
                address: address.clone(),
                source,
            };
            listener.set_nonblocking(true).map_err(at)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(at)?;
            tracing::debug!(address, "API server listens");
            listening.spawn(accept(
                listener,
                acceptor.clone(),
                router.clone(),
                stop.clone(),
            ));
        }
        shutdown.await;
        stop.cancel();
        while listening.join_next().await.is_some() {}
        Ok(())
    }
}

/// Milliseconds since 1970: no server writes faster than that for long, so each begins after its predecessor.
fn first_revision() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |since| u64::try_from(since.as_millis()).unwrap_or(1))
}

async fn accept(
    listener: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
    router: axum::Router,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (acceptor, router) = (acceptor.clone(), router.clone());
                    connections.spawn(connection(stream, acceptor, router, stop.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: let some connection end first.
                    tracing::warn!(%error, "API server cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    // Requests are short and watches end by themselves; whoever lingers is cut off with the set.
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(2), all_ended)
        .await
        .is_err()
    {
        tracing::debug!("API server cuts off connections that did not end in time");
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: axum::Router,
    stop: CancellationToken,
) {
    // Watch events are small and must not wait for more.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let handshake = tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let mut builder = Builder::new(TokioExecutor::new());
    // Whoever never finishes its headers, or is gone without a word, does not hold a connection for ever.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(1000);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::trace!(%error, "connection ended");
    }
}
