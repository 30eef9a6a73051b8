//! [`Predecessor`]: a program whose rules are removed once the agent's own stand, because an operator said so.
//!
//! Without being told, the agent changes nothing of others': what is there is a finding. What exactly is another's, the
//! transport layer says ([`parfait_transport::kube_proxy`]).

use std::fmt;

use parfait_kernel::Netfilter;
use parfait_kernel::nft::Error;
use parfait_linux::nft::NftStep;
use parfait_transport::kube_proxy::leftovers;

/// How often it is tried anew because somebody changed a ruleset meanwhile.
const TRIES: usize = 5;

/// A program that did before what the agent does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// kube-proxy, in whatever mode.
    KubeProxy,
}

impl fmt::Display for Predecessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KubeProxy => f.write_str("kube-proxy"),
        }
    }
}

/// Removes what is there of it, in one transaction. Gives what that was, in words.
pub(crate) fn take_over(
    Predecessor::KubeProxy: Predecessor,
    netfilter: &mut impl Netfilter,
) -> Result<Vec<String>, Error> {
    for _ in 0..TRIES {
        let (observed, handles) = netfilter.survey()?;
        let left = leftovers(&observed.tables);
        let steps: Vec<NftStep> = left.iter().flat_map(|l| l.steps(&handles)).collect();
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        match netfilter.execute_at(&steps, observed.generation) {
            Ok(()) => return Ok(left.iter().map(|leftover| leftover.what()).collect()),
            Err(Error::Changed) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::Changed)
}
