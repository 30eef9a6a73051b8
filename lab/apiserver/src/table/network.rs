//! The rows of Services, their endpoints, policies and Ingresses.

use serde_json::{Value, json};

use super::{Columns, age_of, column, items, labels, name, number, or_none, selector, text, wide};

/// Service.
pub const SERVICES: Columns = Columns {
    columns: &[
        column("Name"),
        column("Type"),
        column("Cluster-IP"),
        column("External-IP"),
        column("Port(s)"),
        column("Age"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        let cluster_ip = match items(&spec["clusterIPs"]).next().and_then(Value::as_str) {
            Some(ip) => ip,
            None => text(spec, &["clusterIP"]),
        };
        vec![
            name(object),
            spec["type"].clone(),
            or_none(cluster_ip),
            json!(external_ip(object)),
            or_none(&service_ports(spec)),
            age_of(object, now),
            labels(&spec["selector"]),
        ]
    },
};

fn service_ports(spec: &Value) -> String {
    let one = |port: &Value| {
        let (number, protocol) = (number(port, &["port"]), text(port, &["protocol"]));
        match port["nodePort"].as_i64().filter(|n| *n > 0) {
            Some(node_port) => format!("{number}:{node_port}/{protocol}"),
            None => format!("{number}/{protocol}"),
        }
    };
    items(&spec["ports"]).map(one).collect::<Vec<_>>().join(",")
}

fn external_ip(object: &Value) -> String {
    let spec = &object["spec"];
    let mut ips: Vec<String> = items(&spec["externalIPs"])
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match text(spec, &["type"]) {
        "ExternalName" => return text(spec, &["externalName"]).to_owned(),
        "LoadBalancer" => {
            let ingress = items(&object["status"]["loadBalancer"]["ingress"]);
            let addresses = ingress.map(|i| match text(i, &["ip"]) {
                "" => text(i, &["hostname"]).to_owned(),
                ip => ip.to_owned(),
            });
            let before = ips.len();
            ips.extend(addresses);
            if before == 0 && ips.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => {}
    }
    if ips.is_empty() {
        "<none>".to_owned()
    } else {
        ips.join(",")
    }
}

/// Endpoints.
pub const ENDPOINTS: Columns = Columns {
    columns: &[column("Name"), column("Endpoints"), column("Age")],
    cells: |object, now| {
        let mut all = Vec::new();
        for subset in items(&object["subsets"]) {
            let ports: Vec<i64> = items(&subset["ports"])
                .map(|p| number(p, &["port"]))
                .collect();
            for address in items(&subset["addresses"]).map(|a| text(a, &["ip"])) {
                if ports.is_empty() {
                    all.push(address.to_owned());
                }
                all.extend(ports.iter().map(|p| host_port(address, *p)));
            }
        }
        vec![name(object), or_none(&shortened(&all)), age_of(object, now)]
    },
};

fn host_port(address: &str, port: i64) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// The first three of a list, and how many more.
fn shortened(all: &[String]) -> String {
    match all {
        [a, b, c, rest @ ..] if !rest.is_empty() => format!("{a},{b},{c} + {} more...", rest.len()),
        all => all.join(","),
    }
}

/// EndpointSlice.
pub const ENDPOINTSLICES: Columns = Columns {
    columns: &[
        column("Name"),
        column("AddressType"),
        column("Ports"),
        column("Endpoints"),
        column("Age"),
    ],
    cells: |object, now| {
        let ports: Vec<String> = items(&object["ports"])
            .map(|p| p["port"].as_i64().map_or("*".to_owned(), |n| n.to_string()))
            .collect();
        let ports = if ports.is_empty() {
            "<unset>".to_owned()
        } else {
            shortened(&ports)
        };
        let addresses: Vec<String> = items(&object["endpoints"])
            .flat_map(|e| items(&e["addresses"]))
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let addresses = if addresses.is_empty() {
            "<unset>".to_owned()
        } else {
            shortened(&addresses)
        };
        vec![
            name(object),
            object["addressType"].clone(),
            json!(ports),
            json!(addresses),
            age_of(object, now),
        ]
    },
};

/// NetworkPolicy.
pub const NETWORKPOLICIES: Columns = Columns {
    columns: &[column("Name"), column("Pod-Selector"), column("Age")],
    cells: |object, now| {
        vec![
            name(object),
            selector(&object["spec"]["podSelector"]),
            age_of(object, now),
        ]
    },
};

/// Ingress.
pub const INGRESSES: Columns = Columns {
    columns: &[
        column("Name"),
        column("Class"),
        column("Hosts"),
        column("Address"),
        column("Ports"),
        column("Age"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        let class = match text(spec, &["ingressClassName"]) {
            "" => text(
                object,
                &["metadata", "annotations", "kubernetes.io/ingress.class"],
            ),
            class => class,
        };
        let hosts: Vec<String> = items(&spec["rules"])
            .map(|r| text(r, &["host"]))
            .filter(|h| !h.is_empty())
            .map(str::to_owned)
            .collect();
        let hosts = if hosts.is_empty() {
            "*".to_owned()
        } else {
            shortened(&hosts)
        };
        let addresses: Vec<&str> = items(&object["status"]["loadBalancer"]["ingress"])
            .map(|i| match text(i, &["ip"]) {
                "" => text(i, &["hostname"]),
                ip => ip,
            })
            .collect();
        let ports = if items(&spec["tls"]).next().is_some() {
            "80, 443"
        } else {
            "80"
        };
        vec![
            name(object),
            or_none(class),
            json!(hosts),
            json!(addresses.join(",")),
            json!(ports),
            age_of(object, now),
        ]
    },
};

/// IngressClass.
pub const INGRESSCLASSES: Columns = Columns {
    columns: &[
        column("Name"),
        column("Controller"),
        column("Parameters"),
        column("Age"),
    ],
    cells: |object, now| {
        let parameters = &object["spec"]["parameters"];
        let shown = match text(parameters, &["kind"]) {
            "" => String::new(),
            kind => {
                let group = text(parameters, &["apiGroup"]);
                let kind = if group.is_empty() {
                    kind.to_owned()
                } else {
                    format!("{kind}.{group}")
                };
                format!("{kind}/{}", text(parameters, &["name"]))
            }
        };
        vec![
            name(object),
            object["spec"]["controller"].clone(),
            or_none(&shown),
            age_of(object, now),
        ]
    },
};

/// ServiceCIDR.
pub const SERVICECIDRS: Columns = Columns {
    columns: &[column("Name"), column("CIDRs"), column("Age")],
    cells: |object, now| {
        let ranges: Vec<&str> = items(&object["spec"]["cidrs"])
            .filter_map(Value::as_str)
            .collect();
        vec![name(object), json!(ranges.join(",")), age_of(object, now)]
    },
};

/// IPAddress.
pub const IPADDRESSES: Columns = Columns {
    columns: &[column("Name"), column("ParentRef"), column("Age")],
    cells: |object, now| {
        let parent = &object["spec"]["parentRef"];
        let parts: Vec<&str> = ["group", "resource", "namespace", "name"]
            .iter()
            .map(|f| text(parent, &[f]))
            .filter(|t| !t.is_empty())
            .collect();
        vec![name(object), json!(parts.join("/")), age_of(object, now)]
    },
};
