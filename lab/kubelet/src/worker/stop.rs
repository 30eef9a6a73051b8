//! Ending a container: the hook, SIGTERM, the grace period, SIGKILL.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use tokio::time::Instant;

use super::{Input, Worker};
use crate::container::ExecSpec;
use crate::probes::http;
use crate::runtime;

/// What a container gets in any case, so that a grace of 0 is not a SIGKILL out of the blue.
const LEAST_GRACE: Duration = Duration::from_secs(1);

/// Longer than any lab is up: a year.
const MOST_GRACE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A hook, ready to run.
struct Hook {
    handler: LifecycleHandler,
    container: Container,
    address: Option<std::net::IpAddr>,
    exec: ExecSpec,
    program: PathBuf,
}

impl Hook {
    async fn run(self, timeout: Duration) -> Result<(), String> {
        if let Some(exec) = self.handler.exec {
            let spec = ExecSpec {
                argv: exec.command.unwrap_or_default(),
                ..self.exec
            };
            return runtime::exec(&self.program, spec, timeout).await;
        }
        if let Some(sleep) = self.handler.sleep {
            tokio::time::sleep(
                timeout.min(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())),
            )
            .await;
            return Ok(());
        }
        if let Some(get) = self.handler.http_get {
            let request = http::Request::of(&get, &self.container, self.address)?;
            let asked = tokio::time::timeout(timeout, http::ask(&request)).await;
            return asked.map_err(|_| "no answer in time".to_owned())?;
        }
        Err("the hook has no handler: give one of exec, httpGet, sleep".to_owned())
    }
}

impl Worker {
    /// Begins to end a container, with `grace` seconds. Its exit comes to the inbox.
    pub(super) fn stop(&mut self, name: &str, grace: u64, message: &str) {
        let container = self.container(name);
        if let Some(track) = self.book.track_mut(name) {
            if track.stopping {
                return;
            }
            track.stopping = true;
        }
        let pre_stop = container.as_ref().and_then(|c| {
            let handler = c.lifecycle.as_ref()?.pre_stop.clone()?;
            self.hook(c, handler)
        });
        let signal = container
            .as_ref()
            .and_then(|c| c.lifecycle.as_ref()?.stop_signal.as_deref())
            .map_or(libc::SIGTERM, signal_number);
        let Some(live) = self.live.get_mut(name) else {
            return;
        };
        self.kubelet
            .recorder
            .normal(&self.pod, Some(name), "Killing", message);
        let hand = live.hand.clone();
        let grace = grace_of(grace);
        let (recorder, pod, whose) = (
            self.kubelet.recorder.clone(),
            self.pod.clone(),
            name.to_owned(),
        );
        let task = tokio::spawn(async move {
            let deadline = Instant::now() + grace;
            if let Some(hook) = pre_stop
                && let Err(error) = hook.run(grace).await
            {
                let message = format!("PreStopHook failed: {error}");
                recorder.warning(&pod, Some(&whose), "FailedPreStopHook", &message);
            }
            hand.signal(signal).await;
            tokio::time::sleep_until(deadline.max(Instant::now() + LEAST_GRACE)).await;
            hand.signal(libc::SIGKILL).await;
        });
        live.tasks.push(task.abort_handle());
    }

    /// What runs must end within `seconds`, whatever it was told before.
    pub(super) fn hurry(&mut self, seconds: u64) {
        self.grace = Some(i64::try_from(seconds).unwrap_or(i64::MAX));
        let grace = grace_of(seconds);
        for live in self.live.values_mut() {
            let hand = live.hand.clone();
            let task = tokio::spawn(async move {
                tokio::time::sleep(grace).await;
                hand.signal(libc::SIGKILL).await;
            });
            live.tasks.push(task.abort_handle());
        }
    }

    /// Runs the `postStart` hook, if there is one, beside the container.
    pub(super) fn begin_post_start(&mut self, container: &Container) {
        let handler = container
            .lifecycle
            .as_ref()
            .and_then(|l| l.post_start.clone());
        let Some(hook) = handler.and_then(|h| self.hook(container, h)) else {
            return;
        };
        let Some(live) = self.live.get_mut(&container.name) else {
            return;
        };
        let (outbox, name, attempt) = (self.outbox.clone(), container.name.clone(), live.attempt);
        let task = tokio::spawn(async move {
            if let Err(message) = hook.run(Duration::from_secs(3600)).await {
                let _ = outbox.send(Input::HookFailed {
                    container: name,
                    attempt,
                    message,
                });
            }
        });
        live.tasks.push(task.abort_handle());
    }

    fn hook(&self, container: &Container, handler: LifecycleHandler) -> Option<Hook> {
        Some(Hook {
            handler,
            container: container.clone(),
            address: self.addresses.pod.first().copied(),
            exec: self.live.get(&container.name)?.exec.clone(),
            program: self.kubelet.paths.parfait(),
        })
    }
}

/// A grace period that can be added to any time: a manifest may ask for 300 thousand million years.
fn grace_of(seconds: u64) -> Duration {
    Duration::from_secs(seconds).clamp(LEAST_GRACE, MOST_GRACE)
}

/// `lifecycle.stopSignal`, of which the common ones are known.
fn signal_number(name: &str) -> i32 {
    match name.trim_start_matches("SIG") {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "KILL" => libc::SIGKILL,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "WINCH" => libc::SIGWINCH,
        _ => libc::SIGTERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_period_of_any_length_can_be_waited_for() {
        for seconds in [0, 30, u64::from(u32::MAX), u64::MAX] {
            assert!(Instant::now().checked_add(grace_of(seconds)).is_some());
        }
        assert_eq!(grace_of(30), Duration::from_secs(30));
        assert_eq!(grace_of(0), LEAST_GRACE);
    }
}
