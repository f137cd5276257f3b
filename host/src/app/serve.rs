//! The host as a process: listeners, metrics, signals, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::operations::RunningHost;
use super::reload::{self, Running};
use super::{App, AppError, demo};
use crate::admin::{self, AdminState, Gate, PolicyLimits};
use crate::cli::{Failure, Where};
use crate::clock::Clock;
use crate::config::{AdminConfig, Config, ConfigError, StoreType};
use crate::http::{self, AccessLog, HttpState, Kinds};
use crate::policy::Compiler;
use crate::store::embedded::FILES_MAX;
use crate::telemetry;

/// Bounds of the buckets for sizes of batches.
const ITEMS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// A wall clock that is set by less than this is being adjusted, in milliseconds.
const CLOCK_STEP_MS: i64 = 1_000;
/// Files that are open in any case: the executor, modules, the log, names that are resolved.
const FILES_BESIDES: u64 = 64;
/// Connections of clients that are worth a start.
const CONNECTIONS_MIN: usize = 16;
/// How often the recorder folds its histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Of both listeners.
#[derive(Debug, Clone, Copy)]
pub struct Addresses<T> {
    /// The public one.
    pub public: T,
    /// The operators' one.
    pub operators: T,
}

/// Runs the host until SIGTERM or SIGINT stops it; a second signal ends it at once. SIGHUP reloads (see
/// [`super::reload`]); SIGUSR1 opens the access log again; SIGUSR2 does nothing.
///
/// # Errors
/// See [`AppError`].
pub async fn run(place: Where, listen: Addresses<Option<SocketAddr>>, json: bool) -> Result<(), Failure> {
    // Before anything takes long: none of them may end a host that starts.
    let signals = Signals::new()?;
    let is_demo = place.is_demo();
    let load = || -> Result<_, ConfigError> {
        let mut loaded = place.load_to_serve()?;
        let config = &mut loaded.config;
        config.http.listen = listen.public.unwrap_or(config.http.listen);
        config.admin.listen = listen.operators.unwrap_or(config.admin.listen);
        config.validate()?;
        Ok((loaded.config, loaded.warnings))
    };
    let (mut config, warnings) = load()?;
    telemetry::set_log_level(&config.log.level);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let fit = allow_open_files(&mut config)?;
    let public = bind(config.http.listen, "http.listen").await?;
    let operators = bind(config.admin.listen, "admin.listen").await?;
    let addresses = Addresses { public: local_address(&public)?, operators: local_address(&operators)? };
    let metrics = install_recorder()?;
    telemetry::begin_at_zero(&config.kinds().iter().map(|(kind, _)| *kind).collect::<Vec<_>>());
    if is_demo {
        demo::prepare(&place.data).await?;
    }
    let host = Host::start(config, public, operators, metrics).await?;
    tell_addresses(&addresses, is_demo, json);
    tokio::spawn(watch_clock(Clock::Real));
    let read = || {
        let (mut config, _) = load()?;
        config.http.connections_max = config.http.connections_max.min(fit);
        Ok(config)
    };
    host.serve(signals, read).await
}

/// A host that serves on both listeners.
struct Host {
    app: Arc<App>,
    running: Running,
    operators: Operators,
    public: PublicListener,
}

/// The public listener while it is served.
struct PublicListener {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl PublicListener {
    /// Answers what is in flight, and ends.
    async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

impl Host {
    /// Opens what the configuration names, and serves.
    async fn start(
        config: Config,
        public: TcpListener,
        operators: TcpListener,
        metrics: PrometheusHandle,
    ) -> Result<Self, AppError> {
        let clock = Clock::Real;
        // What cannot be served must not have begun to flush: keys and tokens are read before anything starts.
        HttpState::new(&config.http, &config.auth, Kinds::default(), clock.clone())?;
        // Probes are answered from now on, however long it takes to open what is needed.
        let operators = answer_probes(operators, &config.admin)?;
        let access = AccessLog::open(&config.log.access)?;
        let app = Arc::new(App::start(config.clone(), clock, Compiler::this_executable()).await?);
        let durability = app.store().durability();
        tracing::info!(store = durability.mode, "{}", durability.description);
        let (http, admin) = states(&config, &app, access.clone(), metrics)?;
        http.begin().await;
        let (stop, stopped) = watch::channel(false);
        operators.gate.open(Arc::clone(&admin));
        let task = tokio::spawn(http::serve(public, Arc::clone(&http), stopped));
        let files = reload::files(&config);
        let running = Running { config, http, access, admin, app: Arc::clone(&app), files };
        Ok(Self { app, running, operators, public: PublicListener { stop, task } })
    }

