//! Services, by example.

use serde_json::json;

use super::strategy::Services;
use crate::testing::{Case, QUALIFIED, SUBDOMAIN, VALUE, check};

const PORT: &str = "ports: [{port: 80}]";

#[test]
fn defaults() {
    for case in [
        Case::new("cluster address")
            .object("spec: {ports: [{port: 80}]}")
            .field("spec.type", "ClusterIP")
            .field("spec.sessionAffinity", "None")
            .field("spec.internalTrafficPolicy", "Cluster")
            .field("spec.externalTrafficPolicy", ())
            .field("spec.ports.0", json!({"port": 80, "protocol": "TCP", "targetPort": 80}))
            .field("status", json!({"loadBalancer": {}})),
        Case::new("sticky clients")
            .object("spec: {sessionAffinity: ClientIP, ports: [{port: 80, targetPort: web}]}")
            .field("spec.sessionAffinityConfig.clientIP.timeoutSeconds", 10800)
            .field("spec.ports.0.targetPort", "web"),
        Case::new("no config without affinity")
            .object("spec: {sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}, ports: [{port: 80}]}")
            .field("spec.sessionAffinityConfig", ()),
        Case::new("reached from outside")
            .object("spec: {externalIPs: [1.2.3.4], ports: [{port: 80}]}")
            .field("spec.externalTrafficPolicy", "Cluster"),
        Case::new("load balancer")
            .object("spec: {type: LoadBalancer, ports: [{port: 80}]}")
            .field("spec.allocateLoadBalancerNodePorts", true)
            .field("spec.externalTrafficPolicy", "Cluster"),
        Case::new("a name outside")
            .object("spec: {type: ExternalName, externalName: db.example.}")
            .field("spec.internalTrafficPolicy", ()),
        Case::new("one address in two fields")
            .object("spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}")
            .field("spec.clusterIPs", json!(["10.96.0.9"])),
        Case::new("headless needs no port").object("spec: {clusterIP: None}"),
    ] {
        check(&Services, case);
    }
}

