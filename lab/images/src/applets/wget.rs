//! `wget`, as far as containers use it to wait for a web server or to show a page.
//!
//! Takes `-q`, `-S`, `-O FILE`, `-T SEC`, `-Y off`, `-c`, `--spider`, `--server-response`, `--quiet`,
//! `--output-document`, `--timeout`, `--tries`, `--header`, `--post-data`, `--no-check-certificate`.
//! HTTP only, no TLS, no FTP; up to five redirections. Ends with 0 or 1, as busybox's does.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Letters, run, seconds};
use crate::console::complain;

const MOST_REDIRECTIONS: usize = 5;
/// busybox's own patience.
const PATIENCE: Duration = Duration::from_secs(900);

#[derive(Debug)]
struct Asked {
    url: String,
    quiet: bool,
    show_headers: bool,
    spider: bool,
    output: Option<String>,
    patience: Duration,
    headers: Vec<(String, String)>,
    post: Option<String>,
}

pub fn main(args: Vec<String>) -> ExitCode {
    let asked = match Asked::parse(args) {
        Ok(asked) => asked,
        Err(error) => {
            complain(&format!("wget: {error}"));
            return ExitCode::FAILURE;
        }
    };
    run("wget", async {
        match fetch(&asked).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("wget: {error}"));
                ExitCode::FAILURE
            }
        }
    })
}

impl Asked {
    fn parse(args: Vec<String>) -> Result<Asked, String> {
        let mut asked = Asked {
            url: String::new(),
            quiet: false,
            show_headers: false,
            spider: false,
            output: None,
            patience: PATIENCE,
            headers: Vec::new(),
            post: None,
        };
        let mut letters = Letters::new(args);
        while let Some(next) = letters.next() {
            let letter = match next {
                Ok(letter) => letter,
                Err(long) if long.starts_with("--") => {
                    asked.long(&long, &mut letters)?;
                    continue;
                }
                Err(url) => {
                    asked.url = url;
                    continue;
                }
            };
            let mut value = || {
                letters
                    .value()
                    .ok_or_else(|| format!("-{letter} needs a value"))
            };
            match letter {
                'q' => asked.quiet = true,
                'S' => asked.show_headers = true,
                'c' | 'n' => {}
                'O' => asked.output = Some(value()?),
                'T' => asked.patience = patience(&value()?)?,
                't' | 'Y' | 'U' | 'P' => drop(value()?),
                _ => return Err(format!("unknown option -{letter}")),
            }
        }
        match asked.url.is_empty() {
            true => Err("missing URL: wget [-q] [-S] [-O FILE] [-T SEC] [--spider] URL".to_owned()),
            false => Ok(asked),
        }
    }

