//! What is not delivered and why; and questions that cannot be asked.

use crate::fixture::clusters;
use crate::{ask, shop, verdict};

/// The last step of the only way.
fn last_step(from: &str, to: &str, with: &str) -> String {
    let answer = ask(&shop(), from, to, with).expect("an answer");
    let hop = answer.ways[0].there.last().expect("a step");
    let origins: Vec<_> = hop.origins.iter().map(ToString::to_string).collect();
    format!("{}: {} [{}]", hop.place, hop.what, origins.join(", "))
}

#[test]
fn a_service_without_endpoints_names_the_pods_that_are_not_ready() {
    let wanted = "\
node node-1: refused: the Service has no ready endpoints; pod default/web-2 is not ready [Service default/empty spec.ports[http]]";
    assert_eq!(last_step("pod/client", "svc/empty", ""), wanted);
}

#[test]
fn a_service_that_selects_nothing_says_so() {
    let wanted = "\
node node-1: refused: the Service has no endpoints; no pod matches its selector app=nobody,tier=front [Service default/nobody spec.ports[http]]";
    assert_eq!(last_step("pod/client", "svc/nobody", ""), wanted);
}

/// To a client they all look the same, and each is mended elsewhere.
#[test]
fn why_there_is_not_one_endpoint_is_said_as_it_is() {
    let services = "
        pod shy on=node-1 phase=Pending labels=app:shy
        pod web-4 on=node-1 ip=10.244.1.9 ports=http:8080/TCP,http:53/UDP labels=app:web
        service typo ip=10.96.0.40 ports=80/TCP>htpp selector=app:web
        slice typo-a of=typo endpoints=10.244.1.9@node-1/web-4
        service none ip=10.96.0.41 ports=80/TCP
        service own ip=10.96.0.42 ports=web:80/TCP>8080
        slice own-a of=own ports=wbe:8080/TCP endpoints=192.168.77.1
        service bare ip=10.96.0.43 ports=80/TCP>8080
        slice bare-a of=bare ports=web:8080/TCP endpoints=192.168.77.1
        service six ip=10.96.0.44 ports=80/TCP
        slice six-a of=six ports=80/TCP endpoints=fd00::9
        service shy ip=10.96.0.45 ports=80/TCP selector=app:shy
        service late ip=10.96.0.46 ports=80/TCP selector=app:web
    ";
    let snapshot = clusters(&[crate::APART, services]);
    let table = [
        (
            "svc/typo",
            "pods match its selector, but none of their containers has a tcp port named \"htpp\", which is its \
             targetPort; there is \"http\" (tcp), \"http\" (udp)",
        ),
        (
            "svc/none",
            "it has no selector, and no EndpointSlice lists any",
        ),
        (
            "svc/own",
            "EndpointSlice default/own-a lists some, but no tcp port named \"web\", as the Service's is; there is \
             \"wbe\" (tcp)",
        ),
        (
            "svc/bare",
            "EndpointSlice default/bare-a lists some, but no tcp port without a name, as the Service's is; there is \
             \"web\" (tcp)",
        ),
        ("svc/six", "those that it has are not IPv4"),
        (
            "svc/shy",
            "pod default/shy matches its selector, but has no address",
        ),
        (
            "svc/late",
            "pod default/web-4 matches its selector, but no EndpointSlice lists it",
        ),
    ];
    for (service, why) in table {
        let answer = ask(&snapshot, "pod/client", service, "").expect("an answer");
        assert_eq!(verdict(&answer), "PF301", "{service}");
        let hop = answer.ways[0].there.last().expect("a step");
        assert_eq!(
            hop.what,
            format!("refused: the Service has no endpoints; {why}")
        );
    }
}

/// kube-proxy ignores such slices too, and says so nowhere.
#[test]
fn endpoints_that_are_names_are_said_to_be_none() {
    let names = "
        service names ip=10.96.0.30 ports=http:80/TCP
        slice names-a of=names family=FQDN ports=http:80/TCP endpoints=web.example.org
        service some ip=10.96.0.31 ports=http:80/TCP>8080
        slice some-a of=some ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1
        slice some-b of=some family=FQDN ports=http:80/TCP endpoints=web.example.org
    ";
    let snapshot = clusters(&[crate::APART, names]);
    let answer = ask(&snapshot, "pod/client", "svc/names", "").expect("an answer");
    assert_eq!(verdict(&answer), "PF301");
    let hop = answer.ways[0].there.last().expect("a step");
    assert_eq!(
        hop.what,
        "refused: the Service has no endpoints; those of EndpointSlice default/names-a are names, not addresses"
    );
    for (name, slice) in [("svc/names", "names-a"), ("svc/some", "some-b")] {
        let answer = ask(&snapshot, "pod/client", name, "").expect("an answer");
        let note = format!(
            "EndpointSlice default/{slice} addressType: FQDN endpoints are names, not addresses (web.example.org): \
             no packet goes to them, as with kube-proxy"
        );
        assert!(answer.notes.contains(&note), "{:?}", answer.notes);
    }
}

#[test]
fn a_service_that_is_left_to_another_program_says_by_which_label() {
    let service = "service web ip=10.96.0.20 ports=80/TCP labels=service.kubernetes.io/service-proxy-name:other
                   slice web-a of=web ports=80/TCP endpoints=10.244.1.3@node-1/web-1";
    let answer = ask(
        &clusters(&[crate::APART, service]),
        "pod/client",
        "svc/web",
        "",
    );
    let answer = answer.expect("an answer");
    assert_eq!(verdict(&answer), "PF307");
    let note = "Service default/web has the label service.kubernetes.io/service-proxy-name, so Parfait leads nobody to its \
                endpoints; as with kube-proxy, its addresses are another program's to serve";
    assert!(
        answer.notes.contains(&note.to_owned()),
        "{:?}",
        answer.notes
    );
}

