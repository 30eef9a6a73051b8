//! [`Ended`]: when conntrack is looked through for connections of pods that are gone, and what that may cost.
//!
//! The plugin notes addresses that are given back; before it gives one again, those connections must be gone
//! ([`parfait_cni::ipam::forget_ended`]). For no more than a tenth of the time: what that puts off is for the next turn,
//! or the plugin does it itself.

use std::path::Path;
use std::time::{Duration, Instant};

use parfait_cni::ipam;
use parfait_kernel::Netfilter;

/// How much longer than listing and removing took, nothing is listed again.
const PAUSE: u32 = 9;

/// What takes less is not counted.
const CHEAP: Duration = Duration::from_millis(5);

/// When this was done last.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    not_before: Option<Instant>,
    /// Why it could not be done, as it was told.
    told: String,
}

impl Ended {
    /// Whether that is done, or for the next turn. What fails is told, and left to the plugin.
    pub(crate) fn tend(&mut self, state_dir: &Path, netfilter: &mut impl Netfilter) -> bool {
        let now = Instant::now();
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return false;
        }
        let forgotten = ipam::forget_ended(state_dir, netfilter);
        let took = now.elapsed();
        self.not_before = (took > CHEAP).then(|| Instant::now() + took * PAUSE);
        match forgotten {
            Ok(0) => {}
            Ok(count) => tracing::info!(removed = count, "connections of pods that are gone"),
            Err(error) => {
                let error = error.to_string();
                if self.told != error {
                    tracing::warn!("connections of pods that are gone are not removed: {error}");
                }
                self.told = error;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use parfait_kernel::FakeNetfilter;
    use parfait_linux::conntrack::{Entry, Tuple};

    use super::*;

    fn between(source: &str, destination: &str) -> Entry {
        let tuple = |source: &str, destination: &str| Tuple {
            protocol: 6,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            icmp: None,
        };
        Entry {
            original: tuple(source, destination),
            reply: tuple(destination, source),
            status: 2,
            state: 3,
            expires: 100,
            zone: 0,
            id: 1,
            midway: false,
        }
    }

    #[test]
    fn connections_of_pods_that_are_gone_go_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let ended = folder.path().join("ipam/ended");
        std::fs::create_dir_all(&ended).unwrap();
        std::fs::write(ended.join("10.244.1.3,fd00:10:244:1::3"), "").unwrap();
        let mut netfilter = FakeNetfilter::default();
        let stays = between("10.244.1.2:40000", "192.0.2.1:80");
        netfilter.connections = vec![
            between("10.244.1.3:40000", "192.0.2.1:80"),
            stays.clone(),
            between("[fd00:10:244:2::2]:40000", "[fd00:10:244:1::3]:80"),
        ];
        assert!(Ended::default().tend(folder.path(), &mut netfilter));
        assert_eq!(netfilter.connections, [stays]);
        assert_eq!(std::fs::read_dir(&ended).unwrap().count(), 0);
    }
}
