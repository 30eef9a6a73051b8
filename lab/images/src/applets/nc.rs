//! `nc`, as far as containers use it to wait for a port, to say something to it, or to listen.
//!
//! Takes `-z`, `-v`, `-n`, `-w SEC`, `-u`, `-N`, `-q SEC`, `-k`, `-l`, `-p PORT`, `-4`, `-6` and a host
//! and a port. Ends with 0 or 1. With `-l` it serves one connection, with `-lk` one after the other.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{Letters, run, seconds};
use crate::console::complain;
use crate::listen;

#[derive(Debug, Default)]
struct Asked {
    scan: bool,
    verbose: bool,
    udp: bool,
    listen: bool,
    keep: bool,
    family: Option<char>,
    wait: Option<Duration>,
    host: Option<String>,
    port: Option<u16>,
}

pub fn main(args: Vec<String>) -> ExitCode {
    let asked = match Asked::parse(args) {
        Ok(asked) => asked,
        Err(error) => {
            complain(&format!("nc: {error}"));
            return ExitCode::FAILURE;
        }
    };
    run("nc", async {
        match talk(&asked).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Like others, nc fails silently unless told to talk; but with -z the code is the answer.
                if asked.verbose || !asked.scan {
                    complain(&format!("nc: {error}"));
                }
                ExitCode::FAILURE
            }
        }
    })
}

impl Asked {
    fn parse(args: Vec<String>) -> Result<Asked, String> {
        let mut asked = Asked::default();
        let mut words = Vec::new();
        let mut letters = Letters::new(args);
        while let Some(next) = letters.next() {
            let letter = match next {
                Ok(letter) => letter,
                Err(word) => {
                    words.push(word);
                    continue;
                }
            };
            let mut value = || {
                letters
                    .value()
                    .ok_or_else(|| format!("-{letter} needs a value"))
            };
            match letter {
                'z' => asked.scan = true,
                'v' => asked.verbose = true,
                'u' => asked.udp = true,
                'l' => asked.listen = true,
                'k' => asked.keep = true,
                '4' | '6' => asked.family = Some(letter),
                'n' | 'N' | 't' => {}
                'w' | 'q' => {
                    let text = value()?;
                    let time = seconds(&text)
                        .ok_or_else(|| format!("{text:?} is no number of seconds"))?;
                    if letter == 'w' {
                        asked.wait = Some(time);
                    }
                }
                'p' => words.push(value()?),
                _ => return Err(format!("unknown option -{letter}")),
            }
        }
        let port = |text: &String| {
            let parsed = text.parse().ok().filter(|p: &u16| *p != 0);
            parsed.ok_or_else(|| format!("{text:?} is no port"))
        };
        match (asked.listen, words.as_slice()) {
            (true, [.., number]) => asked.port = Some(port(number)?),
            (false, [host, number]) => {
                asked.host = Some(host.clone());
                asked.port = Some(port(number)?);
            }
            _ => {
                return Err(
                    "usage: nc [-zvun46] [-w SEC] HOST PORT, or nc -l [-k] [-u] -p PORT".to_owned(),
                );
            }
        }
        Ok(asked)
    }
}

async fn talk(asked: &Asked) -> Result<(), String> {
    let Some(port) = asked.port else {
        return Err("no port".to_owned());
    };
    match (&asked.host, asked.udp) {
        (None, false) => serve(asked, port).await,
        (None, true) => serve_datagrams(port).await,
        (Some(host), udp) => {
            let address = find(host, port, asked.family).await?;
            match udp {
                true => say_datagrams(asked, address).await,
                false => say(asked, host, address).await,
            }
        }
    }
}

async fn find(host: &str, port: u16, family: Option<char>) -> Result<SocketAddr, String> {
    let found = tokio::net::lookup_host((host, port)).await;
    let mut found = found.map_err(|e| format!("bad address '{host}': {e}"))?;
    let wanted = |a: &SocketAddr| match family {
        Some('4') => matches!(a.ip(), IpAddr::V4(_)),
        Some(_) => matches!(a.ip(), IpAddr::V6(_)),
        None => true,
    };
    found
        .find(wanted)
        .ok_or_else(|| format!("'{host}' has no address of that family"))
}

