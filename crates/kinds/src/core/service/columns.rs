//! What `kubectl get services` shows.

use api::Value;

use crate::print::{AGE, NAME, NONE, UNKNOWN, age, labels, load_balancer, name, or, text, wide};
use crate::row::{Columns, PrintContext};
use crate::view::View;

/// The columns.
pub const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Type", "How the service is exposed."),
        text("Cluster-IP", "Its address in the cluster."),
        text("External-IP", "Its addresses outside of the cluster."),
        text("Port(s)", "Its ports."),
        AGE,
        wide("Selector", "Which pods answer, by their labels."),
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let cluster_ip = object.texts("spec.clusterIPs").next().unwrap_or("");
    vec![
        name(object),
        object.text("spec.type").into(),
        or(cluster_ip, NONE).into(),
        external(object).into(),
        ports(object).into(),
        age(object, context),
        labels(object.at("spec.selector")).into(),
    ]
}

fn external(object: &Value) -> String {
    let mut addresses: Vec<String> = object.texts("spec.externalIPs").map(String::from).collect();
    match object.text("spec.type") {
        "ClusterIP" | "NodePort" => or(&addresses.join(","), NONE).into(),
        "LoadBalancer" => {
            let balancer = load_balancer(object.at("status.loadBalancer"));
            if !balancer.is_empty() {
                addresses.insert(0, balancer);
            }
            or(&addresses.join(","), "<pending>").into()
        }
        "ExternalName" => object.text("spec.externalName").into(),
        _ => UNKNOWN.into(),
    }
}

fn ports(object: &Value) -> String {
    let ports: Vec<String> = object
        .list("spec.ports")
        .iter()
        .map(|port| match port.count("nodePort") {
            node_port if node_port > 0 => format!("{}:{node_port}/{}", port.count("port"), port.text("protocol")),
            _ => format!("{}/{}", port.count("port"), port.text("protocol")),
        })
        .collect();
    or(&ports.join(","), NONE).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_and_ports_follow_the_type() {
        for (spec, status, expect) in [
            (
                json!({"type": "ClusterIP", "clusterIPs": ["10.96.0.1"], "selector": {"a": "b"},
                    "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
                json!({}),
                json!(["s", "ClusterIP", "10.96.0.1", "<none>", "80/TCP,53/UDP", "5s", "a=b"]),
            ),
            (
                json!({"type": "ClusterIP", "clusterIPs": ["None"], "externalIPs": ["1.2.3.4", "5.6.7.8"]}),
                json!({}),
                json!(["s", "ClusterIP", "None", "1.2.3.4,5.6.7.8", "<none>", "5s", "<none>"]),
            ),
            (
                json!({"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}),
                json!({}),
                json!([
                    "s",
                    "LoadBalancer",
                    "<none>",
                    "<pending>",
                    "80:30080/TCP",
                    "5s",
                    "<none>"
                ]),
            ),
            (
                json!({"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]}),
                json!({"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "a.example"}]}}),
                json!([
                    "s",
                    "LoadBalancer",
                    "<none>",
                    "2.2.2.2,a.example,9.9.9.9",
                    "<none>",
                    "5s",
                    "<none>"
                ]),
            ),
            (
                json!({"type": "ExternalName", "externalName": "db.example"}),
                json!({}),
                json!(["s", "ExternalName", "<none>", "db.example", "<none>", "5s", "<none>"]),
            ),
        ] {
            let object = json!({"metadata": {"name": "s", "creationTimestamp": "1970-01-01T00:00:00Z"},
                "spec": spec, "status": status});
            let context = PrintContext { now_seconds: 5 };
            assert_eq!(Value::Array(cells(&object, &context)), expect);
        }
    }
}
