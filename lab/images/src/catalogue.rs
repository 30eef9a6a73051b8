//! Which program runs for a container: the table of known images, and the rule for the others.
//!
//! An image is known by the last component of its name, without registry, tag and digest:
//! `docker.io/library/nginx:1.27@sha256:…` is `nginx`. What happens then, in this order:
//!
//! 1. A `command` runs as a program of this machine, if this machine has it. So does a toolbox's
//!    (`busybox`, `alpine`, …) in any case, and fails as it would in the image when it is not there.
//! 2. A `command` which this machine has not (`/app/server`, `redis-server`) means that the image brings
//!    its own program, and we have a stand-in for it: the built-in runs and a note says so.
//! 3. Without a command the built-in runs. A toolbox takes `args` as its command.
//!
//! A toolbox with neither idles. The real one would start a shell, find no terminal and end with 0,
//! to be restarted for ever; idling is what people mean when they write such a manifest.
//!
//! The built-in listens on the ports that the container declares; where it declares none, on those the
//! image is known to use. An unknown image without ports listens on `$PORT` if that is set, else it idles.

use std::path::Path;

/// The transport of a declared container port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As it stands in the `--port` option: `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// One entry of a container's `ports`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: Option<String>,
    pub container_port: u16,
    pub protocol: Protocol,
}

/// What to start in the container's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// A program of this machine, by this command line.
    Program { argv: Vec<String> },
    /// A built-in: `parfait image` with these arguments, of which the first is `name`.
    BuiltIn {
        name: &'static str,
        argv: Vec<String>,
        /// Something the reader of the container's log or events should know.
        note: Option<String>,
    },
}

/// Decides what runs for a container. Looks at this machine's file system only to see whether it has
/// the program that `command` names.
pub fn resolve(image: &str, command: &[String], args: &[String], ports: &[Port]) -> Resolved {
    resolve_on(image, command, args, ports, &machine_has)
}

/// The last component of an image's name: `ghcr.io/team/shop:v1@sha256:…` is `shop`.
pub fn image_name(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last)
}

fn resolve_on(
    image: &str,
    command: &[String],
    args: &[String],
    ports: &[Port],
    has: &dyn Fn(&str) -> bool,
) -> Resolved {
    let kind = kind_of(image_name(image));
    if let Some(program) = command.first() {
        let toolbox = matches!(kind, Kind::Toolbox { .. });
        if toolbox || (has(program) && !is_own_program(program)) {
            return Resolved::Program {
                argv: command.iter().chain(args).cloned().collect(),
            };
        }
        let note = format!(
            "this machine has no program {program:?}, which image {image:?} brings along: a built-in stands in for it"
        );
        return built_in(&kind, image, &[], ports, Some(note));
    }
    if let Kind::Toolbox { entrypoint } = kind
        && !args.is_empty()
    {
        let takes_options = args[0].starts_with('-') || args[0].contains("://");
        let prefix = entrypoint.filter(|_| takes_options).map(str::to_owned);
        return Resolved::Program {
            argv: prefix.into_iter().chain(args.iter().cloned()).collect(),
        };
    }
    built_in(&kind, image, args, ports, None)
}

/// What is known about an image.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Waits, whatever its arguments.
    Idle,
    /// Programs to run by hand. `entrypoint` is what the image puts before arguments that are options.
    Toolbox {
        entrypoint: Option<&'static str>,
    },
    /// A web server, which serves the files under `root` if there are any.
    Web {
        root: &'static str,
        port: u16,
    },
    /// The stand-in, on these TCP ports if the container declares none.
    Server {
        ports: &'static [u16],
    },
    /// The stand-in, where even a bare `PING` is a Redis command.
    Redis,
    /// `hashicorp/http-echo`: answers the text of `-text`, on the address of `-listen`.
    HttpEcho,
    /// `agnhost` of the Kubernetes tests: what it does is its first argument.
    Agnhost,
    GoWeb,
    Postgres,
    Unknown,
}