#[test]
fn a_port_that_the_service_lacks_is_named() {
    let wanted = "\
node node-1: refused: the Service has no port 81/tcp; it has http (80/tcp) [Service default/web spec.ports]";
    assert_eq!(last_step("pod/client", "svc/web", "81"), wanted);
}

#[test]
fn a_protocol_that_the_service_lacks_is_named() {
    let wanted = "\
node node-1: refused: the Service has no port 80/udp; it has http (80/tcp) [Service default/web spec.ports]";
    assert_eq!(last_step("pod/client", "svc/web", "80 udp"), wanted);
}

#[test]
fn an_address_that_nobody_has_names_the_node_it_would_be_on() {
    let wanted = "\
node node-2: 10.244.2.99 lies in the pod CIDR of Node node-2 spec.podCIDRs, but no pod has it [Node node-2 spec.podCIDRs]";
    assert_eq!(last_step("pod/client", "10.244.2.99:80", ""), wanted);
}

#[test]
fn an_address_that_no_service_and_no_node_has_is_refused_at_once() {
    let wanted = "\
node node-1: refused: no Service has 10.96.9.9 [ConfigMap kube-system/parfait serviceCIDRs]";
    assert_eq!(last_step("pod/client", "10.96.9.9:80", ""), wanted);
    assert_eq!(last_step("node/node-1", "10.96.9.9:80", ""), wanted);
    let wanted = "\
node node-1: 10.244.9.9 lies in the pod network, but in no node's pod CIDR [ConfigMap kube-system/parfait clusterCIDRs]";
    assert_eq!(last_step("pod/client", "10.244.9.9:80", ""), wanted);
    assert_eq!(last_step("node/node-1", "10.244.9.9:80", ""), wanted);
}

#[test]
fn a_port_that_no_container_declares_is_pointed_out() {
    let wanted = "\
pod default/web-2: received from 10.244.1.2:40000; no container declares port 9999/tcp: refused unless one listens all the same [Pod default/web-2]";
    assert_eq!(last_step("pod/client", "pod/web-2", "9999"), wanted);
}

#[test]
fn a_hairpin_on_a_node_without_an_address_of_the_family_is_dropped() {
    let snapshot = clusters(&["
        node node-1 pods=fd00:10:244:1::/64 underlay=192.168.77.11/24
        pod web on=node-1 ip=fd00:10:244:1::2 ports=8080/TCP
        service self ip=fd00:10:96::14 ports=80/TCP>8080
        slice self-a of=self ports=8080/TCP endpoints=fd00:10:244:1::2@node-1/web
    "]);
    let answer = ask(&snapshot, "pod/web", "svc/self", "").expect("an answer");
    assert_eq!(verdict(&answer), "PF304");
    let hop = answer.ways[0].there.last().expect("a step");
    assert_eq!(
        hop.what,
        "masquerade: the node has no address to put in place of fd00:10:244:1::2, so the packet is dropped"
    );
}

#[test]
fn questions_that_cannot_be_asked_say_what_was_probably_meant() {
    let table = [
        (
            "pod/clint",
            "svc/web",
            "",
            "no pod \"clint\" in namespace default; did you mean \"client\"?",
        ),
        (
            "pod/client",
            "svc/wep",
            "",
            "no Service \"wep\" in namespace default; did you mean \"web\"?",
        ),
        (
            "pod/client",
            "node/node-9",
            "22",
            "no node \"node-9\"; did you mean \"node-1\"?",
        ),
        (
            "pod/client",
            "pod/zebra",
            "",
            "no pod \"zebra\" in namespace default",
        ),
        (
            "pod/client",
            "svc/kube-dns",
            "",
            "no Service \"kube-dns\" in namespace default; did you mean \"kube-dns.kube-system\"?",
        ),
        (
            "svc/web",
            "pod/client",
            "80",
            "svc/web cannot be the sender: name a pod, a node, the address of one, or one outside the cluster",
        ),
        (
            "10.244.1.99",
            "pod/client",
            "80",
            "10.244.1.99 cannot be the sender: name a pod, a node, the address of one, or one outside the cluster",
        ),
        (
            "198.51.100.1",
            "svc/web",
            "80",
            "Service default/web has no address for clients outside the cluster: no load balancer's, no \
             spec.externalIPs, no spec.ports[].nodePort; ask from a pod or a node",
        ),
        (
            "pod/client",
            "node/node-2",
            "",
            "which port of node node-2? give --port NUMBER, or NAME:PORT",
        ),
        (
            "pod/client",
            "svc/web:https",
            "",
            "Service default/web has no port named \"https\"; it has http (80/tcp)",
        ),
    ];
    for (from, to, with, wanted) in table {
        let error = ask(&shop(), from, to, with).expect_err(wanted);
        assert_eq!(error.to_string(), wanted);
    }
}

#[test]
fn questions_about_a_port_or_a_namespace_that_is_not_there_say_so() {
    let table = [
        ("pod/zebra.shop:80", "", "no pod \"zebra.shop\""),
        (
            "svc/web",
            "udp",
            "Service default/web has no udp port; it has http (80/tcp)",
        ),
    ];
    for (to, with, wanted) in table {
        let error = ask(&shop(), "pod/client", to, with).expect_err(wanted);
        assert_eq!(error.to_string(), wanted);
    }
}
