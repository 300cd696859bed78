//! What is given, to whom, and when it comes back.

use serde_json::json;

use super::*;
use crate::admission::testing::World;

fn table(range: &str) -> Arc<Allocator> {
    table_with_ports(range, NODE_PORTS_DEFAULT)
}

fn table_with_ports(range: &str, ports: Range<u16>) -> Arc<Allocator> {
    table_in(&World::default(), range, ports)
}

fn table_in(world: &World, range: &str, ports: Range<u16>) -> Arc<Allocator> {
    let random = base::Random::seeded(1);
    Arc::new(Allocator::new(
        range.parse().unwrap(),
        ports,
        random,
        Arc::new(world.clone()),
    ))
}

fn address(text: &str) -> Given {
    Given::Address(text.parse().unwrap())
}

fn is_taken(allocator: &Allocator, given: Given) -> bool {
    allocator.taken.lock().contains_key(&given)
}

fn service(cluster_ip: &str) -> Value {
    json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"type": "ClusterIP", "clusterIP": cluster_ip}})
}

fn try_begin(allocator: &Arc<Allocator>, cluster_ip: &str) -> Result<(Value, Reservation), String> {
    let mut object = service(cluster_ip);
    match allocator.begin_service(&mut object, None, false) {
        Ok(reservation) => Ok((object, reservation)),
        Err(status) => Err(status.message),
    }
}

#[test]
fn addresses_are_given_once_and_come_back() {
    let allocator = table("10.96.0.0/28");
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..14 {
        let (object, reservation) = try_begin(&allocator, "").unwrap();
        assert_eq!(object["spec"]["clusterIPs"][0], object["spec"]["clusterIP"]);
        assert_eq!(object["spec"]["ipFamilies"], json!(["IPv4"]));
        reservation.keep();
        assert!(given.insert(object["spec"]["clusterIP"].as_str().unwrap().to_owned()));
    }
    assert_eq!(
        try_begin(&allocator, "").unwrap_err(),
        "Internal error occurred: failed to allocate a serviceIP for Service \"a\": range is full"
    );
    allocator.free(&[address("10.96.0.5")]);
    let (object, reservation) = try_begin(&allocator, "").unwrap();
    assert_eq!(object["spec"]["clusterIP"], "10.96.0.5");
    drop(reservation);
    assert!(
        !is_taken(&allocator, address("10.96.0.5")),
        "a write that did not happen gives it back"
    );
}

#[test]
fn what_another_server_gave_meanwhile_stays_taken() {
    let allocator = table("10.96.0.0/12");
    let (_, reservation) = try_begin(&allocator, "10.96.0.10").unwrap();
    let theirs = json!({"metadata": {"name": "b", "namespace": "n"}, "spec": {"clusterIP": "10.96.0.10"}});
    allocator.changed(None, Some(&theirs));
    drop(reservation);
    assert!(
        try_begin(&allocator, "10.96.0.10")
            .unwrap_err()
            .contains("already allocated")
    );
}

#[test]
fn chosen_addresses_are_checked() {
    let allocator = table("10.96.0.0/12");
    try_begin(&allocator, "10.96.0.10").unwrap().1.keep();
    for (chosen, expect) in [
        (
            "10.96.0.10",
            "failed to allocate IP 10.96.0.10: provided IP is already allocated",
        ),
        (
            "10.0.0.1",
            "failed to allocate IP 10.0.0.1: the provided network does not match the current range",
        ),
        ("10.96.0.0", "does not match the current range"),
        ("::1", "must be a valid IP address"),
    ] {
        let error = try_begin(&allocator, chosen).unwrap_err();
        assert!(error.contains(expect), "{chosen}: {error}");
    }
    let (object, _reservation) = try_begin(&allocator, "None").unwrap();
    assert_eq!(object["spec"]["clusterIPs"], json!(["None"]));
}