fn kind_of(name: &str) -> Kind {
    match name {
        "pause" | "sleep" => Kind::Idle,
        "busybox" | "alpine" | "debian" | "ubuntu" | "fedora" | "centos" | "rockylinux"
        | "archlinux" | "netshoot" | "dnsutils" | "jessie-dnsutils" | "toolbox" | "bash"
        | "network-multitool" | "wbitt" | "kubectl" | "python" | "perl" | "buildpack-deps" => {
            Kind::Toolbox { entrypoint: None }
        }
        "curl" | "mycurlpod" => Kind::Toolbox {
            entrypoint: Some("curl"),
        },
        "nginx" | "openresty" | "nginx-slim" | "nginx-hello" => web("/usr/share/nginx/html", 80),
        "nginx-unprivileged" => web("/usr/share/nginx/html", 8080),
        "httpd" | "apache" | "php-apache" | "hpa-example" => web("/usr/local/apache2/htdocs", 80),
        "caddy" => web("/usr/share/caddy", 80),
        "hello" | "hello-world-web" | "welcome-to-docker" | "getting-started" => web("", 80),
        "hello-app" | "hello-node" | "hello-kubernetes" | "kubernetes-bootcamp" => web("", 8080),
        "http-echo" => Kind::HttpEcho,
        "agnhost" => Kind::Agnhost,
        "echoserver" | "echo-server" | "http-https-echo" | "go-httpbin" => server(&[8080]),
        "whoami" | "httpbin" | "traefik" => server(&[80]),
        "podinfo" => server(&[9898, 9999]),
        "postgres" | "postgresql" | "postgis" => Kind::Postgres,
        "mysql" | "mariadb" | "percona" => server(&[3306]),
        "mongo" | "mongodb" => server(&[27017]),
        "memcached" => server(&[11211]),
        "rabbitmq" => server(&[5672, 15672]),
        "kafka" => server(&[9092]),
        "zookeeper" => server(&[2181]),
        "nats" => server(&[4222, 8222]),
        "etcd" => server(&[2379, 2380]),
        "elasticsearch" | "opensearch" => server(&[9200, 9300]),
        "prometheus" => server(&[9090]),
        "grafana" => server(&[3000]),
        "wordpress" | "phpmyadmin" | "drupal" | "nextcloud" => server(&[80]),
        "tomcat" | "jenkins" => server(&[8080]),
        _ if name.starts_with("go-web") => Kind::GoWeb,
        _ if ["redis", "valkey", "keydb"]
            .iter()
            .any(|n| name.contains(n)) =>
        {
            Kind::Redis
        }
        _ => Kind::Unknown,
    }
}

fn web(root: &'static str, port: u16) -> Kind {
    Kind::Web { root, port }
}

fn server(ports: &'static [u16]) -> Kind {
    Kind::Server { ports }
}

/// A start script every image calls the same. The one that this machine may have is another's.
fn is_own_program(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or(program);
    matches!(
        name,
        "docker-entrypoint.sh"
            | "entrypoint.sh"
            | "nginx"
            | "httpd-foreground"
            | "redis-server"
            | "postgres"
            | "mysqld"
            | "mongod"
            | "memcached"
            | "caddy"
    )
}

fn built_in(
    kind: &Kind,
    image: &str,
    args: &[String],
    ports: &[Port],
    note: Option<String>,
) -> Resolved {
    let mut line = Line::new(image, note);
    match *kind {
        Kind::Idle | Kind::Toolbox { .. } => return line.idle(),
        Kind::Web { root, port } => {
            line.push(&["--page"]);
            if !root.is_empty() {
                line.push(&["--root", root]);
            }
            line.ports(ports, &[(port, Protocol::Tcp)]);
        }
        Kind::Server { ports: usual } => line.tcp_ports(ports, usual),
        Kind::Redis => {
            line.push(&["--redis"]);
            line.tcp_ports(ports, &[6379]);
        }
        Kind::HttpEcho => {
            line.push(&["--text", option(args, "text").unwrap_or("hello-world")]);
            let listen = option(args, "listen").and_then(port_of).unwrap_or(5678);
            line.ports(&[], &[(listen, Protocol::Tcp)]);
        }
        Kind::Agnhost => return agnhost(line, args, ports),
        Kind::GoWeb => {
            line.name = "go-web";
            line.ports(ports, &[]);
        }
        Kind::Postgres => {
            line.name = "postgres";
            line.tcp_ports(ports, &[5432]);
        }
        Kind::Unknown => {
            if ports.is_empty() {
                line.note(format!(
                    "image {image:?} has no built-in program and its container declares no ports: \
                     the stand-in listens on $PORT if that is set, else it only waits"
                ));
            }
            line.tcp_ports(ports, &[]);
        }
    }
    line.done()
}