    fn long(&mut self, option: &str, letters: &mut Letters) -> Result<(), String> {
        let (name, inline) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (option, None),
        };
        let mut value = || {
            let value = inline.clone().or_else(|| letters.value());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        match name {
            "--quiet" | "--no-verbose" => self.quiet = true,
            "--server-response" => self.show_headers = true,
            "--spider" => self.spider = true,
            "--no-check-certificate" | "--continue" => {}
            "--output-document" => self.output = Some(value()?),
            "--timeout" | "--connect-timeout" | "--read-timeout" => {
                self.patience = patience(&value()?)?
            }
            "--tries" | "--user-agent" | "--waitretry" => drop(value()?),
            "--post-data" => self.post = Some(value()?),
            "--header" => {
                let header = value()?;
                let (name, value) = header
                    .split_once(':')
                    .ok_or_else(|| format!("{header:?} is no header; write 'Name: value'"))?;
                self.headers
                    .push((name.trim().to_owned(), value.trim().to_owned()));
            }
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    seconds(text).ok_or_else(|| format!("{text:?} is no number of seconds"))
}

async fn fetch(asked: &Asked) -> Result<(), String> {
    let mut url = parse_url(&asked.url)?;
    for _ in 0..=MOST_REDIRECTIONS {
        let answering = timeout(asked.patience, request(asked, &url));
        let response = answering
            .await
            .map_err(|_| "download timed out".to_owned())??;
        if asked.show_headers {
            show_headers(&response);
        }
        let status = response.status();
        if let Some(location) = response
            .headers()
            .get(LOCATION)
            .filter(|_| status.is_redirection())
        {
            let location = location
                .to_str()
                .map_err(|_| "a redirection to nowhere".to_owned())?;
            url = match location.starts_with('/') {
                true => parse_url(&format!("{}{location}", authority(&url)))?,
                false => parse_url(location)?,
            };
            continue;
        }
        if !status.is_success() {
            let reason = status.canonical_reason().unwrap_or_default();
            return Err(format!(
                "server returned error: HTTP/1.1 {} {reason}",
                status.as_u16()
            ));
        }
        return match asked.spider {
            true => Ok(()),
            false => save(asked, &url, response).await,
        };
    }
    Err("too many redirections".to_owned())
}

fn parse_url(text: &str) -> Result<Uri, String> {
    let full = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let url: Uri = full.parse().map_err(|_| format!("bad address '{text}'"))?;
    match (url.scheme_str(), url.host()) {
        (Some("http"), Some(_)) => Ok(url),
        (Some("http"), None) => Err(format!("bad address '{text}'")),
        _ => Err(format!("not an http URL: {text} (this wget has no TLS)")),
    }
}

fn authority(url: &Uri) -> &str {
    url.authority().map_or("", |a| a.as_str())
}

async fn request(asked: &Asked, url: &Uri) -> Result<Response<Incoming>, String> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(80);
    let connecting = TcpStream::connect((host, port)).await;
    let stream =
        connecting.map_err(|e| format!("can't connect to remote host ({host}:{port}): {e}"))?;
    if !asked.quiet {
        complain(&format!(
            "Connecting to {} ({})",
            authority(url),
            peer(&stream)
        ));
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(if asked.post.is_some() { "POST" } else { "GET" })
        .uri(url.path_and_query().map_or("/", |p| p.as_str()))
        .header(HOST, authority(url))
        .header(USER_AGENT, "Wget")
        .body(Full::new(Bytes::from(
            asked.post.clone().unwrap_or_default(),
        )))
        .map_err(|e| e.to_string())?;
    for (name, value) in &asked.headers {
        let name = HeaderName::try_from(name).map_err(|_| format!("bad header {name:?}"))?;
        let value = HeaderValue::try_from(value).map_err(|_| format!("bad header {value:?}"))?;
        request.headers_mut().insert(name, value);
    }
    let answer = sender.send_request(request).await;
    answer.map_err(|e| format!("error getting response: {e}"))
}

fn peer(stream: &TcpStream) -> String {
    stream
        .peer_addr()
        .map_or_else(|_| String::new(), |a| a.to_string())
}

/// The answer's header on standard error, indented by two, as scripts that look for the status expect.
fn show_headers(response: &Response<Incoming>) {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    complain(&format!("  HTTP/1.1 {} {reason}", status.as_u16()));
    for (name, value) in response.headers() {
        complain(&format!(
            "  {name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
}

/// Writes the body to `-O`'s file, to standard output for `-`, or to a file named as the URL's end.
async fn save(asked: &Asked, url: &Uri, response: Response<Incoming>) -> Result<(), String> {
    let last = url
        .path()
        .rsplit('/')
        .next()
        .filter(|name| !name.is_empty());
    let file = asked
        .output
        .as_deref()
        .unwrap_or(last.unwrap_or("index.html"));
    let mut to: Box<dyn Write> = match file {
        "-" => Box::new(std::io::stdout()),
        _ => {
            Box::new(std::fs::File::create(file).map_err(|e| format!("can't open '{file}': {e}"))?)
        }
    };
    let mut body = response.into_body();
    loop {
        let next = timeout(asked.patience, body.frame()).await;
        let Some(frame) = next.map_err(|_| "download timed out".to_owned())? else {
            break;
        };
        let frame = frame.map_err(|e| format!("connection closed prematurely: {e}"))?;
        if let Some(data) = frame.data_ref() {
            to.write_all(data)
                .map_err(|e| format!("can't write '{file}': {e}"))?;
        }
    }
    to.flush()
        .map_err(|e| format!("can't write '{file}': {e}"))?;
    if !asked.quiet && file != "-" {
        complain(&format!("'{file}' saved"));
    }
    Ok(())
}
