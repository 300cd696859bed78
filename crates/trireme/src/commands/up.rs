//! `trireme up`: the cluster of this machine.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::cli::Up;
use crate::errors::{CliError, Kind, Result};
use crate::kubeconfig::{self, Owner};
use crate::layout::Layout;
use crate::process::{self, Process};
use crate::progress::{Progress, seconds};
use crate::settings::Settings;
use crate::supervisor;

use super::{demo, holder_name, node, server};

/// The port of the API when nobody says otherwise.
const API_PORT: u16 = 6443;

/// How long a daemon that its supervisor starts again is waited for.
const AGAIN_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a daemon that does not answer: nobody tells when one that hangs goes on.
const AGAIN_PAUSE: Duration = Duration::from_millis(50);

/// Starts what is not running.
pub async fn run(arguments: Up, layout: &Layout, quiet: bool, is_root: bool) -> Result {
    if !arguments.no_node && !is_root {
        return Err(CliError::new(
            Kind::Machine,
            "NEEDS_ROOT",
            "a node needs root: it makes namespaces and containers",
        )
        .hint("run it with sudo, or start the control plane alone: trireme up --no-node"));
    }
    let mut progress = Progress::start(quiet);
    layout.create()?;
    let before = Settings::read(layout)?;
    let settings = wanted(&arguments, before.as_ref())?;
    if before.as_ref() != Some(&settings) {
        settings.write(layout)?;
    }
    match server_is_up(layout).await? {
        false => {
            start_server(layout, settings).await?;
            progress.done("control plane answering");
        }
        true if !quiet => eprintln!("  the control plane is running already"),
        true => {}
    }
    let settings = Settings::read(layout)?.ok_or_else(|| CliError::internal("the settings went away"))?;
    if let Some(name) = &settings.node {
        match start_node(layout, name).await? {
            true => drop(progress.done("node ready")),
            false if !quiet => eprintln!("  the node {name} is running already"),
            false => {}
        }
    }
    if !arguments.no_kubeconfig {
        install_kubeconfig(layout)?;
        progress.done("kubeconfig merged, context trireme");
    }
    if arguments.demo {
        return demo::run(layout, &settings, &mut progress).await;
    }
    if !quiet {
        eprintln!("ready after {}. Try:", seconds(progress.total()));
        let first = if settings.node.is_some() {
            "kubectl get nodes"
        } else {
            "kubectl get namespaces"
        };
        for line in [first, "kubectl apply -f examples/", "trireme status"] {
            eprintln!("  {line}");
        }
    }
    Ok(())
}

/// Whether the control plane answers; one that died is waited for while its supervisor starts it again.
async fn server_is_up(layout: &Layout) -> Result<bool> {
    let files = supervisor::Files::new(layout, server::DAEMON, server::DAEMON);
    let answers = || async {
        match Settings::read(layout) {
            Ok(Some(settings)) => super::status::ready(layout, &settings).await.is_ok(),
            _ => false,
        }
    };
    let begun = Instant::now();
    while begun.elapsed() < AGAIN_LIMIT {
        let supervised = files.read();
        if supervised.is_some() {
            files.passed().await?;
        }
        let process = Process::read(&layout.process(server::DAEMON));
        match (process, supervised) {
            (Some(_), _) if answers().await => return Ok(true),
            // It was killed a moment ago, or it hangs.
            (Some(process), _) => drop(process.gone_within(AGAIN_PAUSE).await),
            (None, Some(_)) => tokio::time::sleep(AGAIN_PAUSE).await,
            (None, None) => return Ok(false),
        }
    }
    let last = files.read().and_then(|state| state.last_death);
    let why = last.map_or("it does not answer".into(), |death| death.why);
    Err(CliError::new(
        Kind::Machine,
        "NOT_ANSWERING",
        format!("the control plane runs, but is not ready: {why}"),
    )
    .hint(format!(
        "its log: {}; start it anew: trireme down, trireme up",
        layout.log("server").display()
    )))
}