/// `agnhost` as the Kubernetes documentation and tests use it. Other subcommands get the stand-in on
/// the declared ports.
fn agnhost(mut line: Line, args: &[String], ports: &[Port]) -> Resolved {
    line.push(&["--agnhost"]);
    let tcp = |name: &str, usual: u16| option(args, name).and_then(port_of).unwrap_or(usual);
    match args.first().map(String::as_str) {
        None | Some("pause") => return line.idle(),
        Some("netexec") => line.ports(
            &[],
            &[
                (tcp("http-port", 8080), Protocol::Tcp),
                (tcp("udp-port", 8081), Protocol::Udp),
            ],
        ),
        Some("serve-hostname") => {
            line.push(&["--hostname"]);
            line.ports(&[], &[(tcp("port", 9376), Protocol::Tcp)]);
        }
        Some("echoserver" | "test-webserver" | "porter") => {
            line.ports(ports, &[(tcp("port", 8080), Protocol::Tcp)]);
        }
        Some("grpc-health-checking") => line.ports(&[], &[(tcp("port", 5000), Protocol::Tcp)]),
        Some(_) => line.tcp_ports(ports, &[]),
    }
    line.done()
}

/// A command line for a built-in as it is put together.
struct Line {
    name: &'static str,
    options: Vec<String>,
    note: Option<String>,
}

impl Line {
    fn new(image: &str, note: Option<String>) -> Line {
        Line {
            name: "stand-in",
            options: vec!["--image".to_owned(), image.to_owned()],
            note,
        }
    }

    fn push(&mut self, options: &[&str]) {
        self.options.extend(options.iter().map(|o| (*o).to_owned()));
    }

    /// The declared ports, each once, or the usual ones.
    fn ports(&mut self, declared: &[Port], usual: &[(u16, Protocol)]) {
        let mut seen = Vec::new();
        for port in declared {
            let key = (port.container_port, port.protocol);
            if port.container_port == 0 || seen.contains(&key) {
                continue;
            }
            seen.push(key);
            let name = port.name.as_ref().map(|n| format!("={n}"));
            let option = format!(
                "{}/{}{}",
                port.protocol.as_str(),
                port.container_port,
                name.unwrap_or_default()
            );
            self.push(&["--port", &option]);
        }
        if seen.is_empty() {
            for (number, protocol) in usual {
                self.push(&["--port", &format!("{}/{number}", protocol.as_str())]);
            }
        }
    }

    fn tcp_ports(&mut self, declared: &[Port], usual: &[u16]) {
        let usual: Vec<_> = usual.iter().map(|p| (*p, Protocol::Tcp)).collect();
        self.ports(declared, &usual);
    }

    fn note(&mut self, note: String) {
        self.note = Some(match self.note.take() {
            Some(earlier) => format!("{earlier}; {note}"),
            None => note,
        });
    }

    fn idle(mut self) -> Resolved {
        self.name = "idle";
        self.options.clear();
        self.done()
    }

    fn done(self) -> Resolved {
        let mut argv = vec![self.name.to_owned()];
        argv.extend(self.options);
        Resolved::BuiltIn {
            name: self.name,
            argv,
            note: self.note,
        }
    }
}

/// The value of `-name=value`, `--name=value`, `-name value` or `--name value`.
fn option<'a>(args: &'a [String], name: &str) -> Option<&'a str> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let bare = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
        match bare.map(|b| b.split_once('=')) {
            Some(Some((n, value))) if n == name => return Some(value),
            Some(None) if bare == Some(name) => return args.next().map(String::as_str),
            _ => {}
        }
    }
    None
}

/// The port of `8080`, `:8080` or `0.0.0.0:8080`.
fn port_of(address: &str) -> Option<u16> {
    address.rsplit(':').next()?.parse().ok().filter(|p| *p != 0)
}

/// Whether this machine can run `program`: a path to an executable file, or a name found in `PATH`
/// as it is set here, and in the directories that images usually search.
pub(crate) fn machine_has(program: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return runs(Path::new(program));
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    !program.is_empty()
        && path
            .split(':')
            .chain(usual.split(':'))
            .filter(|dir| !dir.is_empty())
            .any(|dir| runs(&Path::new(dir).join(program)))
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
