//! The Pod Security Standards: what each level forbids, since which version, and in which words.
//!
//! Source: `k8s.io/pod-security-admission/policy`, one file a check. The names of the checks give their order: those of
//! the baseline first, then the restricted ones.

use std::collections::BTreeSet;

use api::Value;

use super::policy::{Level, Minor, Rule};

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is forbidden.
    pub reason: String,
    /// Where.
    pub detail: String,
}

/// A pod, or a template of one.
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    /// The version of the rules.
    version: Minor,
}

struct Check {
    #[allow(dead_code, reason = "names the check and gives its place")]
    id: &'static str,
    level: Level,
    since: Minor,
    /// From which version on a stricter check of the restricted level stands in for it there.
    replaced_since: Option<Minor>,
    rule: fn(&Pod) -> Option<Violation>,
}

const fn baseline(id: &'static str, since: Minor, rule: fn(&Pod) -> Option<Violation>) -> Check {
    Check {
        id,
        level: Level::Baseline,
        since,
        replaced_since: None,
        rule,
    }
}

const fn replaced(check: Check, since: Minor) -> Check {
    Check {
        replaced_since: Some(since),
        ..check
    }
}

const fn restricted(id: &'static str, since: Minor, rule: fn(&Pod) -> Option<Violation>) -> Check {
    Check {
        level: Level::Restricted,
        ..baseline(id, since, rule)
    }
}

/// Since when pods of Windows need not say what Windows has not.
const WINDOWS_EXEMPT_SINCE: Minor = 25;
/// Since when root inside of a user namespace is not root.
const USER_NAMESPACES_SINCE: Minor = 35;

const CHECKS: [Check; 19] = [
    baseline("appArmorProfile", 0, app_armor),
    replaced(baseline("capabilities_baseline", 0, capabilities_added), 22),
    baseline("hostNamespaces", 0, host_namespaces),
    replaced(baseline("hostPathVolumes", 0, host_paths), 0),
    baseline("hostPorts", 0, host_ports),
    baseline("hostProbesAndHostLifecycle", 34, probe_hosts),
    baseline("privileged", 0, privileged),
    replaced(baseline("procMount", 0, proc_mount), 35),
    baseline("seLinuxOptions", 0, selinux),
    replaced(baseline("seccompProfile_baseline", 0, seccomp_baseline), 19),
    baseline("sysctls", 0, sysctls),
    baseline("windowsHostProcess", 0, host_process),
    restricted("allowPrivilegeEscalation", 8, privilege_escalation),
    restricted("capabilities_restricted", 22, capabilities_kept),
    restricted("procMount_restricted", 35, any_proc_mount),
    restricted("restrictedVolumes", 0, volumes),
    restricted("runAsNonRoot", 0, run_as_non_root),
    restricted("runAsUser", 23, run_as_user),
    restricted("seccompProfile_restricted", 19, seccomp_restricted),
];

/// What of a pod a rule forbids.
pub fn violations(rule: Rule, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let pod = Pod {
        metadata,
        spec,
        version: rule.version,
    };
    let replaced = |check: &Check| {
        let since = check.replaced_since.filter(|_| rule.level == Level::Restricted);
        since.is_some_and(|since| rule.version >= since)
    };
    CHECKS
        .iter()
        .filter(|check| check.level <= rule.level && check.since <= rule.version && !replaced(check))
        .filter_map(|check| (check.rule)(&pod))
        .collect()
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |field| spec[field].as_array().into_iter().flatten())
    }

    /// The names of the containers that something holds for.
    fn named(&self, mut is_bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        let bad = self.containers().filter(|container| is_bad(container));
        bad.map(|container| container["name"].as_str().unwrap_or("")).collect()
    }

    fn volumes(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.spec["volumes"].as_array().into_iter().flatten()
    }

    /// Whether the pod is of Windows, and the rules know of that.
    fn is_exempt_windows(&self) -> bool {
        self.version >= WINDOWS_EXEMPT_SINCE && self.spec["os"]["name"] == "windows"
    }

    /// Whether the pod has users of its own, and the rules know of that.
    fn has_own_users(&self) -> bool {
        self.version >= USER_NAMESPACES_SINCE && self.spec["hostUsers"] == false
    }
}

