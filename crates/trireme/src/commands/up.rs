//! `trireme up`: the cluster of this machine.

use std::time::Duration;

use tokio::time::Instant;

use crate::cli::{ApiServerFlags, Up};
use crate::errors::{CliError, Kind, Result};
use crate::layout::Layout;
use crate::process::{self, Process};
use crate::progress::{Progress, seconds};
use crate::server::etcd_listen_over_etcd;
use crate::settings::Settings;
use crate::state_home::{Home, StateHome};
use crate::supervisor;

use super::{demo, holder_name, node, server, store_place};

/// The port of the API when nobody says otherwise.
const API_PORT: u16 = 6443;

/// How long a daemon that its supervisor starts again is waited for.
const AGAIN_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a daemon that does not answer: nobody tells when one that hangs goes on.
const AGAIN_PAUSE: Duration = Duration::from_millis(50);

/// How long a control plane may take to its first answer: a store of gigabytes is read meanwhile, or its etcd waited for.
const SERVER_LIMIT: Duration = Duration::from_secs(600);
/// How long a node may take: it registers itself and sets up its network, which takes seconds on a slow machine.
const NODE_LIMIT: Duration = Duration::from_secs(180);

/// Starts what is not running.
pub async fn run(arguments: Up, layout: &Layout, quiet: bool, is_root: bool) -> Result {
    if !arguments.no_node && !is_root {
        let alone = layout.command("up --no-node");
        return Err(CliError::new(
            Kind::Machine,
            "NEEDS_ROOT",
            "a node needs root: it makes namespaces and containers",
        )
        .hint(format!(
            "run it with sudo, or start the control plane alone, as yourself: {alone}"
        )));
    }
    if arguments.demo && arguments.no_node {
        return Err(demo::needs_node(layout));
    }
    let mut progress = Progress::start(quiet);
    let before = Settings::read(layout)?;
    let made = layout.create()?;
    let wait = server_is_up(layout, before.as_ref());
    let is_up = progress.during(|| "waiting for the control plane".into(), wait).await?;
    let mut settings = wanted(&arguments, before.as_ref(), is_up, layout)?;
    settings.made_directories.extend(made);
    if !is_up {
        place_of_state(&arguments, &mut settings, layout)?;
    }
    let said_before = before.as_ref().map(|before| &before.api_server);
    let says_otherwise = settings.api_server != *said_before.unwrap_or(&ApiServerFlags::default());
    if !is_up || says_otherwise {
        let flags = &settings.api_server;
        flags.check()?;
        if let Some(what) = flags.audit.without_effect(&flags.audit_webhook) {
            progress.say(what);
        }
    }
    if before.as_ref() != Some(&settings) {
        settings.write(layout)?;
    }
    if is_up {
        progress.say("the control plane is running already");
        for (asked, what) in [
            (
                arguments.certificate_lifetime.is_some(),
                "another lifetime of certificates begins",
            ),
            (says_otherwise, "what was said of the API server counts"),
            (
                arguments.demo && settings.demo_port.is_none(),
                "a port of this machine leads to the demo",
            ),
        ] {
            if asked && before.as_ref() != Some(&settings) {
                let (down, up) = (layout.command("down"), layout.command("up"));
                progress.say(&format!("{what} with the next start: {down}; {up}"));
            }
        }
    } else {
        let start = start_server(layout, settings);
        progress.during(|| "starting the control plane".into(), start).await?;
        progress.done("control plane answering");
    }
    let settings = Settings::read(layout)?.ok_or_else(|| CliError::internal("the settings went away"))?;
    if let Some(name) = &settings.node {
        let start = start_node(layout, name);
        match progress.during(|| format!("starting the node {name}"), start).await? {
            true => progress.done("node ready"),
            false => progress.say(&format!("the node {name} is running already")),
        }
    }
    if !arguments.no_kubeconfig {
        let owner = super::kubeconfig::install(layout)?;
        progress.done("kubeconfig merged, context trireme");
        if let Some(previous) = owner.previous_context {
            progress.say(&format!(
                "the current context was {previous}: kubectl config use-context {previous}"
            ));
        }
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
        for line in [first, "kubectl apply -f examples/", &layout.command("status")] {
            eprintln!("  {line}");
        }
    }
    Ok(())
}