#[test]
fn random_addresses_leave_the_static_band_alone() {
    let allocator = table("10.96.0.0/12");
    for _ in 0..200 {
        let (object, reservation) = try_begin(&allocator, "").unwrap();
        let address: Ipv4Addr = object["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(address >= Ipv4Addr::new(10, 96, 1, 1), "{address}");
        reservation.keep();
    }
}

#[test]
fn addresses_come_from_every_range_that_gives_some() {
    let (world, resource) = (World::default(), "servicecidrs.networking.k8s.io");
    let cidr = |name: &str, range: &str, ready: &str| {
        let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
        json!({"metadata": {"name": name}, "spec": {"cidrs": [range]}, "status": status})
    };
    world.put(resource, cidr("kubernetes", "10.96.0.0/30", "True"));
    world.put(resource, cidr("more", "10.97.0.0/30", "False"));
    // Somebody's gateway has this one.
    let gateway = json!({"metadata": {"name": "10.97.0.1"}});
    world.put("ipaddresses.networking.k8s.io", gateway);
    let allocator = table_in(&world, "10.96.0.0/30", NODE_PORTS_DEFAULT);
    for _ in 0..2 {
        try_begin(&allocator, "").unwrap().1.keep();
    }
    let full = "Internal error occurred: failed to allocate a serviceIP for Service \"a\": range is full";
    assert_eq!(try_begin(&allocator, "").unwrap_err(), full);
    let wrong = "the provided network does not match the current range";
    assert!(try_begin(&allocator, "10.97.0.1").unwrap_err().contains(wrong));
    world.put(resource, cidr("more", "10.97.0.0/30", "True"));
    let taken = "provided IP is already allocated";
    assert!(try_begin(&allocator, "10.97.0.1").unwrap_err().contains(taken));
    let (object, reservation) = try_begin(&allocator, "").unwrap();
    assert_eq!(object["spec"]["clusterIP"], "10.97.0.2");
    reservation.keep();
    assert_eq!(try_begin(&allocator, "").unwrap_err(), full);
}

#[test]
fn updates_keep_or_give_back() {
    let allocator = table("10.96.0.0/12");
    let (old, reservation) = try_begin(&allocator, "10.96.0.10").unwrap();
    reservation.keep();
    let mut replaced = service("");
    allocator
        .begin_service(&mut replaced, Some(&old), false)
        .unwrap()
        .keep();
    assert_eq!(replaced["spec"]["clusterIP"], "10.96.0.10");
    let mut same = old.clone();
    allocator.begin_service(&mut same, Some(&old), false).unwrap().keep();
    assert_eq!(same, old);
    assert!(is_taken(&allocator, address("10.96.0.10")));
}

/// A Service of a type with ports (`port`, `protocol`, `nodePort`).
fn published(kind: &str, ports: &[(u16, &str, u16)]) -> Value {
    let ports = ports.iter().map(|(port, protocol, node_port)| {
        let mut port = json!({"port": port, "protocol": protocol});
        if *node_port != 0 {
            port["nodePort"] = (*node_port).into();
        }
        port
    });
    json!({
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {"type": kind, "ports": ports.collect::<Vec<_>>(), "externalTrafficPolicy": "Cluster"},
    })
}

fn node_ports(service: &Value) -> Vec<u64> {
    let ports = service["spec"]["ports"].as_array().unwrap();
    ports
        .iter()
        .map(|port| port["nodePort"].as_u64().unwrap_or(0))
        .collect()
}

fn written(allocator: &Arc<Allocator>, service: &Value, old: Option<&Value>) -> Result<Value, String> {
    let mut service = service.clone();
    match allocator.begin_service(&mut service, old, false) {
        Ok(reservation) => reservation.keep(),
        Err(status) => return Err(status.message),
    }
    Ok(service)
}

#[test]
fn node_ports_are_given_once_and_come_back() {
    // Ten ports: too few for a band of fixed ones.
    let allocator = table_with_ports("10.96.0.0/12", 30_000..30_010);
    let one = published("NodePort", &[(80, "TCP", 0)]);
    let all: Vec<Value> = (0..10).map(|_| written(&allocator, &one, None).unwrap()).collect();
    let mut numbers: Vec<u64> = all.iter().flat_map(node_ports).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (30_000..30_010).collect::<Vec<_>>());
    let before = allocator.taken.lock().len();
    let said = written(&allocator, &one, None).unwrap_err();
    assert_eq!(
        said,
        "Internal error occurred: failed to allocate a nodePort: range is full"
    );
    assert_eq!(allocator.taken.lock().len(), before, "its address is free again");

    // Another type gives it back; the same type keeps it.
    let (old, number) = (&all[0], node_ports(&all[0])[0]);
    assert_eq!(written(&allocator, old, Some(old)).unwrap(), *old);
    let mut plain = published("ClusterIP", &[(80, "TCP", 0)]);
    plain["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
    written(&allocator, &plain, Some(old)).unwrap();
    assert_eq!(node_ports(&written(&allocator, &one, None).unwrap()), [number]);
    allocator.changed(Some(&all[1]), None);
    assert_eq!(
        node_ports(&written(&allocator, &one, None).unwrap()),
        node_ports(&all[1])
    );
}

#[test]
fn node_ports_that_are_asked_for_are_checked() {
    let allocator = table("10.96.0.0/12");
    let asked = |number| {
        written(
            &allocator,
            &published("NodePort", &[(80, "TCP", 0), (81, "TCP", number)]),
            None,
        )
    };
    let given = node_ports(&asked(30_080).unwrap());
    assert_eq!(given[1], 30_080);
    assert!(
        (30_086..32_768).contains(&given[0]),
        "drawn from above the band of fixed ones: {}",
        given[0]
    );
    for (number, expect) in [
        (
            30_080,
            "Service \"a\" is invalid: spec.ports[1].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
        (
            80,
            "Service \"a\" is invalid: spec.ports[1].nodePort: Invalid value: 80: provided port is not in the valid range. \
             The range of valid ports is 30000-32767",
        ),
    ] {
        assert_eq!(asked(number).unwrap_err(), expect);
    }
}

#[test]
fn protocols_of_a_new_service_share_a_number() {
    let allocator = table("10.96.0.0/12");
    let both = published("LoadBalancer", &[(53, "UDP", 0), (53, "TCP", 0), (80, "TCP", 0)]);
    let both = written(&allocator, &both, None).unwrap();
    let given = node_ports(&both);
    assert_eq!(given[0], given[1]);
    assert_ne!(given[0], given[2]);
    let asked = published("NodePort", &[(53, "UDP", 0), (53, "TCP", 30_053)]);
    assert_eq!(
        node_ports(&written(&allocator, &asked, None).unwrap()),
        [30_053, 30_053]
    );
    // A port that comes later gets a number of its own.
    let mut more = both.clone();
    let ports = more["spec"]["ports"].as_array_mut().unwrap();
    ports.push(json!({"port": 53, "protocol": "SCTP"}));
    let more = node_ports(&written(&allocator, &more, Some(&both)).unwrap());
    assert_eq!(more[..3], given[..]);
    assert!(more[3] != 0 && !given.contains(&more[3]));
}

#[test]
fn load_balancers_may_want_none_and_may_be_asked_for_their_health() {
    let allocator = table("10.96.0.0/12");
    let mut without = published("LoadBalancer", &[(80, "TCP", 0), (81, "TCP", 30_081)]);
    without["spec"]["allocateLoadBalancerNodePorts"] = false.into();
    assert_eq!(node_ports(&written(&allocator, &without, None).unwrap()), [0, 30_081]);

    let mut local = published("LoadBalancer", &[(80, "TCP", 0)]);
    local["spec"]["externalTrafficPolicy"] = "Local".into();
    let local = written(&allocator, &local, None).unwrap();
    let health = u16::try_from(local["spec"]["healthCheckNodePort"].as_u64().unwrap()).unwrap();
    assert!(is_taken(&allocator, Given::Port(health)));
    assert_eq!(written(&allocator, &local, Some(&local)).unwrap(), local);
    let mut taken = local.clone();
    taken["spec"]["ports"][0]["nodePort"] = 0.into();
    taken["spec"]["clusterIP"] = Value::Null;
    taken["spec"]["clusterIPs"] = Value::Null;
    let said = written(&allocator, &taken, None).unwrap_err();
    let expect =
        format!("failed to allocate requested HealthCheck NodePort {health}: provided port is already allocated");
    assert!(said.contains(&expect), "{said}");
    let mut open = local.clone();
    open["spec"]["externalTrafficPolicy"] = "Cluster".into();
    written(&allocator, &open, Some(&local)).unwrap();
    assert!(!is_taken(&allocator, Given::Port(health)));
}
