//! The few calls of the Container Runtime Interface that a kubelet makes for a sandbox: gRPC over a unix
//! socket (HTTP/2 by the `h2` crate), with the handful of protobuf fields written by hand. Field
//! numbers: `k8s.io/cri-api/pkg/apis/runtime/v1/api.proto`.

use std::path::{Path, PathBuf};

use http::Request;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Where the runtime listens.
#[derive(Clone)]
pub struct Cri {
    socket: PathBuf,
    logs: PathBuf,
    cgroup: String,
}

/// What became of a sandbox's network.
#[derive(Debug)]
pub struct Sandbox {
    pub id: String,
    pub addresses: Vec<String>,
}

impl Cri {
    /// Sandboxes' logs go to that folder, their processes below that control group.
    pub fn new(socket: &Path, logs: &Path, cgroup: String) -> Self {
        Self {
            socket: socket.to_path_buf(),
            logs: logs.to_path_buf(),
            cgroup,
        }
    }

    /// RunPodSandbox, and its addresses by PodSandboxStatus.
    pub async fn run(&self, name: &str) -> Result<Sandbox, Failure> {
        let mut metadata = Message::default();
        metadata
            .text(1, name)
            .text(2, &format!("uid-{name}"))
            .text(3, "default");
        let mut linux = Message::default();
        linux.text(1, &self.cgroup);
        let mut config = Message::default();
        config
            .inner(1, &metadata)
            .text(2, name)
            .text(3, &self.logs.display().to_string());
        config.inner(8, &linux);
        let mut request = Message::default();
        request.inner(1, &config);
        let answer = self.call("RunPodSandbox", &request).await?;
        let id = texts(&answer, 1).pop().ok_or("no sandbox identifier")?;
        let addresses = self.addresses(&id).await?;
        Ok(Sandbox { id, addresses })
    }

    pub async fn addresses(&self, id: &str) -> Result<Vec<String>, Failure> {
        let answer = self.call("PodSandboxStatus", &by_id(id)).await?;
        let status = fields(&answer, 1).pop().ok_or("no status")?;
        let network = fields(&status, 5).pop().unwrap_or_default();
        let mut addresses = texts(&network, 1);
        for more in fields(&network, 2) {
            addresses.extend(texts(&more, 1));
        }
        Ok(addresses)
    }

    pub async fn stop(&self, id: &str) -> Result<(), Failure> {
        self.call("StopPodSandbox", &by_id(id)).await.map(drop)
    }

    pub async fn remove(&self, id: &str) -> Result<(), Failure> {
        self.call("RemovePodSandbox", &by_id(id)).await.map(drop)
    }

    /// Whether runtime and network are ready (Status, condition by condition).
    pub async fn ready(&self) -> Result<bool, Failure> {
        let answer = self.call("Status", &Message::default()).await?;
        let status = fields(&answer, 1).pop().unwrap_or_default();
        let conditions = fields(&status, 1);
        // A false `status` (2) is left out on the wire.
        let all = conditions
            .iter()
            .all(|condition| number(condition, 2) == Some(1));
        Ok(conditions.len() == 2 && all)
    }

    async fn call(&self, method: &str, message: &Message) -> Result<Vec<u8>, Failure> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await?;
        let (client, connection) = h2::client::handshake(stream).await?;
        let driver = tokio::spawn(connection);
        let mut client = client.ready().await?;
        let request = Request::post(format!(
            "http://localhost/runtime.v1.RuntimeService/{method}"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
        let (response, mut body) = client.send_request(request, false)?;
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.0.len())?.to_be_bytes());
        frame.extend(&message.0);
        body.send_data(frame.into(), true)?;
        let response = response.await?;
        let early = failure(method, response.headers());
        let mut body = response.into_body();
        let mut answer = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            answer.extend(&chunk);
        }
        let trailers = body.trailers().await?.unwrap_or_default();
        driver.abort();
        match early.or_else(|| failure(method, &trailers)) {
            Some(error) => Err(error.into()),
            None => Ok(answer.split_off(5.min(answer.len()))),
        }
    }
}

fn failure(method: &str, headers: &http::HeaderMap) -> Option<String> {
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
    };
    let status = text("grpc-status").filter(|status| status != "0")?;
    Some(format!(
        "{method}: {status} {}",
        text("grpc-message").unwrap_or_default()
    ))
}

fn by_id(id: &str) -> Message {
    let mut message = Message::default();
    message.text(1, id);
    message
}

/// A protobuf message while it is written. Only lengths and tags: no number is ever sent.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(&mut self, field: u8, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    fn inner(&mut self, field: u8, message: &Self) -> &mut Self {
        self.bytes(field, &message.0)
    }

    fn bytes(&mut self, field: u8, bytes: &[u8]) -> &mut Self {
        self.0.push(field << 3 | 2);
        let mut length = bytes.len();
        while length > 127 {
            self.0.push((length & 127) as u8 | 128);
            length >>= 7;
        }
        self.0.push(length as u8);
        self.0.extend(bytes);
        self
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn read(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut found = Vec::new();
    while let Some(tag) = varint(&mut bytes) {
        let value = match tag & 7 {
            0 => varint(&mut bytes).map(Value::Number),
            2 => varint(&mut bytes).and_then(|length| {
                let (value, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
                bytes = rest;
                Some(Value::Bytes(value))
            }),
            _ => None,
        };
        let Some(value) = value else { break };
        found.push((tag >> 3, value));
    }
    found
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 127) << shift;
        if first & 128 == 0 {
            return Some(value);
        }
    }
    None
}

fn fields(bytes: &[u8], field: u64) -> Vec<Vec<u8>> {
    let all = read(bytes)
        .into_iter()
        .filter(|(number, _)| *number == field);
    all.filter_map(|(_, value)| match value {
        Value::Bytes(bytes) => Some(bytes.to_vec()),
        Value::Number(_) => None,
    })
    .collect()
}

fn texts(bytes: &[u8], field: u64) -> Vec<String> {
    let all = fields(bytes, field).into_iter();
    all.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

fn number(bytes: &[u8], field: u64) -> Option<u64> {
    read(bytes)
        .into_iter()
        .find_map(|(number, value)| match value {
            Value::Number(value) if number == field => Some(value),
            _ => None,
        })
}
