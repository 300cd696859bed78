//! What `status` says about what was seen, for people and for programs.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::supervisor::State;

/// Everything that was seen.
pub struct Report {
    pub version: String,
    pub api: String,
    pub data: PathBuf,
    pub logs: PathBuf,
    /// The user's kubeconfig, and whether our context is still in it.
    pub kubeconfig: Option<(PathBuf, bool)>,
    /// The control plane's process.
    pub pid: Option<i32>,
    pub server: Health,
    pub supervised: Option<State>,
    pub node: Option<Node>,
    /// The command lines that start and end this cluster.
    pub up: String,
    pub down: String,
}

/// How the control plane is.
pub enum Health {
    Ready,
    /// It runs, and does not work: why.
    Sick(String),
    /// Its supervisor is about to start it.
    Restarting,
    /// It does not run; why, when nobody asked it to end.
    Absent(Option<String>),
}

/// A node.
pub struct Node {
    pub name: String,
    /// The process that holds its namespaces.
    pub pid: Option<i32>,
    pub health: NodeHealth,
    /// Its Ready condition, as the API tells it.
    pub condition: Option<Value>,
    pub supervised: Option<State>,
}

/// How a node's processes are.
pub enum NodeHealth {
    Running,
    Restarting,
    NoDaemon,
    Absent(Option<String>),
}

/// What does not work, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub hint: String,
}

// === impl Report ===

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("{:<16} {:<8} STATE\n", "PROCESS", "PID");
        let mut row = |name: &str, pid: Option<i32>, state: &str, supervised: Option<&State>| {
            let pid = pid.map_or("-".into(), |pid| pid.to_string());
            let _ = writeln!(out, "{name:<16} {pid:<8} {state}");
            if let Some((times, death)) =
                supervised.and_then(|state| Some((state.restarts, state.last_death.as_ref()?)))
            {
                let times = match times {
                    1 => "once".to_owned(),
                    times => format!("{times} times"),
                };
                let _ = writeln!(
                    out,
                    "{:<25} started again {times}, last at {}: {}",
                    "", death.at, death.why
                );
            }
        };
        row(
            "control plane",
            self.pid,
            &self.server.words(),
            self.supervised.as_ref(),
        );
        if let Some(node) = &self.node {
            row(
                &format!("node {}", node.name),
                node.pid,
                &node.words(),
                node.supervised.as_ref(),
            );
        }
        let kubeconfig = match &self.kubeconfig {
            None => "none was merged: trireme kubeconfig --merge".to_owned(),
            Some((path, true)) => format!("{}, context trireme", path.display()),
            Some((path, false)) => format!(
                "{} has no access to this cluster: trireme kubeconfig --merge",
                path.display()
            ),
        };
        for (name, value) in [
            ("\nVersion", self.version.clone()),
            ("API", self.api.clone()),
            ("Data", self.data.display().to_string()),
            ("Logs", self.logs.display().to_string()),
            ("Kubeconfig", kubeconfig),
        ] {
            // The empty line before the first is not a letter of it.
            let width = if name.starts_with('\n') { 13 } else { 12 };
            let _ = writeln!(out, "{name:<width$}{value}");
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let mut processes = json!({"server": self.pid.map(|pid| {
            with_deaths(json!({"pid": pid, "health": self.server.words()}), self.supervised.as_ref())
        })});
        if let Some(node) = &self.node {
            let process = json!({"pid": node.pid, "health": node.health.words(), "ready": node.condition});
            processes[format!("node/{}", node.name)] = with_deaths(process, node.supervised.as_ref());
        }
        let problems = self.problems().into_iter();
        let problems: Vec<Value> = problems
            .map(|problem| json!({"what": problem.what, "hint": problem.hint}))
            .collect();
        json!({
            "version": self.version, "api": self.api, "data": self.data, "logs": self.logs,
            "kubeconfig": self.kubeconfig.as_ref().map(|(path, is_there)| json!({"path": path, "merged": is_there})),
            "processes": processes, "problems": problems,
        })
    }

    /// All that does not work, the cause first.
    pub fn problems(&self) -> Vec<Problem> {
        let log = |daemon: &str| format!("see its log: {}", self.logs.join(format!("{daemon}.log")).display());
        let mut problems = Vec::new();
        let mut tell = |what: String, hint: String| problems.push(Problem { what, hint });
        match &self.server {
            Health::Ready => {}
            Health::Sick(why) => tell(
                format!("the control plane does not work: {why}"),
                format!(
                    "{}; if that stays so, start it anew: {}; {}",
                    log("server"),
                    self.down,
                    self.up
                ),
            ),
            Health::Restarting => {
                let death = self.supervised.as_ref().and_then(|state| state.last_death.as_ref());
                let why = death.map_or("it is not ready yet", |death| &death.why);
                tell(
                    format!("the control plane is being started again: {why}"),
                    log("server"),
                );
            }
            Health::Absent(why) => tell(
                format!("the control plane is not running{}", because(why)),
                format!("start it: {}", self.up),
            ),
        }
        if let Some(node) = &self.node {
            let name = &node.name;
            match &node.health {
                NodeHealth::Running => {}
                NodeHealth::Restarting => tell(
                    format!("the daemon of the node {name} is being started again; its pods run"),
                    log("node"),
                ),
                NodeHealth::NoDaemon => tell(
                    format!("the daemon of the node {name} is not running; its pods are"),
                    format!("start it: {}", self.up),
                ),
                NodeHealth::Absent(why) => tell(
                    format!("the node {name} is not running{}", because(why)),
                    format!("start it: {}", self.up),
                ),
            }
            if let Some(condition) = node.not_ready() {
                tell(
                    format!("the node {name} is not ready: {condition}"),
                    format!("look: kubectl describe node {name}; {}", log("node")),
                );
            }
        }
        problems
    }
}

