//! What speaks to a running host: each command becomes one request, and its answer words or JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use clap::{Args, Subcommand};
use hyper::Method;
use uuid::Uuid;

use super::print;
use crate::cli::client::{AdminAddress, AdminClient, Answer, Call, segment};
use crate::cli::{Failure, Where};
use crate::config::Config;

const ALL: &str = "/admin/v1/policies";
/// What a host may take for an upload beyond compiling (30 s for the body, 30 s for the rest), and some more.
const BEYOND_COMPILING: Duration = Duration::from_secs(75);
/// Bytes of a name in the audit log, as the host takes it.
const OPERATOR_BYTES_MAX: usize = 64;

/// Which host, and who asks.
#[derive(Debug, Clone, Default, Args)]
pub struct Host {
    /// Configuration with the host's address and token [default: weir.toml if it is there].
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[command(flatten)]
    admin: AdminAddress,
    /// Who you are, for the audit log [default: the environment's USER].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print the host's answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What can be done with the modules of a running host. MODULE is a digest, the beginning of one (6 digits or more), a
/// name (the youngest with it), or name@version.
#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// Hand a component to a running host, which takes it into its registry if it is good.
    Push {
        /// The component.
        file: PathBuf,
        /// Its name, when it is not the one that it carries.
        #[arg(long)]
        name: Option<String>,
        /// Its version, when it is not the one that it carries.
        #[arg(long)]
        version: Option<String>,
        /// Test vectors to run besides those that it carries.
        #[arg(long, value_name = "FILE")]
        vectors: Option<PathBuf>,
        /// Activate it, if it is good.
        #[arg(long)]
        activate: bool,
        /// Which host.
        #[command(flatten)]
        host: Host,
    },
    /// Let a module serve what it exports; batches in flight finish on the one before.
    Activate {
        /// The module: digest, its first digits, name, or name@version.
        module: String,
        /// Only this interface, such as toggle; may be given again.
        #[arg(long = "interface", value_name = "NAME")]
        interfaces: Vec<String>,
        /// Which host.
        #[command(flatten)]
        host: Host,
    },
    /// Let the set before the last activation serve again.
    Rollback {
        /// Which host.
        #[command(flatten)]
        host: Host,
    },
    /// Print what serves, what is being tried, and the registry.
    List {
        /// Which host.
        #[command(flatten)]
        host: Host,
    },
    /// Print what shadow and canary decided otherwise than the live module, with samples and times.
    Diff {
        /// Which host.
        #[command(flatten)]
        host: Host,
    },
    /// Let a module decide besides the live one, off the reply path; only what differs is noted.
    Shadow {
        /// The module: digest, its first digits, name, or name@version.
        #[arg(required_unless_present = "end")]
        module: Option<String>,
        /// Share of the batches, above 0, at most 1.
        #[arg(long, default_value = "1", value_parser = share)]
        share: f64,
        /// End it.
        #[arg(long, conflicts_with_all = ["module", "share"])]
        end: bool,
        /// Which host.
        #[command(flatten)]
        host: Host,
    },
    /// Let a module serve a share of the targets; it is rolled back by itself when it fails.
    Canary {
        /// The module: digest, its first digits, name, or name@version.
        #[arg(required_unless_present = "end")]
        module: Option<String>,
        /// Share of the targets, above 0, at most 1, such as 0.05.
        #[arg(long, value_parser = share, required_unless_present = "end")]
        share: Option<f64>,
        /// End it.
        #[arg(long, conflicts_with_all = ["module", "share"])]
        end: bool,
        /// Which host.
        #[command(flatten)]
        host: Host,
    },
    /// Remove a module from the registry; one that serves, or would after a rollback, stays.
    Delete {
        /// The module: digest, its first digits, name, or name@version.
        module: String,
        /// Which host.
        #[command(flatten)]
        host: Host,
    },
    /// Print who did what with modules, newest first.
    Audit {
        /// Lines at most, up to 1000.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Which host.
        #[command(flatten)]
        host: Host,
    },
}

/// What a command prints, and why it failed if it did.
#[derive(Debug)]
pub(super) struct Outcome {
    /// For standard output.
    pub(super) printed: String,
    pub(super) result: Result<(), Failure>,
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self { printed: String::new(), result: Err(failure) }
    }
}

/// Asks the host, and prints its answer.
///
/// # Errors
/// When no host answers, or it refuses.
pub(super) async fn run(command: RemoteCommand) -> Result<(), Failure> {
    let Outcome { printed, result } = perform(command).await.unwrap_or_else(Outcome::from);
    if !printed.is_empty() {
        println!("{}", printed.trim_end());
        return result.map_err(Failure::told);
    }
    result
}

/// As [`run`], without printing.
pub(super) async fn perform(command: RemoteCommand) -> Result<Outcome, Failure> {
    let Prepared { host, mut call, words } = prepare(command)?;
    let (config, _) = Where::of(&host.config).load()?;
    let client = AdminClient::new(&host.admin, &config.admin)?;
    call.operator = operator(host.by)?;
    call.deadline = deadline(&config);
    let Some(answer) = client.ask(call).await? else { return Err(client.no_host("")) };
    let json = host.json.then(|| answer.body.to_string());
    // A script that asked for JSON gets what the host said, a problem with its type and code, too.
    let told = if host.json { client.check(&answer).map(|()| String::new()) } else { words(&client, answer) };
    Ok(match told {
        Ok(words) => Outcome { printed: json.unwrap_or(words), result: Ok(()) },
        Err(failure) => Outcome { printed: json.unwrap_or_default(), result: Err(failure) },
    })
}

