//! Asking a container's probes, and what follows from their answers.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Heard, Input, Worker};
use crate::container::ExecSpec;
use crate::probes::{self, Counter, Handler, Kind, Timing};
use crate::runtime;

/// Between silent tries, before the first success. An exec costs more than a connection.
const EAGER: Duration = Duration::from_millis(100);
const EAGER_EXEC: Duration = Duration::from_millis(400);

/// One probe of one run of a container.
struct Asking {
    container: String,
    attempt: u32,
    kind: Kind,
    timing: Timing,
    handler: Handler,
    exec: ExecSpec,
    program: PathBuf,
    outbox: mpsc::UnboundedSender<Input>,
}

impl Worker {
    /// Starts the startup probe, or the others if there is none.
    pub(super) fn begin_probes(&mut self, container: &Container) {
        if let Some(probe) = &container.startup_probe {
            self.begin_probe(container, Kind::Startup, probe);
            return;
        }
        if let Some(probe) = &container.readiness_probe {
            self.begin_probe(container, Kind::Readiness, probe);
        }
        if let Some(probe) = &container.liveness_probe {
            self.begin_probe(container, Kind::Liveness, probe);
        }
    }

    fn begin_probe(&mut self, container: &Container, kind: Kind, probe: &Probe) {
        let address = self.addresses.pod.first().copied();
        let handler = match probes::handler(probe, container, address) {
            Ok(handler) => handler,
            Err(message) => {
                let text = format!("{} probe cannot be asked: {message}", kind.as_str());
                self.warn_once(&container.name, "Unhealthy", &text);
                return;
            }
        };
        let Some(live) = self.live.get_mut(&container.name) else {
            return;
        };
        let asking = Asking {
            container: container.name.clone(),
            attempt: live.attempt,
            kind,
            timing: Timing::of(probe),
            handler,
            exec: live.exec.clone(),
            program: self.kubelet.paths.parfait(),
            outbox: self.outbox.clone(),
        };
        live.tasks.push(tokio::spawn(asking.go_on()).abort_handle());
    }

    pub(super) fn hear_probe(&mut self, name: &str, kind: Kind, heard: Heard) {
        let Some(container) = self.container(name) else {
            return;
        };
        match (heard, kind) {
            (Heard::Failed(message), _) => {
                let text = format!("{} probe failed: {message}", kind.as_str());
                self.warn(name, "Unhealthy", &text);
            }
            (Heard::Verdict(true), Kind::Startup) => {
                if let Some(track) = self.book.track_mut(name) {
                    track.startup_passed();
                }
                let rest = Container {
                    startup_probe: None,
                    ..container
                };
                self.begin_probes(&rest);
            }
            (Heard::Verdict(ready), Kind::Readiness) => {
                if let Some(track) = self.book.track_mut(name) {
                    track.ready = ready;
                }
            }
            (Heard::Verdict(true), Kind::Liveness) => {}
            (Heard::Verdict(false), Kind::Startup | Kind::Liveness) => {
                let probe = match kind {
                    Kind::Startup => &container.startup_probe,
                    Kind::Readiness | Kind::Liveness => &container.liveness_probe,
                };
                let own = probe
                    .as_ref()
                    .and_then(|p| p.termination_grace_period_seconds);
                let grace = own.map_or(self.grace_of_pod(), |s| s.max(0).unsigned_abs());
                let word = kind.as_str().to_lowercase();
                let message = format!("Container {name} failed {word} probe, will be restarted");
                self.stop(name, grace, &message);
            }
        }
    }
}

impl Asking {
    async fn go_on(self) {
        tokio::time::sleep(self.timing.initial_delay).await;
        let mut counter = Counter::new(&self.timing);
        let mut eager = self.kind != Kind::Liveness && self.timing.success_threshold == 1;
        loop {
            let next = Instant::now() + self.timing.period;
            let mut answer = self.ask().await;
            if answer.is_err() && eager {
                if !self.tell(Heard::Failed(answer.err().unwrap_or_default())) {
                    return;
                }
                if let Some(verdict) = counter.count(false)
                    && !self.tell(Heard::Verdict(verdict))
                {
                    return;
                }
                if !self.try_until(next).await {
                    continue;
                }
                answer = Ok(());
            }
            eager &= answer.is_err();
            let success = answer.is_ok();
            if let Err(message) = answer
                && !self.tell(Heard::Failed(message))
            {
                return;
            }
            if let Some(verdict) = counter.count(success) {
                if !self.tell(Heard::Verdict(verdict)) {
                    return;
                }
                if self.kind == Kind::Startup && verdict {
                    return;
                }
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Tries silently until `end`. True: it has succeeded.
    async fn try_until(&self, end: Instant) -> bool {
        let pause = match self.handler {
            Handler::Exec(_) => EAGER_EXEC,
            _ => EAGER,
        };
        while Instant::now() + pause < end {
            tokio::time::sleep(pause).await;
            if self.ask().await.is_ok() {
                return true;
            }
        }
        tokio::time::sleep_until(end).await;
        false
    }

    async fn ask(&self) -> Result<(), String> {
        let timeout = self.timing.timeout;
        let network = async {
            match &self.handler {
                Handler::Http(request) => probes::http::ask(request).await,
                Handler::Tcp(to) => probes::tcp::ask(*to).await,
                Handler::Grpc { to, service } => probes::grpc::ask(*to, service).await,
                Handler::Exec(argv) => {
                    let spec = ExecSpec {
                        argv: argv.clone(),
                        ..self.exec.clone()
                    };
                    runtime::exec(&self.program, spec, timeout).await
                }
            }
        };
        match tokio::time::timeout(timeout + Duration::from_millis(50), network).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
        }
    }

    /// False: nobody listens any more.
    fn tell(&self, heard: Heard) -> bool {
        let input = Input::Probe {
            container: self.container.clone(),
            attempt: self.attempt,
            kind: self.kind,
            heard,
        };
        self.outbox.send(input).is_ok()
    }
}