/// Whether the control plane answers; one that died is waited for while its supervisor starts it again.
async fn server_is_up(layout: &Layout, settings: Option<&Settings>) -> Result<bool> {
    let files = supervisor::Files::new(layout, server::DAEMON, server::DAEMON);
    let begun = Instant::now();
    let mut last = "it does not answer".to_owned();
    while begun.elapsed() < AGAIN_LIMIT {
        let supervised = files.read();
        if supervised.is_some() && !passed(&files, begun).await? {
            last = died(supervised.as_ref()).unwrap_or(last);
            break;
        }
        let process = Process::read(&layout.process(server::DAEMON));
        match (process, supervised) {
            (Some(process), _) => {
                let Some(settings) = settings else {
                    return Err(by_hand(process));
                };
                match super::status::ready(layout, settings).await {
                    Ok(()) => return Ok(true),
                    Err(error) => last = error.what,
                }
                // It was killed a moment ago, or it hangs.
                process.gone_within(AGAIN_PAUSE).await;
            }
            (None, Some(state)) => {
                last = died(Some(&state)).unwrap_or(last);
                tokio::time::sleep(AGAIN_PAUSE).await;
            }
            (None, None) => return Ok(false),
        }
    }
    let what = format!("the control plane runs, but is not ready: {last}");
    let (down, up) = (layout.command("down"), layout.command("up"));
    let log = layout.log(server::DAEMON);
    Err(CliError::new(Kind::Machine, "NOT_ANSWERING", what)
        .hint(format!("start it anew: {down}; {up}; its log: {}", log.display())))
}