// === impl Health ===

impl Health {
    fn words(&self) -> String {
        match self {
            Health::Ready => "ready".into(),
            Health::Sick(why) => why.clone(),
            Health::Restarting => "being started again".into(),
            Health::Absent(why) => format!("not running{}", because(why)),
        }
    }
}

// === impl Node ===

impl Node {
    fn words(&self) -> String {
        match (&self.health, &self.condition) {
            (NodeHealth::Running, Some(condition)) if condition["status"] == "True" => "Ready".into(),
            (NodeHealth::Running, Some(_)) => format!("not ready: {}", self.not_ready().unwrap_or_default()),
            (health, _) => health.words(),
        }
    }

    /// Why the API has it as not ready.
    fn not_ready(&self) -> Option<String> {
        let condition = self
            .condition
            .as_ref()
            .filter(|condition| condition["status"] != "True")?;
        let text = |name: &str| condition[name].as_str().unwrap_or_default();
        Some(format!("{}: {}", text("reason"), text("message")))
    }
}

impl NodeHealth {
    fn words(&self) -> String {
        match self {
            NodeHealth::Running => "running".into(),
            NodeHealth::Restarting => "its daemon is being started again, its pods run".into(),
            NodeHealth::NoDaemon => "its daemon is not running, its pods are: trireme up".into(),
            NodeHealth::Absent(why) => format!("not running{}", because(why)),
        }
    }
}

fn because(why: &Option<String>) -> String {
    why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
}