fn violation(reason: impl Into<String>, detail: impl Into<String>) -> Option<Violation> {
    Some(Violation {
        reason: reason.into(),
        detail: detail.into(),
    })
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

fn plural<'a>(one: &'a str, more: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { more }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// `pod and containers "a", "b"`: who sets something; none when nobody does.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let mut who: Vec<String> = Vec::new();
    who.extend(pod.then(|| "pod".to_owned()));
    who.extend((!names.is_empty()).then(|| containers(names)));
    (!who.is_empty()).then(|| who.join(" and "))
}

/// The security context of the pod or a container.
fn context(of: &Value) -> &Value {
    &of["securityContext"]
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Collects the types of profiles that are not taken.
fn bad_type<'a>(profile: &'a Value, taken: &[&str], found: &mut BTreeSet<&'a str>) -> bool {
    if !profile.is_object() {
        return false;
    }
    let kind = profile["type"].as_str().unwrap_or("");
    let bad = !taken.contains(&kind);
    if bad {
        found.insert(kind);
    }
    bad
}

const PROFILES: [&str; 2] = ["RuntimeDefault", "Localhost"];

fn app_armor(pod: &Pod) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut types = BTreeSet::new();
    let whole = bad_type(&context(pod.spec)["appArmorProfile"], &PROFILES, &mut types);
    let names = pod.named(|container| bad_type(&context(container)["appArmorProfile"], &PROFILES, &mut types));
    let all = pod.metadata["annotations"].as_object().into_iter().flatten();
    let mut annotations: Vec<String> = all
        .filter_map(|(name, value)| Some((name, value.as_str()?)))
        .filter(|(name, value)| {
            let taken = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            name.starts_with(ANNOTATION) && !taken
        })
        .map(|(name, value)| format!("{name}={}", api::field::quote(value)))
        .collect();
    annotations.sort();
    let mut who: Vec<String> = setters(whole, &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).into());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = types.into_iter().map(str::to_owned).chain(annotations).collect();
    let reason = plural(
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
        values.len(),
    );
    let who = who.join(" and ");
    violation(
        reason,
        format!("{who} must not set AppArmor profile type to {}", quoted(values)),
    )
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Who adds more than these, in words.
fn adding(pod: &Pod, taken: &[&str]) -> Option<String> {
    let mut added = BTreeSet::new();
    let names = pod.named(|container| {
        let before = added.len();
        let more: Vec<&str> = texts(&context(container)["capabilities"]["add"])
            .filter(|capability| !taken.contains(capability))
            .collect();
        added.extend(more.iter().copied());
        added.len() > before || !more.is_empty()
    });
    let what = quoted(added);
    (!names.is_empty()).then(|| {
        let who = containers(&names);
        format!("{who} must not include {what} in securityContext.capabilities.add")
    })
}

fn capabilities_added(pod: &Pod) -> Option<Violation> {
    violation("non-default capabilities", adding(pod, &DEFAULT_CAPABILITIES)?)
}

fn capabilities_kept(pod: &Pod) -> Option<Violation> {
    if pod.is_exempt_windows() {
        return None;
    }
    let keeping = pod.named(|container| !texts(&context(container)["capabilities"]["drop"]).any(|name| name == "ALL"));
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let who = containers(&keeping);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    details.extend(adding(pod, &["NET_BIND_SERVICE"]));
    if details.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", details.join("; "))
}

fn host_namespaces(pod: &Pod) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() {
        return None;
    }
    violation("host namespaces", shared.join(", "))
}

fn host_paths(pod: &Pod) -> Option<Violation> {
    let bad = pod.volumes().filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = bad.map(|volume| volume["name"].as_str().unwrap_or("")).collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", "volumes", names.len());
    violation("hostPath volumes", format!("{word} {}", quoted(names)))
}