/// Waits for a daemon to be ready, or its supervisor gone, for as long as is left; false: neither happened.
async fn passed(files: &supervisor::Files, begun: Instant) -> Result<bool> {
    match tokio::time::timeout_at(begun + AGAIN_LIMIT, files.passed()).await {
        Ok(outcome) => outcome.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Why a daemon died the last time, if it did.
fn died(supervised: Option<&supervisor::State>) -> Option<String> {
    supervised.and_then(|state| Some(state.last_death.as_ref()?.why.clone()))
}

/// There is a control plane of this directory, and no `up` started it.
fn by_hand(process: Process) -> CliError {
    let what = format!("process {} is a `trireme server` of this directory", process.pid);
    CliError::new(Kind::Usage, "ALREADY_RUNNING", what).hint(format!(
        "end it where it was started (kill {}), then call this again",
        process.pid
    ))
}

/// The settings of this call: what was not said stays as it was.
///
/// # Errors
/// What runs would have to be another one.
fn wanted(arguments: &Up, before: Option<&Settings>, is_up: bool, layout: &Layout) -> Result<Settings> {
    let again = |flags: &str| {
        let (down, up) = (layout.command("down"), layout.command("up"));
        format!("{down}; {up}{flags}")
    };
    let mut settings = before.cloned().unwrap_or(Settings {
        api_port: API_PORT,
        ..Settings::default()
    });
    match arguments.api_port {
        // Any port is the one that it has.
        Some(0) if is_up => {}
        Some(port) if is_up && port != settings.api_port => {
            let what = format!("the API listens on port {} already", settings.api_port);
            return Err(CliError::new(Kind::Usage, "SHAPE", what)
                .hint(format!("start it anew: {}", again(&format!(" --api-port {port}")))));
        }
        Some(port) => settings.api_port = port,
        None => {}
    }
    settings.demo |= arguments.demo;
    settings.etcd_listen = arguments.etcd_listen.or(settings.etcd_listen);
    if arguments.etcd.are_given() {
        let etcd = arguments.etcd.anchored()?;
        if is_up && settings.etcd.as_ref() != Some(&etcd) {
            let what = "this cluster runs, and its state is not where --etcd-servers and its companions say";
            return Err(CliError::new(Kind::Usage, "SHAPE", what)
                .hint(format!("start it anew: {}", again(" --etcd-servers ..."))));
        }
        settings.etcd = Some(etcd);
    }
    if settings.etcd.is_some() && arguments.etcd_listen.is_some() {
        return Err(etcd_listen_over_etcd());
    }
    settings.api_server = arguments.api_server.over(&settings.api_server)?;
    if settings.api_server.audit.go_to_standard_output() {
        let what = "--audit-log-path - is the standard output, and what `up` starts has none";
        return Err(CliError::new(Kind::Usage, "AUDIT_LOG", what).hint("name a file: --audit-log-path FILE"));
    }
    settings.certificate_seconds = arguments.certificate_lifetime.or(settings.certificate_seconds);
    match (&settings.node, arguments.no_node) {
        (Some(node), true) => {
            let what = format!("this cluster has the node {node}, which --no-node would leave out");
            return Err(CliError::new(Kind::Usage, "SHAPE", what).hint(format!(
                "start all of it: {}; or another cluster: trireme --dir DIR up --no-node",
                layout.command("up")
            )));
        }
        (None, false) if is_up => {
            return Err(
                CliError::new(Kind::Usage, "SHAPE", "this cluster was started without a node").hint(format!(
                    "go on without one: {}; or start it anew with one: {}",
                    layout.command("up --no-node"),
                    again("")
                )),
            );
        }
        (None, false) => settings.node = Some(host_name()),
        _ => {}
    }
    Ok(settings)
}

/// Sees to it that a cluster is not started where its state is not.
fn place_of_state(arguments: &Up, settings: &mut Settings, layout: &Layout) -> Result {
    match StateHome::read(layout)? {
        // It was moved back since.
        Some(known) if known.home == Home::Embedded && !arguments.etcd.are_given() => settings.etcd = None,
        // What a server says about that is clear.
        Some(_) => {}
        None if settings.etcd.is_some() && store_place::holds_files(&layout.store())? => {
            let what =
                "the state of this cluster is in the embedded store: in an etcd it would begin as another cluster";
            let (migrate, other) = (
                layout.command("migrate --to etcd --etcd-servers ..."),
                "trireme --dir DIR up",
            );
            return Err(CliError::new(Kind::Usage, "SHAPE", what).hint(format!(
                "move it first: {migrate}; or make another cluster: {other} --etcd-servers ..."
            )));
        }
        None => {}
    }
    Ok(())
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
    let ready = process::start("the control plane", &words, &layout.log("server"), SERVER_LIMIT).await?;
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
            let words = ["node-hold".to_owned()];
            let made = process::start("the node", &words, &layout.log("node"), NODE_LIMIT).await?;
            let holder: Process = serde_json::from_value(made).map_err(CliError::internal)?;
            holder.write(&layout.process(&holder_name(name)))?;
            holder
        }
    };
    // The socket is the daemon's, and answers only while it lives.
    let begun = Instant::now();
    let files = node::files(layout, name);
    loop {
        let supervised = files.read();
        let in_time = supervised.is_none() || passed(&files, begun).await?;
        if tokio::net::UnixStream::connect(layout.node_socket(name)).await.is_ok() {
            return Ok(false);
        }
        if supervised.is_none() {
            break;
        }
        if !in_time || begun.elapsed() >= AGAIN_LIMIT {
            let why = died(supervised.as_ref()).unwrap_or("it does not answer".into());
            let what = format!("the node {name} runs, but is not ready: {why}");
            let (down, up, log) = (layout.command("down"), layout.command("up"), layout.log("node"));
            return Err(CliError::new(Kind::Machine, "NOT_ANSWERING", what)
                .hint(format!("start it anew: {down}; {up}; its log: {}", log.display())));
        }
        // It was killed a moment ago, and its supervisor has not seen it yet.
        tokio::time::sleep(AGAIN_PAUSE).await;
    }
    let mut words: Vec<String> = ["keep-node", "--name", name, "--holder", &holder.pid.to_string()]
        .map(str::to_owned)
        .into();
    words.extend(layout.flags());
    process::start("the node", &words, &layout.log("node"), NODE_LIMIT).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn flags(words: &str) -> Up {
        let words = ["trireme", "up"].into_iter().chain(words.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Up(up) => up,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_asked_for_meets_what_is_there() {
        let layout = Layout::find(None, true, |_| None).unwrap();
        let alone = Settings {
            api_port: 7000,
            ..Settings::default()
        };
        let with_node = Settings {
            node: Some("box".into()),
            ..alone.clone()
        };
        let cases: [(&str, Option<&Settings>, bool, std::result::Result<(u16, bool), &str>); 12] = [
            ("", None, false, Ok((6443, true))),
            ("--no-node", None, false, Ok((6443, false))),
            ("--no-node --api-port 0", Some(&alone), false, Ok((0, false))),
            ("--no-node --api-port 0", Some(&alone), true, Ok((7000, false))),
            ("--no-node --api-port 7000", Some(&alone), true, Ok((7000, false))),
            ("--no-node", Some(&alone), true, Ok((7000, false))),
            ("", Some(&alone), false, Ok((7000, true))),
            ("", Some(&with_node), true, Ok((7000, true))),
            (
                "--no-node --api-port 1",
                Some(&alone),
                true,
                Err("start it anew: trireme down; trireme up --api-port 1"),
            ),
            ("--api-port 1", Some(&with_node), false, Ok((1, true))),
            (
                "",
                Some(&alone),
                true,
                Err("go on without one: trireme up --no-node; or start it anew with one: trireme down; trireme up"),
            ),
            (
                "--no-node",
                Some(&with_node),
                true,
                Err("start all of it: trireme up; or another cluster: trireme --dir DIR up --no-node"),
            ),
        ];
        for (words, before, is_up, expect) in cases {
            let got = wanted(&flags(words), before, is_up, &layout);
            let got = got.map(|settings| (settings.api_port, settings.node.is_some()));
            assert_eq!(
                got.map_err(|error| error.hint),
                expect.map_err(str::to_owned),
                "up {words}, {is_up}"
            );
        }
    }
}
