//! The catalogue as a table: what a container declares, and what runs for it.

use super::*;

fn strings(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// Ports written `8080`, `8080=http` or `udp/53=dns`.
fn ports(words: &str) -> Vec<Port> {
    words
        .split_whitespace()
        .map(|word| {
            let (place, name) = match word.split_once('=') {
                Some((place, name)) => (place, Some(name.to_owned())),
                None => (word, None),
            };
            let (protocol, number) = match place.split_once('/') {
                Some(("udp", number)) => (Protocol::Udp, number),
                Some(("sctp", number)) => (Protocol::Sctp, number),
                Some((_, number)) => (Protocol::Tcp, number),
                None => (Protocol::Tcp, place),
            };
            Port {
                name,
                container_port: number.parse().unwrap(),
                protocol,
            }
        })
        .collect()
}

/// What runs, in one line; the option `--image X` is left out.
fn runs(image: &str, command: &str, args: &str, declared: &str) -> String {
    let has = |program: &str| matches!(program, "sh" | "/bin/sh" | "sleep" | "nginx");
    match resolve_on(
        image,
        &strings(command),
        &strings(args),
        &ports(declared),
        &has,
    ) {
        Resolved::Program { argv } => format!("host: {}", argv.join(" ")),
        Resolved::BuiltIn { name, argv, .. } => {
            assert_eq!(argv[0], name);
            argv.join(" ").replace(&format!(" --image {image}"), "")
        }
    }
}

#[test]
fn names_lose_registry_tag_and_digest() {
    for (image, name) in [
        ("nginx", "nginx"),
        ("nginx:1.27", "nginx"),
        ("docker.io/library/nginx:1.27@sha256:00", "nginx"),
        ("localhost:5000/team/go-web-app:v1", "go-web-app"),
        ("localhost:5000/nginx", "nginx"),
        ("", ""),
        ("///:@", ""),
    ] {
        assert_eq!(image_name(image), name, "{image}");
    }
}

/// Image, command, args and declared ports; and what runs.
const CONTAINERS: &[(&str, &str, &str, &str, &str)] = &[
    ("registry.k8s.io/pause:3.10", "", "", "", "idle"),
    (
        "nginx:alpine",
        "",
        "",
        "",
        "stand-in --page --root /usr/share/nginx/html --port tcp/80",
    ),
    (
        "nginx",
        "",
        "",
        "8080=web",
        "stand-in --page --root /usr/share/nginx/html --port tcp/8080=web",
    ),
    (
        "nginx",
        "nginx -g x",
        "",
        "80",
        "stand-in --page --root /usr/share/nginx/html --port tcp/80",
    ),
    ("nginx", "sh -c true", "", "80", "host: sh -c true"),
    ("busybox:1.36", "", "", "", "idle"),
    ("busybox:1.36", "", "sleep 60", "", "host: sleep 60"),
    ("busybox:1.36", "nosuch", "x", "", "host: nosuch x"),
    (
        "curlimages/curl",
        "",
        "-s http://web",
        "",
        "host: curl -s http://web",
    ),
    ("curlimages/curl", "", "sleep 60", "", "host: sleep 60"),
    (
        "team/shop:v1",
        "/app/server",
        "--x",
        "8080 udp/53=dns 8080",
        "stand-in --port tcp/8080 --port udp/53=dns",
    ),
    (
        "team/shop:v1",
        "/bin/sh",
        "-c ls",
        "8080",
        "host: /bin/sh -c ls",
    ),
    ("team/shop:v1", "", "", "", "stand-in"),
    (
        "team/signal",
        "",
        "",
        "sctp/36412",
        "stand-in --port sctp/36412",
    ),
    ("redis:7", "", "", "", "stand-in --redis --port tcp/6379"),
    (
        "gcr.io/google_samples/gb-redisslave:v1",
        "",
        "",
        "6379",
        "stand-in --redis --port tcp/6379",
    ),
    ("mysql:8", "", "", "", "stand-in --port tcp/3306"),
    ("postgres:16", "", "", "", "postgres --port tcp/5432"),
    ("me/go-web-app:v1", "", "", "8080", "go-web --port tcp/8080"),
    ("go-web", "", "", "", "go-web"),
    (
        "hashicorp/http-echo",
        "",
        "-text=hi -listen=:80",
        "5678",
        "stand-in --text hi --port tcp/80",
    ),
    (
        "hashicorp/http-echo",
        "",
        "--text hi",
        "",
        "stand-in --text hi --port tcp/5678",
    ),
    (
        "agnhost:2.53",
        "",
        "netexec --http-port=80",
        "80",
        "stand-in --agnhost --port tcp/80 --port udp/8081",
    ),
    (
        "agnhost:2.53",
        "",
        "serve-hostname",
        "",
        "stand-in --agnhost --hostname --port tcp/9376",
    ),
    ("agnhost:2.53", "", "pause", "", "idle"),
    ("traefik/whoami", "", "", "", "stand-in --port tcp/80"),
];

#[test]
fn what_runs_for_which_container() {
    for (image, command, args, declared, expected) in CONTAINERS {
        assert_eq!(
            runs(image, command, args, declared),
            *expected,
            "{image} {command} {args}"
        );
    }
}

#[test]
fn an_image_with_no_mapping_and_no_ports_says_so() {
    let Resolved::BuiltIn { note, .. } = resolve("team/shop", &[], &[], &[]) else {
        panic!("not a built-in");
    };
    assert!(note.unwrap().contains("declares no ports"));
}

#[test]
fn a_missing_program_of_the_image_is_noted() {
    let command = strings("/app/no-such-server");
    let Resolved::BuiltIn { note, .. } = resolve("team/shop", &command, &[], &ports("80")) else {
        panic!("not a built-in");
    };
    assert!(note.unwrap().contains("/app/no-such-server"));
}