fn host_ports(pod: &Pod) -> Option<Violation> {
    // As texts: upstream sorts them so.
    let mut ports: BTreeSet<String> = BTreeSet::new();
    let names = pod.named(|container| {
        let all = container["ports"].as_array().into_iter().flatten();
        let own: Vec<i64> = all
            .filter_map(|port| port["hostPort"].as_i64())
            .filter(|port| *port != 0)
            .collect();
        ports.extend(own.iter().map(i64::to_string));
        !own.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let (who, uses) = (containers(&names), plural("uses", "use", names.len()));
    let word = plural("hostPort", "hostPorts", ports.len());
    let ports: Vec<String> = ports.into_iter().collect();
    violation("hostPort", format!("{who} {uses} {word} {}", ports.join(", ")))
}

fn probe_hosts(pod: &Pod) -> Option<Violation> {
    let mut hosts = BTreeSet::new();
    let mut names = pod.named(|container| {
        let handlers = [
            &container["livenessProbe"],
            &container["readinessProbe"],
            &container["startupProbe"],
            &container["lifecycle"]["postStart"],
            &container["lifecycle"]["preStop"],
        ];
        let kinds = |handler: &'_ Value| {
            [
                handler["httpGet"]["host"].as_str().map(str::to_owned),
                handler["tcpSocket"]["host"].as_str().map(str::to_owned),
            ]
        };
        let own: Vec<String> = handlers
            .into_iter()
            .flat_map(kinds)
            .flatten()
            .filter(|host| !host.is_empty())
            .collect();
        let bad = !own.is_empty();
        hosts.extend(own);
        bad
    });
    names.sort_unstable();
    if names.is_empty() {
        return None;
    }
    let (who, uses) = (containers(&names), plural("uses", "use", names.len()));
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    violation(
        "probe or lifecycle host",
        format!("{who} {uses} {word} {}", quoted(hosts)),
    )
}

fn privileged(pod: &Pod) -> Option<Violation> {
    let who = setters(false, &pod.named(|container| context(container)["privileged"] == true))?;
    violation(
        "privileged",
        format!("{who} must not set securityContext.privileged=true"),
    )
}

fn proc_mount(pod: &Pod) -> Option<Violation> {
    if pod.has_own_users() { None } else { any_proc_mount(pod) }
}

fn any_proc_mount(pod: &Pod) -> Option<Violation> {
    let mut kinds = BTreeSet::new();
    let names = pod.named(|container| {
        let kind = context(container)["procMount"]
            .as_str()
            .filter(|kind| *kind != "Default");
        kinds.extend(kind);
        kind.is_some()
    });
    let who = setters(false, &names)?;
    violation(
        "procMount",
        format!("{who} must not set securityContext.procMount to {}", quoted(kinds)),
    )
}

fn selinux(pod: &Pod) -> Option<Violation> {
    const ENGINE_SINCE: Minor = 31;
    let mut taken = vec!["", "container_t", "container_init_t", "container_kvm_t"];
    taken.extend((pod.version >= ENGINE_SINCE).then_some("container_engine_t"));
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |of: &Value| {
        let text = |field: &str| context(of)["seLinuxOptions"][field].as_str().unwrap_or("").to_owned();
        let (kind, has_user, has_role) = (text("type"), !text("user").is_empty(), !text("role").is_empty());
        let bad_type = !taken.contains(&&*kind);
        if bad_type {
            types.insert(kind);
        }
        (user, role) = (user | has_user, role | has_role);
        bad_type || has_user || has_role
    };
    let whole = is_bad(pod.spec);
    let who = setters(whole, &pod.named(&mut is_bad))?;
    let mut what: Vec<String> = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    what.extend(user.then(|| "user may not be set".to_owned()));
    what.extend(role.then(|| "role may not be set".to_owned()));
    let what = what.join("; ");
    violation(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {what}"),
    )
}

/// Since when seccomp profiles are fields; annotations before.
const SECCOMP_FIELDS_SINCE: Minor = 19;

fn seccomp_baseline(pod: &Pod) -> Option<Violation> {
    if pod.version < SECCOMP_FIELDS_SINCE {
        return seccomp_annotations(pod);
    }
    seccomp_types(pod)
}

fn seccomp_annotations(pod: &Pod) -> Option<Violation> {
    let mut keys = vec!["seccomp.security.alpha.kubernetes.io/pod".to_owned()];
    let of_container = |name: &str| format!("container.seccomp.security.alpha.kubernetes.io/{name}");
    keys.extend(pod.named(|_| true).into_iter().map(of_container));
    let bad = keys.iter().filter_map(|key| {
        let value = pod.metadata["annotations"][key].as_str()?;
        let taken = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
        (!taken).then(|| format!("{key}={}", api::field::quote(value)))
    });
    let bad: BTreeSet<String> = bad.collect();
    if bad.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", bad.len());
    let bad: Vec<String> = bad.into_iter().collect();
    violation("seccompProfile", format!("forbidden {word} {}", bad.join(", ")))
}

fn seccomp_types(pod: &Pod) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let whole = bad_type(&context(pod.spec)["seccompProfile"], &PROFILES, &mut types);
    let names = pod.named(|container| bad_type(&context(container)["seccompProfile"], &PROFILES, &mut types));
    let who = setters(whole, &names)?;
    let types = quoted(types);
    violation(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {types}"),
    )
}

