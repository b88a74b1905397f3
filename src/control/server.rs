//! The control thread: binds, accepts, bounds every client, and stops when told.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing_appender::non_blocking::ErrorCounter;

use super::http::routes::{self, House};
use super::process::ProcessMeter;
use super::snapshot::Snapshots;
use crate::shard::mailbox::Shards;
use crate::shard::net::Choice;

/// Clients at once; more wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 64;
/// A connection is closed after this long, whatever it does: nobody can hold a place by reading slowly.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(60);
/// A request's head must be there within this time; so must the next request of a kept connection.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// Bytes of a request's head, and of what waits to be written.
const HEAD_SIZE_MAX: usize = 16 << 10;
/// Fields of a request's head.
const HEAD_FIELDS_MAX: usize = 64;
/// Time that open requests get when the thread stops; together with what shards need it stays below five seconds.
const DRAIN_TIME_MAX: Duration = Duration::from_millis(400);
/// Threads that may wait for shards' reports.
const REPORT_THREADS_MAX: usize = 2;

/// What control tells of this process beside what its shards report.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Directory of the rings.
    pub root: PathBuf,
    /// When the process began its work.
    pub started: Instant,
    /// Counts lines that the log had no room for.
    pub log_drops: Option<ErrorCounter>,
    /// The way that packets come in, and why.
    pub packet_io: Choice,
}

/// Why control cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address is taken, or not ours.
    #[error("control.listen {address}: {source}{}", hint(source))]
    Bind {
        /// The address of `control.listen`.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No thread, descriptor or randomness left.
    #[error("control: {0}")]
    Start(#[from] io::Error),
}

const fn hint_of(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "; another process listens there: set control.listen to a free port",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; no interface of this host has that address",
        _ => "",
    }
}

fn hint(error: &io::Error) -> &'static str {
    hint_of(error.kind())
}

/// The running control thread. Dropping it stops it.
#[derive(Debug)]
pub struct ControlHandle {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl ControlHandle {
    /// Where it listens; the port the system chose when 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets open requests finish, for a moment, and ends the thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for ControlHandle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread has panicked");
        }
    }
}

/// Binds `listen` and serves it on a thread of its own.
///
/// # Errors
/// [`ControlError`]; the port is bound when this returns.
pub fn start(listen: SocketAddr, shards: Shards, facts: Facts) -> Result<ControlHandle, ControlError> {
    let bound = || {
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    let (listener, address) = bound().map_err(|source| ControlError::Bind { address: listen, source })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(REPORT_THREADS_MAX)
        .thread_name("control-reports")
        .build()?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    let mut request_id_prefix = [0; 6];
    getrandom::fill(&mut request_id_prefix).map_err(|error| io::Error::other(error.to_string()))?;
    let (stop, stopping) = watch::channel(false);
    let house = House {
        snapshots: Snapshots::new(shards),
        process: ProcessMeter::default(),
        facts,
        request_ids: routes::RequestIds::new(request_id_prefix),
        stopping: stopping.clone(),
    };
    let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
        runtime.block_on(serve(listener, Arc::new(house), stopping));
        // A question that a shard has not answered is not waited for.
        runtime.shutdown_background();
    })?;
    Ok(ControlHandle { address, stop, thread: Some(thread) })
}

async fn serve(listener: TcpListener, house: Arc<House>, mut stopping: watch::Receiver<bool>) {
    let service = routes::router(house);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let Some((stream, place)) = accepted else {
            // Out of descriptors: whoever waits is still there a little later.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEAD_SIZE_MAX)
            .max_headers(HEAD_FIELDS_MAX);
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            match tokio::time::timeout(CONNECTION_LIFE_MAX, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!("control connection: {error}"),
                Err(_) => tracing::debug!("control connection closed: it was open for too long"),
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIME_MAX, graceful.shutdown()).await.is_err() {
        tracing::warn!("control: some requests were still open at the end");
    }
}

/// The next client, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            tracing::debug!("control: accept: {error}");
            None
        }
    }
}