    /// Serves until a signal stops it or it must end by itself. On a reload, `read` supplies the configuration.
    async fn serve(self, mut signals: Signals, read: impl Fn() -> Result<Config, ConfigError>) -> Result<(), Failure> {
        let Self { app, mut running, operators, public } = self;
        let ended = until_told(&mut signals, &mut running, &app, read).await;
        let access = running.access.clone();
        drop(running);
        if let Some(error) = ended {
            public.stop().await;
            // As a crash would: what is in the journal stays there.
            app.abort();
            return Err(error.into());
        }
        tracing::info!("stopping: answering what is in flight, then flushing");
        tokio::spawn(end_at_once(signals));
        public.stop().await;
        app.stop().await;
        let _ = operators.stop.send(true);
        let _ = operators.task.await;
        if let Some(access) = access {
            let _ = tokio::task::spawn_blocking(move || access.close()).await;
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// The operators' listener while it is served.
struct Operators {
    gate: Arc<Gate>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Serves operators behind a gate that is still closed.
fn answer_probes(listener: TcpListener, config: &AdminConfig) -> Result<Operators, ConfigError> {
    let gate = Arc::new(Gate::new(config)?);
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(admin::serve(listener, Arc::clone(&gate), stopped));
    Ok(Operators { gate, stop, task })
}

/// What answers on both listeners.
fn states(
    config: &Config,
    app: &Arc<App>,
    access: Option<Arc<AccessLog>>,
    metrics: PrometheusHandle,
) -> Result<(Arc<HttpState>, Arc<AdminState>), ConfigError> {
    let http = HttpState::new(&config.http, &config.auth, app.kinds().clone(), app.clock.clone())?;
    let http = Arc::new(http.with_access_log(access));
    let operations = Arc::new(RunningHost::new(Arc::clone(app), Arc::clone(&http), metrics));
    let admin = AdminState::new(&config.admin, PolicyLimits::from(&config.policy), operations)?;
    Ok((http, Arc::new(admin)))
}

/// A second signal does not wait for what is under way.
async fn end_at_once(mut signals: Signals) {
    while signals.wait().await != Instruction::Stop {}
    tracing::warn!("second signal: ending at once; what is not flushed stays in the journal");
    std::process::exit(i32::from(crate::cli::EXIT_UNAVAILABLE));
}

/// Serves and reloads until a signal stops it or it must end by itself; in the latter case, returns why.
async fn until_told(
    signals: &mut Signals,
    running: &mut Running,
    app: &App,
    read: impl Fn() -> Result<Config, ConfigError>,
) -> Option<AppError> {
    loop {
        tokio::select! {
            instruction = signals.wait() => match instruction {
                Instruction::Stop => return None,
                Instruction::Reopen => {
                    if !running.reopen() {
                        tracing::warn!("SIGUSR1 means nothing here: SIGHUP reloads, SIGTERM stops");
                    }
                }
                // Reading files may wait for a disk.
                Instruction::Reload => tokio::task::block_in_place(|| running.reload(&read)),
            },
            error = app.ended() => return Some(error),
        }
    }
}

/// Says where it listens, on standard output; as one JSON object where that was asked for.
fn tell_addresses(addresses: &Addresses<SocketAddr>, is_demo: bool, json: bool) {
    let Addresses { public, operators } = addresses;
    if json {
        let (public, operators) = (format!("http://{public}"), format!("http://{operators}"));
        println!("{}", serde_json::json!({ "listening": public, "operators": operators }));
        return;
    }
    println!("listening on http://{public}");
    println!("operators on http://{operators}");
    if is_demo {
        println!("{}", demo::lines_to_try(*public, *operators));
    }
}

/// Logs when the machine's clock has been set: times in rows and tokens jump with it, ages and deadlines do not.
async fn watch_clock(clock: Clock) {
    let mut known_ms = clock.ahead_ms();
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        let ahead_ms = clock.ahead_ms();
        let by_ms = ahead_ms - known_ms;
        if by_ms.abs() >= CLOCK_STEP_MS {
            metrics::counter!(telemetry::CLOCK_STEPS_TOTAL).increment(1);
            let way = if by_ms > 0 { "forward" } else { "back" };
            tracing::warn!(
                by_ms,
                "the machine's clock was set {way}: times of new rows and tokens follow it, ages do not"
            );
        }
        // What is adjusted in small steps adds up to none.
        known_ms = ahead_ms;
    }
}

/// Raises the limit of open files as far as the system allows: shells give far fewer than a server needs. Returns how
/// many client connections fit, with files left for the store, SQL and probes.
///
/// # Errors
/// When hardly any would be left for clients.
fn allow_open_files(config: &mut Config) -> Result<usize, Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return Ok(usize::MAX) };
    let (asked, reserve) = (config.http.connections_max, files_besides(config));
    let fit = usize::try_from(files.saturating_sub(reserve)).unwrap_or(usize::MAX);
    if fit < CONNECTIONS_MIN {
        return Err(Failure::usage(format!(
            "{files} files may be open, and {reserve} are kept for the store, SQL, upstreams and operators: raise the limit \
             (ulimit -Hn, LimitNOFILE=) to {} for http.connections_max = {asked}",
            reserve.saturating_add(asked as u64)
        )));
    }
    config.http.connections_max = asked.min(fit);
    if fit < asked {
        tracing::warn!(
            files,
            reserve,
            connections_max = fit,
            "http.connections_max = {asked} does not fit the files that may be open (ulimit -Hn, LimitNOFILE=): lowered"
        );
    } else {
        tracing::info!(files, reserve, connections_max = asked, "open files");
    }
    Ok(fit)
}

/// Files that are open besides connections of clients.
fn files_besides(config: &Config) -> u64 {
    let store = if config.store.store_type == StoreType::Embedded { FILES_MAX } else { FILES_BESIDES };
    // SQLite opens two more files for a connection: its log and its index.
    let sql = 3 * u64::from(config.sql.connections_max);
    let upstreams = config.upstreams.iter().map(|upstream| upstream.limits.idle_connections_max as u64).sum::<u64>();
    FILES_BESIDES + store + sql + upstreams + admin::CONNECTIONS_MAX as u64
}

async fn bind(address: SocketAddr, field: &str) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|error| AppError::System {
        what: format!("listen on {address}"),
        reason: format!("{error}; is another weir running? choose another address ({field}, or port 0)"),
    })
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, AppError> {
    listener
        .local_addr()
        .map_err(|error| AppError::System { what: "learn the listener's address".into(), reason: error.to_string() })
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instruction {
    Stop,
    Reload,
    /// The access log was moved away.
    Reopen,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Users' signals, which would end a process that does not listen for them.
    others: [Signal; 2],
}

impl Signals {
    fn new() -> Result<Self, AppError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| AppError::System { what: "listen for signals".into(), reason: error.to_string() })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            others: [listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?],
        })
    }

    async fn wait(&mut self) -> Instruction {
        let [first, second] = &mut self.others;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Instruction::Stop,
                _ = self.interrupt.recv() => return Instruction::Stop,
                _ = self.hangup.recv() => return Instruction::Reload,
                _ = first.recv() => return Instruction::Reopen,
                _ = second.recv() => tracing::warn!("SIGUSR2 means nothing here: SIGHUP reloads, SIGTERM stops"),
            }
        }
    }
}

fn install_recorder() -> Result<PrometheusHandle, AppError> {
    let failed = |error: metrics_exporter_prometheus::BuildError| AppError::System {
        what: "install the metrics recorder".into(),
        reason: error.to_string(),
    };
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &telemetry::tally::SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_items".into()), &ITEMS))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(failed)?;
    telemetry::describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}