/// The settings of this call: what was not said stays as it was.
fn wanted(arguments: &Up, before: Option<&Settings>) -> Result<Settings> {
    let mut settings = before.cloned().unwrap_or(Settings {
        api_port: API_PORT,
        ..Settings::default()
    });
    if let Some(port) = arguments.api_port {
        settings.api_port = port;
    }
    settings.demo |= arguments.demo;
    settings.etcd_listen = arguments.etcd_listen.or(settings.etcd_listen);
    settings.certificate_seconds = arguments.certificate_lifetime.or(settings.certificate_seconds);
    if !arguments.no_node && settings.node.is_none() {
        if before.is_some() {
            return Err(CliError::new(
                Kind::Usage,
                "SHAPE",
                "this cluster was started without a node, and a node cannot be added to it yet",
            )
            .hint("go on without one: trireme up --no-node; or start over: trireme reset"));
        }
        settings.node = Some(host_name());
    }
    Ok(settings)
}

/// The machine's name as a node's: lower case, and nothing that a DNS name cannot have.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().to_lowercase();
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let name: String = name.chars().map(fits).collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    if name.is_empty() { "trireme".into() } else { name }
}

async fn start_server(layout: &Layout, mut settings: Settings) -> Result {
    let mut words = vec![
        "keep-server".to_owned(),
        "--api-port".into(),
        settings.api_port.to_string(),
    ];
    words.extend(layout.flags());
    let ready = process::start(&words, &layout.log("server")).await?;
    let port = |name: &str| ready[name].as_u64().and_then(|port| u16::try_from(port).ok());
    // Port 0 is chosen once: clients keep what their kubeconfig says.
    settings.api_port = port("apiPort").unwrap_or(settings.api_port);
    settings.demo_port = port("demoPort");
    settings.write(layout)
}

/// Starts the node's namespaces and its daemon, whichever is not there. Answers whether something was started.
async fn start_node(layout: &Layout, name: &str) -> Result<bool> {
    let holder = match node::holder(layout, name) {
        Some(holder) => holder,
        None => {
            let made = process::start(&["node-hold".to_owned()], &layout.log("node")).await?;
            let holder: Process = serde_json::from_value(made).map_err(CliError::internal)?;
            holder.write(&layout.process(&holder_name(name)))?;
            holder
        }
    };
    // The socket is the daemon's, and answers only while it lives.
    let begun = Instant::now();
    while begun.elapsed() < AGAIN_LIMIT {
        let supervised = node::files(layout, name).read();
        if supervised.is_some() {
            node::files(layout, name).passed().await?;
        }
        if tokio::net::UnixStream::connect(layout.node_socket(name)).await.is_ok() {
            return Ok(false);
        }
        if supervised.is_none() {
            break;
        }
        // It was killed a moment ago, and its supervisor has not seen it yet.
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
    let mut words: Vec<String> = ["keep-node", "--name", name, "--holder", &holder.pid.to_string()]
        .map(str::to_owned)
        .into();
    words.extend(layout.flags());
    process::start(&words, &layout.log("node")).await?;
    Ok(true)
}

/// Merges the administrator's access into the user's kubeconfig, and keeps in mind which file that is.
pub fn install_kubeconfig(layout: &Layout) -> Result {
    let path = layout.admin_kubeconfig();
    let text = std::fs::read_to_string(&path).map_err(|error| CliError::file(&path, &error))?;
    let ours: Value = serde_saphyr::from_str(&text).map_err(CliError::internal)?;
    let mut settings = Settings::read(layout)?.unwrap_or_default();
    let mut owner = owner();
    // A directory that was made by an earlier call is still ours.
    let before = settings.kubeconfig.as_ref().filter(|before| before.path == owner.path);
    owner.made_directory = before.is_some_and(|before| before.made_directory);
    kubeconfig::install(&mut owner, &ours)?;
    if settings.kubeconfig.as_ref() == Some(&owner) {
        return Ok(());
    }
    settings.kubeconfig = Some(owner);
    settings.write(layout)
}

/// Whose kubeconfig is meant.
pub fn owner() -> Owner {
    Owner::find(
        |name| std::env::var(name).ok().filter(|value| !value.is_empty()),
        kubeconfig::home_of,
    )
}