fn seccomp_restricted(pod: &Pod) -> Option<Violation> {
    if pod.is_exempt_windows() {
        return None;
    }
    if let Some(explicit) = seccomp_types(pod) {
        return Some(explicit);
    }
    let whole = context(pod.spec)["seccompProfile"].is_object();
    let names = pod.named(|container| !whole && !context(container)["seccompProfile"].is_object());
    let who = setters(false, &names)?;
    let what = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    violation("seccompProfile", format!("pod or {who} {what}"))
}

/// Sysctls that touch nobody else, and since which version each is taken.
const SAFE_SYSCTLS: [(&str, Minor); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(pod: &Pod) -> Option<Violation> {
    let all = context(pod.spec)["sysctls"].as_array().into_iter().flatten();
    let names = all.map(|sysctl| sysctl["name"].as_str().unwrap_or(""));
    let safe = |name: &str| {
        SAFE_SYSCTLS
            .iter()
            .any(|(known, since)| *known == name && *since <= pod.version)
    };
    let bad: Vec<&str> = names.filter(|name| !safe(name)).collect();
    if bad.is_empty() {
        return None;
    }
    violation("forbidden sysctls", bad.join(", "))
}

fn host_process(pod: &Pod) -> Option<Violation> {
    let is_bad = |of: &Value| context(of)["windowsOptions"]["hostProcess"] == true;
    let who = setters(is_bad(pod.spec), &pod.named(is_bad))?;
    violation(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}

fn privilege_escalation(pod: &Pod) -> Option<Violation> {
    if pod.is_exempt_windows() {
        return None;
    }
    let names = pod.named(|container| context(container)["allowPrivilegeEscalation"] != false);
    let who = setters(false, &names)?;
    let what = "must set securityContext.allowPrivilegeEscalation=false";
    violation("allowPrivilegeEscalation != false", format!("{who} {what}"))
}

const RESTRICTED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn volumes(pod: &Pod) -> Option<Violation> {
    let (mut names, mut types): (Vec<&str>, BTreeSet<&str>) = (Vec::new(), BTreeSet::new());
    for volume in pod.volumes() {
        let sources = volume.as_object().into_iter().flatten();
        let mut kinds = sources
            .filter(|(_, source)| source.is_object())
            .map(|(kind, _)| kind.as_str());
        let kind = kinds.next().unwrap_or("unknown");
        if !RESTRICTED_VOLUMES.contains(&kind) {
            names.push(volume["name"].as_str().unwrap_or(""));
            types.insert(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let (word, uses) = (
        plural("volume", "volumes", names.len()),
        plural("uses", "use", names.len()),
    );
    let of = plural("restricted volume type", "restricted volume types", types.len());
    let detail = format!("{word} {} {uses} {of} {}", quoted(names), quoted(types));
    violation("restricted volume types", detail)
}

fn run_as_non_root(pod: &Pod) -> Option<Violation> {
    if pod.has_own_users() {
        return None;
    }
    const REASON: &str = "runAsNonRoot != true";
    let is_root = |of: &Value| context(of)["runAsNonRoot"] == false;
    if let Some(who) = setters(is_root(pod.spec), &pod.named(is_root)) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let whole = context(pod.spec)["runAsNonRoot"] == true;
    let names = pod.named(|container| !whole && context(container)["runAsNonRoot"] != true);
    let who = setters(false, &names)?;
    violation(
        REASON,
        format!("pod or {who} must set securityContext.runAsNonRoot=true"),
    )
}

fn run_as_user(pod: &Pod) -> Option<Violation> {
    if pod.has_own_users() {
        return None;
    }
    let is_root = |of: &Value| context(of)["runAsUser"] == 0;
    let who = setters(is_root(pod.spec), &pod.named(is_root))?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

#[cfg(test)]
mod tests;
