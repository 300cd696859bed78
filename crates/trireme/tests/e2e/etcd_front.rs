//! Debian's `etcdctl` against our store and against a real etcd, command by command: what it prints has to be the same.

use std::process::Command;

use serde_json::Value;

use crate::cluster::{Cluster, succeed};
use crate::etcd_server::{Server, client_flags, free_address};

/// What is asked of both, in this order: revisions have to be the same, too. After a `<` stands the standard input.
const COMMANDS: &str = r#"
get a -w json
put a 1 -w json
put a 2 --prev-kv -w json
put b 3
put c/1 x
put c/2 y -w json
put c/3 xx
get a
get a -w json
get a c -w json
get c --prefix -w json
get b --from-key -w json
get b a -w json
get a --rev=2 -w json
get a --rev=3 -w fields
get a --rev=99
get c --prefix --limit=2 -w json
get c --prefix --limit=3 -w json
get  --prefix --keys-only -w json
get c --prefix --print-value-only
get c --prefix --sort-by=modify --order=descend -w json
get c --prefix --sort-by=value -w json
get c --prefix --sort-by=version --order=ascend -w json
get c --prefix --sort-by=create --order=descend --limit=1 -w json
get c --prefix --sort-by=key --order=descend -w json
get c --prefix --consistency=s -w json
get a nothing --rev=4 -w json
get
put a --ignore-value -w json
get a -w json
put none --ignore-value
put none x --ignore-lease
put a 5 --ignore-lease -w json
put a 1 --lease=1
del none -w json
del a --prev-kv -w json
get a -w json
put a again -w json
txn -w json < mod("a") > "0"\n\nput a yes\nget a\n\nput a no\n\n
txn -w json < version("a") = "9"\n\nput a yes\n\nget a\nget none\n\n
txn -w json < create("none") = "0"\n\nput none 1\n\n\n
txn -w json < value("a") = "yes"\nvalue("b") < "4"\n\ndel b\nput d 1\n\n\n
txn -w json < value("gone") != "x"\n\nput e yes\n\nput e no\n\n
txn -w json < lease("a") = "0"\n\nget c --prefix\ndel c --prefix --prev-kv\nget c --prefix\n\n\n
txn < mod("a") > "0"\n\nput a 1\nput a 2\n\n\n
txn < mod("a") > "0"\n\nput f/1 1\ndel f --prefix\n\n\n
txn -w json < mod("a") > "0"\n\ndel nothing\n\n\n
txn -w json < mod("a") > "0"\n\n\n\n
get  --prefix -w json
put k/1 v
put k/2 v
put k/3 v
del k/1 k/3 -w json
del k --prefix --prev-kv
put big 0123456789
compact 5
compact 5
compact 4
compact 9999
get a --rev=4
get a --rev=5 -w json
get a --rev=6 -w json
lease timetolive 1
lease revoke 1
lease keep-alive 1 --once
lease list
alarm list
lock l echo locked
"#;