/// Longer than the host's own deadlines, so that it is the host that says what took too long.
fn deadline(config: &Config) -> Duration {
    Duration::from_millis(config.policy.compile_deadline_ms).saturating_add(BEYOND_COMPILING)
}

/// What to print of an answer.
type Words = fn(&AdminClient, Answer) -> Result<String, Failure>;

/// A command as a request, and what to print of its answer.
struct Prepared {
    host: Host,
    call: Call,
    words: Words,
}

fn prepare(command: RemoteCommand) -> Result<Prepared, Failure> {
    let of_module = |module: &str, rest: &str| format!("{ALL}/{}{rest}", segment(module));
    let get = |path: &str| Call::new(Method::GET, path);
    let post = |path: String| Call::new(Method::POST, path);
    let delete = |path: String| Call::new(Method::DELETE, path);
    let commanded: Words = |client, answer| Ok(print::commanded(&client.accept(answer)?));
    let prepared = |host, call, words| Prepared { host, call, words };
    Ok(match command {
        RemoteCommand::Push { file, name, version, vectors, activate, host } => {
            let call = push(&file, name, version, vectors.as_deref(), activate)?;
            prepared(host, call, |client, answer| Ok(print::pushed(&client.accept(answer)?)))
        }
        RemoteCommand::Activate { module, interfaces, host } => {
            let mut path = of_module(&module, "/activate");
            if !interfaces.is_empty() {
                path += &format!("?interfaces={}", segment(&interfaces.join(",")));
            }
            prepared(host, post(path), commanded)
        }
        RemoteCommand::Rollback { host } => prepared(host, post(format!("{ALL}/rollback")), commanded),
        RemoteCommand::List { host } => {
            prepared(host, get(ALL), |client, answer| Ok(print::list(&client.accept(answer)?)))
        }
        RemoteCommand::Diff { host } => {
            let call = get(&format!("{ALL}/diff"));
            prepared(host, call, |client, answer| Ok(print::diff(&client.accept(answer)?)))
        }
        RemoteCommand::Shadow { module: Some(module), share, host, .. } => {
            prepared(host, post(of_module(&module, &format!("/shadow?share={share}"))), commanded)
        }
        RemoteCommand::Canary { module: Some(module), share: Some(share), host, .. } => {
            prepared(host, post(of_module(&module, &format!("/canary?share={share}"))), commanded)
        }
        RemoteCommand::Shadow { host, .. } => prepared(host, delete(format!("{ALL}/shadow")), commanded),
        RemoteCommand::Canary { host, .. } => prepared(host, delete(format!("{ALL}/canary")), commanded),
        RemoteCommand::Delete { module, host } => {
            let call = delete(of_module(&module, ""));
            prepared(host, call, |client, answer| Ok(print::deleted(&client.accept(answer)?)))
        }
        RemoteCommand::Audit { limit, host } => {
            let call = get(&format!("{ALL}/audit?limit={limit}"));
            prepared(host, call, |client, answer| Ok(print::audit(&client.accept(answer)?)))
        }
    })
}

fn push(
    file: &Path,
    name: Option<String>,
    version: Option<String>,
    vectors: Option<&Path>,
    activate: bool,
) -> Result<Call, Failure> {
    let unreadable = |path: &Path, error: std::io::Error| {
        Failure::usage(format!("cannot read {}: {error}; name a file that is there", path.display()))
    };
    let module = std::fs::read(file).map_err(|error| unreadable(file, error))?;
    if module.is_empty() {
        return Err(Failure::no(format!("{} is empty; weir policy build makes a component", file.display())));
    }
    let mut query = Vec::new();
    for (field, text) in [("name", name), ("version", version)] {
        query.extend(text.map(|text| format!("{field}={}", segment(&text))));
    }
    if activate {
        query.push("activate=true".into());
    }
    let body = match vectors {
        None => ("application/wasm".into(), module.into()),
        Some(path) => {
            let vectors = std::fs::read_to_string(path).map_err(|error| unreadable(path, error))?;
            form(&module, &vectors)
        }
    };
    let path = if query.is_empty() { ALL.into() } else { format!("{ALL}?{}", query.join("&")) };
    Ok(Call { body: Some(body), ..Call::new(Method::POST, path) })
}

/// A component and its vectors as `multipart/form-data`.
fn form(module: &[u8], vectors: &str) -> (String, Bytes) {
    // 122 random bits: no component holds them.
    let boundary = Uuid::new_v4().simple().to_string();
    let mut body = BytesMut::new();
    for (name, bytes) in [("module", module), ("vectors", vectors.as_bytes())] {
        let head =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\r\n");
        body.put_slice(head.as_bytes());
        body.put_slice(bytes);
        body.put_slice(b"\r\n");
    }
    body.put_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/form-data; boundary={boundary}"), body.freeze())
}

/// The name for the audit log: what was given, else the environment's if it can be sent.
fn operator(given: Option<String>) -> Result<Option<String>, Failure> {
    let fits = |name: &str| {
        (1..=OPERATOR_BYTES_MAX).contains(&name.len())
            && name.trim() == name
            && name.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    };
    match given {
        Some(name) if fits(&name) => Ok(Some(name)),
        Some(_) => Err(Failure::usage(format!("--by must be 1 to {OPERATOR_BYTES_MAX} printable ASCII characters"))),
        None => Ok(std::env::var("USER").ok().filter(|name| fits(name))),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let parsed = text.parse::<f64>().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    parsed.ok_or_else(|| "must be a number above 0 and at most 1, such as 0.05".to_owned())
}
