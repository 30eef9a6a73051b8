//! The command line of the built-in programs, as the catalogue writes it.

use crate::catalogue::Protocol;
use std::path::PathBuf;

/// What a built-in server is told to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The image it stands in for.
    pub image: Option<String>,
    pub ports: Vec<PortOption>,
    /// Answer web requests with an HTML page instead of JSON.
    pub page: bool,
    /// Serve the files under this directory, where there are any.
    pub root: Option<PathBuf>,
    /// Answer web requests with this text.
    pub text: Option<String>,
    /// Take what is not HTTP for Redis commands.
    pub redis: bool,
    /// Answer `/hostname`, `/clientip` and `/echo` as agnhost does.
    pub agnhost: bool,
    /// Answer every web request with the host's name.
    pub hostname: bool,
}

/// A port to listen on: `tcp/8080` or `tcp/8080=name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOption {
    pub protocol: Protocol,
    pub number: u16,
    pub name: Option<String>,
}

impl Options {
    /// Reads a command line. The error says which argument is wrong.
    pub fn parse(args: Vec<String>) -> Result<Options, String> {
        let mut options = Options::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--image" => options.image = Some(value()?),
                "--port" => options.ports.push(PortOption::parse(&value()?)?),
                "--page" => options.page = true,
                "--root" => options.root = Some(value()?.into()),
                "--text" => options.text = Some(value()?),
                "--redis" => options.redis = true,
                "--agnhost" => options.agnhost = true,
                "--hostname" => options.hostname = true,
                _ => return Err(format!("unknown argument {arg:?}")),
            }
        }
        Ok(options)
    }

    /// The port of `$PORT`, where none was given; `usual` where there is neither.
    pub fn or_port_of_environment(mut self, usual: Option<u16>) -> Options {
        if self.ports.is_empty() {
            let set = std::env::var("PORT").ok();
            let number = set.and_then(|p| p.trim().parse().ok()).filter(|p| *p != 0);
            self.ports.extend(number.or(usual).map(|number| PortOption {
                protocol: Protocol::Tcp,
                number,
                name: None,
            }));
        }
        self
    }
}

impl PortOption {
    fn parse(text: &str) -> Result<PortOption, String> {
        let wrong = || format!("{text:?} is not a port; write tcp/8080 or udp/53=dns");
        let (place, name) = match text.split_once('=') {
            Some((place, name)) => (place, Some(name.to_owned())),
            None => (text, None),
        };
        let (protocol, number) = place.split_once('/').ok_or_else(wrong)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(wrong()),
        };
        let number = number.parse().ok().filter(|n| *n != 0).ok_or_else(wrong)?;
        Ok(PortOption {
            protocol,
            number,
            name,
        })
    }
}

impl std::fmt::Display for PortOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.protocol.as_str(), self.number)?;
        match &self.name {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn reads_what_the_catalogue_writes() {
        let options = parse("--image nginx --page --port tcp/80=http --port udp/53").unwrap();
        assert_eq!(options.image.as_deref(), Some("nginx"));
        assert!(options.page);
        let ports: Vec<_> = options.ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["tcp/80 (http)", "udp/53"]);
    }

    #[test]
    fn names_the_wrong_argument() {
        for (line, named) in [
            ("--port 80", "\"80\""),
            ("--port tcp/0", "\"tcp/0\""),
            ("--port tcp/70000", "\"tcp/70000\""),
            ("--port", "--port needs a value"),
            ("--nosuch", "--nosuch"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