#[test]
fn create() {
    for (name, spec, errors) in [
        ("no port", "{}", vec!["spec.ports: Required value".to_string()]),
        (
            "type",
            "{type: X, ports: [{port: 80}]}",
            vec![
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \
                 \"LoadBalancer\", \"NodePort\""
                    .into(),
            ],
        ),
        (
            "ports",
            "{ports: [{port: 0, name: a, protocol: X, targetPort: 70000, appProtocol: ' '}, {port: 81}, {port: 81, \
             name: a, nodePort: 30000, targetPort: '-'}]}",
            vec![
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive".into(),
                "spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"".into(),
                "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive".into(),
                format!("spec.ports[0].appProtocol: Invalid value: \" \": {QUALIFIED}"),
                "spec.ports[1].name: Required value".into(),
                "spec.ports[2].name: Duplicate value: \"a\"".into(),
                "spec.ports[2].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'".into(),
                "spec.ports[2]: Duplicate value: {\"port\":81,\"protocol\":\"TCP\"}".into(),
                "spec.ports[2].targetPort: Invalid value: \"-\": must contain at least one letter (a-z)".into(),
                "spec.ports[2].targetPort: Invalid value: \"-\": must not begin or end with a hyphen".into(),
            ],
        ),
        (
            "selector",
            "{selector: {a: 'b c'}, ports: [{port: 80}]}",
            vec![format!("spec.selector: Invalid value: \"b c\": {VALUE}")],
        ),
        (
            "affinity",
            "{sessionAffinity: X, ports: [{port: 80}]}",
            vec!["spec.sessionAffinity: Unsupported value: \"X\": supported values: \"ClientIP\", \"None\"".into()],
        ),
        (
            "affinity's time",
            "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}, ports: [{port: 80}]}",
            vec![
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and \
                 less than 86400"
                    .into(),
            ],
        ),
        (
            "addresses",
            "{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.2], ports: [{port: 80}]}",
            vec!["spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`".into()],
        ),
        (
            "an address list without the address",
            "{clusterIPs: [10.0.0.2], ports: [{port: 80}]}",
            vec![
                "spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: must be empty when `clusterIP` is not specified"
                    .into(),
            ],
        ),
        (
            "no address",
            "{clusterIP: x, ports: [{port: 80}]}",
            vec![
                "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)"
                    .into(),
            ],
        ),
        (
            "two of one family",
            "{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 10.0.0.2], ports: [{port: 80}]}",
            vec![
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for \
                 each IP family"
                    .into(),
            ],
        ),
        (
            "families",
            "{clusterIP: 10.0.0.1, ipFamilies: [IPv6, IPv6, X], ipFamilyPolicy: X, ports: [{port: 80}]}",
            vec![
                "spec.ipFamilies[1]: Duplicate value: \"IPv6\"".into(),
                "spec.ipFamilies[2]: Unsupported value: \"X\": supported values: \"IPv4\", \"IPv6\"".into(),
                "spec.ipFamilyPolicy: Unsupported value: \"X\": supported values: \"PreferDualStack\", \
                 \"RequireDualStack\", \"SingleStack\""
                    .into(),
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by \
                 `ipFamilies[0]`"
                    .into(),
            ],
        ),
        (
            "headless node port",
            "{type: NodePort, clusterIP: None, ports: [{port: 80}]}",
            vec!["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services".into()],
        ),
        (
            "external name",
            "{type: ExternalName, clusterIP: 10.0.0.1, externalName: A}",
            vec![
                "spec.clusterIPs: Forbidden: may not be set for ExternalName services".into(),
                format!("spec.externalName: Invalid value: \"A\": {SUBDOMAIN}"),
            ],
        ),
        (
            "external name missing",
            "{type: ExternalName}",
            vec!["spec.externalName: Required value".into()],
        ),
        (
            "external addresses",
            "{externalIPs: [127.0.0.1, x, 169.254.1.1, 0.0.0.0, 224.0.0.1], ports: [{port: 80}]}",
            vec![
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
                 ::1/128)"
                    .into(),
                "spec.externalIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)"
                    .into(),
                "spec.externalIPs[2]: Invalid value: \"169.254.1.1\": may not be in the link-local range \
                 (169.254.0.0/16, fe80::/10)"
                    .into(),
                "spec.externalIPs[3]: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)".into(),
                "spec.externalIPs[4]: Invalid value: \"224.0.0.1\": may not be in the link-local multicast range \
                 (224.0.0.0/24, ff02::/10)"
                    .into(),
            ],
        ),
        (
            "only for load balancers",
            "{loadBalancerSourceRanges: [x], loadBalancerClass: a, allocateLoadBalancerNodePorts: true, ports: \
             [{port: 80}]}",
            vec![
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'".into(),
                "spec.LoadBalancerSourceRanges[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 \
                 or 2001:db8::/64)"
                    .into(),
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'".into(),
                "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'".into(),
            ],
        ),
        (
            "policies",
            "{externalTrafficPolicy: Local, internalTrafficPolicy: X, healthCheckNodePort: 5, trafficDistribution: X, \
             ports: [{port: 80}]}",
            vec![
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible \
                 services"
                    .into(),
                "spec.healthCheckNodePort: Invalid value: 5: may only be set when `type` is 'LoadBalancer' and \
                 `externalTrafficPolicy` is 'Local'"
                    .into(),
                "spec.internalTrafficPolicy: Unsupported value: \"X\": supported values: \"Cluster\", \"Local\"".into(),
                "spec.trafficDistribution: Unsupported value: \"X\": supported values: \"PreferClose\", \
                 \"PreferSameZone\", \"PreferSameNode\""
                    .into(),
            ],
        ),
        (
            "a health check needs its port",
            "{type: LoadBalancer, loadBalancerClass: ' ', externalTrafficPolicy: Local, ports: [{port: 80}]}",
            vec![
                "spec.healthCheckNodePort: Required value".into(),
                format!("spec.loadBalancerClass: Invalid value: \" \": {QUALIFIED}"),
            ],
        ),
        (
            "a node port twice",
            "{type: NodePort, ports: [{port: 80, name: a, nodePort: 30000}, {port: 81, name: b, nodePort: 30000}]}",
            vec!["spec.ports[1].nodePort: Duplicate value: 30000".into()],
        ),
    ] {
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(
            &Services,
            Case::new(name).object(&format!("spec: {spec}")).errors(&errors),
        );
    }
}