fn with_deaths(mut process: Value, supervised: Option<&State>) -> Value {
    if let Some(state) = supervised {
        process["daemon"] = json!(state.daemon.map(|daemon| daemon.pid));
        process["supervisor"] = json!(state.supervisor.pid);
        process["restarts"] = json!(state.restarts);
        process["lastDeath"] = json!(state.last_death);
    }
    process
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;
    use crate::supervisor::Death;

    fn state(restarts: u32, why: Option<&str>) -> Option<State> {
        let process = |pid| Process { pid, start_ticks: 1 };
        Some(State {
            supervisor: process(40),
            daemon: Some(process(42)),
            restarts,
            last_death: why.map(|why| Death {
                at: "2026-01-01T00:00:00Z".into(),
                why: why.into(),
            }),
        })
    }

    fn node(health: NodeHealth, condition: Option<(&str, &str, &str)>) -> Option<Node> {
        Some(Node {
            name: "box".into(),
            pid: Some(50),
            health,
            condition: condition.map(|(status, reason, message)| {
                json!({"type": "Ready", "status": status, "reason": reason, "message": message})
            }),
            supervised: state(0, None),
        })
    }

    fn report(server: Health, node: Option<Node>) -> Report {
        Report {
            version: "trireme 1 (Kubernetes v1)".into(),
            api: "https://127.0.0.1:6443".into(),
            data: "/d".into(),
            logs: "/d/log".into(),
            kubeconfig: Some(("/root/.kube/config".into(), true)),
            pid: Some(42),
            server,
            supervised: state(0, None),
            node,
            up: "trireme up".into(),
            down: "trireme down".into(),
        }
    }

    const READY: Option<(&str, &str, &str)> = Some(("True", "KubeletReady", "kubelet is posting ready status"));

    #[test]
    fn a_cluster_that_is_well() {
        let report = report(Health::Ready, node(NodeHealth::Running, READY));
        let expect = "\
PROCESS          PID      STATE
control plane    42       ready
node box         50       Ready

Version     trireme 1 (Kubernetes v1)
API         https://127.0.0.1:6443
Data        /d
Logs        /d/log
Kubeconfig  /root/.kube/config, context trireme
";
        assert_eq!(report.text(), expect);
        assert_eq!(report.problems(), []);
        let json = report.json();
        assert_eq!(json["processes"]["node/box"]["ready"]["status"], "True");
        assert_eq!(json["processes"]["server"]["supervisor"], 40);
        assert_eq!(json["problems"], json!([]));
    }

    #[test]
    fn deaths_and_a_kubeconfig_without_access_are_told() {
        let mut report = report(Health::Restarting, None);
        (report.pid, report.supervised) = (None, state(3, Some("killed by signal 9")));
        report.kubeconfig = Some(("/k".into(), false));
        let text = report.text();
        for line in [
            "control plane    -        being started again\n",
            "                          started again 3 times, last at 2026-01-01T00:00:00Z: killed by signal 9\n",
            "Kubeconfig  /k has no access to this cluster: trireme kubeconfig --merge\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
    }

    #[test]
    fn what_does_not_work_is_told_with_its_reason_and_what_to_do() {
        let absent = |why: &str| Health::Absent(Some(why.into()));
        let mut again = report(Health::Restarting, None);
        again.supervised = state(1, Some("exit code 1: error[STORE]: the store in /d is broken"));
        let cases = [
            (
                report(Health::Sick("it does not answer within 5 s".into()), None),
                "the control plane does not work: it does not answer within 5 s",
                "see its log: /d/log/server.log; if that stays so, start it anew: trireme down; trireme up",
            ),
            (
                report(Health::Sick("etcd failed: reason withheld".into()), None),
                "the control plane does not work: etcd failed: reason withheld",
                "see its log: /d/log/server.log; if that stays so, start it anew: trireme down; trireme up",
            ),
            (
                again,
                "the control plane is being started again: exit code 1: error[STORE]: the store in /d is broken",
                "see its log: /d/log/server.log",
            ),
            (
                report(absent("the last start failed, PORT_TAKEN: the port is taken"), None),
                "the control plane is not running: the last start failed, PORT_TAKEN: the port is taken",
                "start it: trireme up",
            ),
            (
                report(Health::Absent(None), None),
                "the control plane is not running",
                "start it: trireme up",
            ),
            (
                report(Health::Ready, node(NodeHealth::Absent(None), None)),
                "the node box is not running",
                "start it: trireme up",
            ),
            (
                report(Health::Ready, node(NodeHealth::NoDaemon, READY)),
                "the daemon of the node box is not running; its pods are",
                "start it: trireme up",
            ),
            (
                report(Health::Ready, node(NodeHealth::Restarting, READY)),
                "the daemon of the node box is being started again; its pods run",
                "see its log: /d/log/node.log",
            ),
            (
                report(
                    Health::Ready,
                    node(
                        NodeHealth::Running,
                        Some(("False", "KubeletNotReady", "the disk is full")),
                    ),
                ),
                "the node box is not ready: KubeletNotReady: the disk is full",
                "look: kubectl describe node box; see its log: /d/log/node.log",
            ),
        ];
        for (report, what, hint) in cases {
            let problem = report.problems().into_iter().next();
            assert_eq!(
                problem,
                Some(Problem {
                    what: what.into(),
                    hint: hint.into()
                })
            );
        }
    }
}