async fn say(asked: &Asked, host: &str, address: SocketAddr) -> Result<(), String> {
    let wait = asked.wait.unwrap_or(Duration::from_secs(127));
    let failed = |error: String| format!("{host} ({address}): {error}");
    let connected = timeout(wait, TcpStream::connect(address)).await;
    let stream = connected
        .map_err(|_| failed("timed out".to_owned()))?
        .map_err(|e| failed(e.to_string()))?;
    if asked.verbose {
        complain(&format!("{host} ({address}) open"));
    }
    if asked.scan {
        return Ok(());
    }
    exchange(stream, asked.wait).await
}

/// Standard input there, what comes back to standard output, until the other side is done; with a time,
/// until that passes in silence after our side is.
async fn exchange(stream: TcpStream, wait: Option<Duration>) -> Result<(), String> {
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        let _ = copy(&mut tokio::io::stdin(), &mut write).await;
        let _ = write.shutdown().await;
    });
    receive(&mut read, &mut tokio::io::stdout(), wait).await?;
    sending.abort();
    Ok(())
}

async fn receive(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    wait: Option<Duration>,
) -> Result<(), String> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let reading = from.read(&mut buffer);
        let length = match wait {
            None => reading.await,
            Some(wait) => match timeout(wait, reading).await {
                Ok(read) => read,
                Err(_) => return Ok(()),
            },
        }
        .map_err(|e| e.to_string())?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length])
            .await
            .map_err(|e| e.to_string())?;
        to.flush().await.map_err(|e| e.to_string())?;
    }
}

async fn say_datagrams(asked: &Asked, address: SocketAddr) -> Result<(), String> {
    let any = match address {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let text = |e: std::io::Error| format!("{address}: {e}");
    let socket = UdpSocket::bind(any).await.map_err(text)?;
    socket.connect(address).await.map_err(text)?;
    let mut buffer = vec![0; 64 * 1024];
    if asked.scan {
        // Only a closed port says something, by ICMP.
        socket.send(&[]).await.map_err(text)?;
        let heard = timeout(Duration::from_millis(300), socket.recv(&mut buffer)).await;
        return match heard {
            Ok(Err(error)) => Err(text(error)),
            Ok(Ok(_)) | Err(_) => Ok(()),
        };
    }
    let mut said = Vec::new();
    tokio::io::stdin()
        .read_to_end(&mut said)
        .await
        .map_err(text)?;
    socket.send(&said).await.map_err(text)?;
    let wait = asked.wait.unwrap_or(Duration::from_secs(1));
    while let Ok(heard) = timeout(wait, socket.recv(&mut buffer)).await {
        let length = heard.map_err(text)?;
        let mut out = tokio::io::stdout();
        out.write_all(&buffer[..length]).await.map_err(text)?;
        out.flush().await.map_err(text)?;
    }
    Ok(())
}

async fn serve(asked: &Asked, port: u16) -> Result<(), String> {
    let listener = listen::tcp(port).map_err(|e| e.to_string())?;
    let listener = TcpListener::from_std(listener).map_err(|e| e.to_string())?;
    loop {
        let (stream, peer) = listener.accept().await.map_err(|e| e.to_string())?;
        if asked.verbose {
            complain(&format!("connect from {peer}"));
        }
        exchange(stream, asked.wait).await?;
        if !asked.keep {
            return Ok(());
        }
    }
}

async fn serve_datagrams(port: u16) -> Result<(), String> {
    let socket = listen::udp(port).map_err(|e| e.to_string())?;
    let socket = UdpSocket::from_std(socket).map_err(|e| e.to_string())?;
    let mut buffer = vec![0; 64 * 1024];
    let mut out = tokio::io::stdout();
    loop {
        let (length, _) = socket
            .recv_from(&mut buffer)
            .await
            .map_err(|e| e.to_string())?;
        out.write_all(&buffer[..length])
            .await
            .map_err(|e| e.to_string())?;
        out.flush().await.map_err(|e| e.to_string())?;
    }
}