#[test]
fn annotations() {
    let object = "metadata: {annotations: {service.kubernetes.io/topology-aware-hints: a, \
                  service.kubernetes.io/topology-mode: b, \
                  service.beta.kubernetes.io/load-balancer-source-ranges: x}}\nspec: {ports: [{port: 80}]}";
    let ranges = "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]";
    let case = Case::new("annotations").object(object);
    let errors = [
        "metadata.annotations[service.kubernetes.io/topology-mode]: Invalid value: \"b\": must match \
         annotations[service.kubernetes.io/topology-aware-hints] when both are specified",
        &format!("{ranges}: Forbidden: may only be used when `type` is 'LoadBalancer'"),
        &format!("{ranges}: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
    ];
    check(&Services, case.errors(&errors));
}

#[test]
fn update() {
    let old = format!("spec: {{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], {PORT}}}");
    for case in [
        Case::new("allocated addresses stay")
            .object(&format!("spec: {{{PORT}}}"))
            .field("spec.clusterIP", "10.0.0.1")
            .field("spec.clusterIPs", json!(["10.0.0.1"])),
        Case::new("an address is for life")
            .object(&format!(
                "spec: {{clusterIP: 10.0.0.2, clusterIPs: [10.0.0.1], ipFamilies: [IPv4], {PORT}}}"
            ))
            .errors(&["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]),
        Case::new("a family is for life")
            .object(&format!("spec: {{ipFamilies: [IPv6], {PORT}}}"))
            .errors(&[
                "spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set",
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by \
                 `ipFamilies[0]`",
            ]),
        Case::new("the addresses go with the type")
            .object(
                "spec: {type: ExternalName, externalName: a.b, clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1], \
                     ipFamilies: [IPv4]}",
            )
            .field("spec.clusterIP", ())
            .field("spec.clusterIPs", ())
            .field("spec.ipFamilies", ()),
        Case::new("the status is written apart")
            .object(&format!(
                "spec: {{{PORT}}}\nstatus: {{loadBalancer: {{ingress: [{{ip: 1.1.1.1}}]}}}}"
            ))
            .field("status.loadBalancer", json!({})),
        Case::new("only load balancers have a status")
            .subresource("status")
            .object("status: {loadBalancer: {ingress: [{ip: 1.1.1.1}]}}")
            .errors(&["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"]),
    ] {
        check(&Services, case.old(&old));
    }
}

#[test]
fn node_ports() {
    let old = "spec: {type: NodePort, ports: [{port: 80, nodePort: 30080}], externalTrafficPolicy: Local}";
    for case in [
        Case::new("a node port stays")
            .object("spec: {type: NodePort, ports: [{port: 80}]}")
            .field("spec.ports.0.nodePort", 30080),
        Case::new("a node port goes with the type")
            .object("spec: {ports: [{port: 80, nodePort: 30080}], externalTrafficPolicy: Local}")
            .field("spec.ports.0.nodePort", ())
            .field("spec.externalTrafficPolicy", ()),
    ] {
        check(&Services, case.old(old));
    }
}

#[test]
fn load_balancers() {
    let old = "spec: {type: LoadBalancer, loadBalancerClass: a, externalTrafficPolicy: Local, healthCheckNodePort: \
               30001, ports: [{port: 80}]}";
    for case in [
        Case::new("class and health check are for life")
            .object(
                "spec: {type: LoadBalancer, loadBalancerClass: b, externalTrafficPolicy: Local, healthCheckNodePort: \
                 30002, ports: [{port: 80}]}",
            )
            .errors(&[
                "spec.loadBalancerClass: Invalid value: \"b\": may not change once set",
                "spec.healthCheckNodePort: Forbidden: field is immutable",
            ]),
        Case::new("what a load balancer says")
            .subresource("status")
            .object(
                "status: {loadBalancer: {ingress: [{ip: 1.1.1.1}, {ip: x}, {hostname: 1.2.3.4}, {ipMode: VIP}, \
                     {ip: 2.2.2.2, ipMode: X}]}}",
            )
            .field("status.loadBalancer.ingress.0.ipMode", "VIP")
            .errors(&[
                "status.loadBalancer.ingress[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 \
                 or 2001:db8::ffff)",
                "status.loadBalancer.ingress[2].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP \
                 address",
                "status.loadBalancer.ingress[3].ipMode: Forbidden: may not be specified when `ip` is not set",
                "status.loadBalancer.ingress[4].ipMode: Unsupported value: \"X\": supported values: \"Proxy\", \
                 \"VIP\"",
            ]),
    ] {
        check(&Services, case.old(old));
    }
}