#[test]
fn etcdctl_sees_no_difference() {
    let (ours, real) = (Server::ours(), Server::real(tempfile::tempdir().unwrap()));
    let mut different = Vec::new();
    for line in COMMANDS.lines().filter(|line| !line.is_empty()) {
        let (command, input) = line.split_once(" < ").unwrap_or((line, ""));
        let arguments: Vec<&str> = command.split(' ').collect();
        let input = input.replace("\\n", "\n");
        let (our, their) = (ours.told(&arguments, &input), real.told(&arguments, &input));
        if our != their {
            different.push(format!("{line}\n  ours: {our}\n  etcd: {their}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    for server in [&ours, &real] {
        succeed(&server.run(&["put", "end", "of it"], ""));
    }
    for arguments in [
        &["watch", "", "--prefix", "--rev=6"][..],
        &["watch", "", "--prefix", "--rev=6", "--prev-kv"],
        &["watch", "c", "zzz", "--rev=12"],
    ] {
        // Locks have names and leases of their own kind; their lines are left out.
        let seen = |server: &Server| {
            let lines = server.watched(arguments, "of it");
            lines
                .into_iter()
                .filter(|line| !line.starts_with("l/"))
                .collect::<Vec<_>>()
        };
        assert_eq!(seen(&ours), seen(&real), "{arguments:?}");
    }
    for server in [&ours, &real] {
        let refused = server.run(&["watch", "a", "--rev=2"], "");
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            error.contains("watch was canceled (etcdserver: mvcc: required revision has been compacted)"),
            "{error}"
        );
    }
}

/// What is asked of both about themselves: answers differ in sizes, terms and names, not in what is told and how.
const CARE: &str = r#"
endpoint hashkv -w json
put a 1
put b 2
endpoint status
endpoint status -w json
endpoint status -w fields
endpoint health
endpoint health -w json
endpoint hashkv
endpoint hashkv -w json
endpoint hashkv --rev=2 -w json
endpoint hashkv --rev=99
compact 3
endpoint hashkv --rev=2
endpoint hashkv -w json
member list
member list -w json
member list -w fields
defrag
move-leader 1
move-leader MEMBER
move-leader none
auth disable
user list
user list -w json
role list
role list -w json
user grant-role u r
alarm disarm
get a -w json
"#;

/// Those of the lines above that ours refuses by a word of its own: it has no users.
const OWN_WORDS: [&str; 1] = ["user grant-role u r"];

#[test]
fn etcdctl_cares_for_both_alike() {
    let (ours, real) = (Server::ours(), Server::real(tempfile::tempdir().unwrap()));
    let told = |server: &Server, line: &str| {
        let line = line.replace("MEMBER", &server.member());
        let arguments: Vec<&str> = line.split(' ').collect();
        server.likened(&server.told(&arguments, ""))
    };
    let mut different = Vec::new();
    for line in CARE.lines().filter(|line| !line.is_empty()) {
        let (our, their) = (told(&ours, line), told(&real, line));
        if OWN_WORDS.contains(&line) {
            assert!(our.contains("this is trireme's store, which has no users"), "{our}");
        } else if our != their {
            different.push(format!("{line}\n  ours: {our}\n  etcd: {their}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    for server in [&ours, &real] {
        // The candidate is killed; its lease holds the office for a minute.
        let elected = server.watched(&["elect", "e", "me"], "me");
        let seen = server.watched(&["elect", "-l", "e"], "me");
        assert!(
            elected == seen && elected[0].starts_with("e/") && elected.len() == 2,
            "{elected:?} {seen:?}"
        );
    }
    for refused in [&["member", "remove", "1"][..], &["member", "promote", "1"]] {
        let told = ours.told(refused, "");
        assert!(
            told.contains("this is trireme's store, which has no etcdserverpb.Cluster/Member"),
            "{told}"
        );
    }
}

#[test]
fn keys_go_with_their_lease() {
    for server in [Server::ours(), Server::real(tempfile::tempdir().unwrap())] {
        let grant = |seconds: &str| {
            let told = succeed(&server.run(&["lease", "grant", seconds], ""));
            assert!(told.contains(&format!("granted with TTL({seconds}s)")), "{told}");
            told.split(' ').nth(1).unwrap().to_owned()
        };
        let put = |key, lease: &str| succeed(&server.run(&["put", key, "v", &format!("--lease={lease}")], ""));
        let long = grant("600");
        put("l/1", &long);
        put("l/2", &long);
        let short = grant("3");
        put("s", &short);
        put("moved", &short);
        succeed(&server.run(&["put", "moved", "v"], ""));
        let told = succeed(&server.run(&["lease", "timetolive", &long, "--keys"], ""));
        // A real etcd tells the keys of a lease in any order.
        let attached = ["attached keys([l/1 l/2])", "attached keys([l/2 l/1])"];
        assert!(
            told.contains("granted with TTL(600s)") && attached.iter().any(|keys| told.contains(keys)),
            "{told}"
        );
        let value: Value = serde_json::from_slice(&server.run(&["get", "l/1", "-w", "json"], "").stdout).unwrap();
        assert_eq!(format!("{:016x}", value["kvs"][0]["lease"].as_u64().unwrap()), long);
        let told = succeed(&server.run(&["lease", "keep-alive", &long, "--once"], ""));
        assert!(told.contains("keepalived with TTL(600)"), "{told}");
        // The end of the short one is an event.
        let lines = server.watched(&["watch", "s", "--rev=2"], "DELETE");
        assert_eq!(lines.last().unwrap(), "DELETE");
        succeed(&server.run(&["lease", "revoke", &long], ""));
        let left = succeed(&server.run(&["get", "", "--prefix", "--keys-only"], ""));
        assert_eq!(left.trim(), "moved");
        let again = server.told(&["lease", "revoke", &long], "");
        assert!(again.ends_with("(etcdserver: requested lease not found)"), "{again}");
    }
}

#[test]
fn a_snapshot_becomes_an_etcd_and_leases_outlive_a_restart() {
    let ours = Server::ours();
    // More than a page of keys and of page numbers, one that needs pages of its own.
    let large = "x".repeat(9000);
    succeed(&ours.run(&["put", "large", &large], ""));
    for part in 0..4 {
        let puts: String = (0..100)
            .map(|index| format!("put k/{part}/{index:03} value-{index}\n"))
            .collect();
        succeed(&ours.run(&["txn"], &format!("\n{puts}\n\n")));
    }
    let told = succeed(&ours.run(&["lease", "grant", "600"], ""));
    let lease = told.split(' ').nth(1).unwrap().to_owned();
    succeed(&ours.run(&["put", "leased", "v", &format!("--lease={lease}")], ""));
    let all = succeed(&ours.run(&["get", "", "--prefix"], ""));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("snapshot.db").display().to_string();
    succeed(&ours.run(&["snapshot", "save", &file], ""));
    let status = ours.run(&["snapshot", "status", &file, "-w", "json"], "");
    let status: Value = serde_json::from_str(&succeed(&status)).unwrap();
    // The keys, one lease, and three of the database's own.
    assert_eq!(status["totalKey"], 402 + 1 + 3, "{status}");
    let real = Server::real_restored(&file);
    assert_eq!(succeed(&real.run(&["get", "", "--prefix"], "")), all);
    let told = succeed(&real.run(&["lease", "timetolive", &lease, "--keys"], ""));
    assert!(told.contains("attached keys([leased])"), "{told}");

    // Ours again, from its files.
    let ours = Server::ours_in(ours.kill());
    assert_eq!(succeed(&ours.run(&["get", "", "--prefix"], "")), all);
    let told = succeed(&ours.run(&["lease", "timetolive", &lease, "--keys"], ""));
    assert!(
        told.contains("granted with TTL(600s)") && told.contains("attached keys([leased])"),
        "{told}"
    );
}

#[test]
fn a_clusters_store_is_read_by_its_own_certificates_only() {
    let cluster = Cluster::prepare();
    let listen = free_address();
    let up = ["up", "--no-node", "--api-port", "0", "--etcd-listen", &listen];
    succeed(&cluster.trireme(&up));
    // It is kept for the next start.
    succeed(&cluster.trireme(&["down"]));
    cluster.up();
    let endpoint = &format!("https://{listen}");
    let keys = cluster.dir.join("data/pki/etcd");
    let run = |flags: &[String], arguments: &[&str]| {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(flags)
            .args(arguments)
            .output()
            .unwrap()
    };
    let flags = client_flags(endpoint, &keys);
    let keys_told = succeed(&run(&flags, &["get", "/registry", "--prefix", "--keys-only"]));
    assert!(keys_told.contains("/registry/namespaces/default\n"), "{keys_told}");
    let namespace = succeed(&run(
        &flags,
        &["get", "/registry/namespaces/default", "--print-value-only"],
    ));
    assert!(namespace.contains(r#""kind":"Namespace""#), "{namespace}");
    for refused in [
        &["put", "/registry/x", "1"][..],
        &["del", "/registry/namespaces/default"],
        &["del", "", "--prefix"],
        &["put", "/trireme/x", "1"],
    ] {
        let output = run(&flags, refused);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && error.contains("etcdserver: permission denied"),
            "{refused:?}: {error}"
        );
    }
    succeed(&run(&flags, &["put", "/elsewhere", "1"]));
    // The administrator's certificate of the cluster, and none at all.
    let foreign = ["ca.crt", "admin.crt", "admin.key"].map(|name| cluster.dir.join("data/pki").join(name));
    let mut as_admin = flags.clone();
    as_admin[2] = format!("--cert={}", foreign[1].display());
    as_admin[3] = format!("--key={}", foreign[2].display());
    for flags in [&as_admin[..], &flags[..2]] {
        let output = run(flags, &["get", "/registry", "--prefix", "--command-timeout=2s"]);
        assert!(!output.status.success() && output.stdout.is_empty());
    }
}
