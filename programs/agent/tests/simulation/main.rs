//! The agent's loop on a kernel in memory, under everything that can happen to it in any order: the
//! cluster changes, pods come and go by the CNI plugin (before or after the API server says so),
//! other programs change the kernel, system calls fail, another transaction comes between, the agent
//! is killed.
//!
//! The laws:
//! - whatever happens, what is foreign stays, and so do pods' links with all that works on them;
//! - when the world comes to rest, the agent does too, and every layer's proof finds nothing;
//! - an agent that is started anew then does nothing at all.
//!
//! `PARFAIT_SEED=NUMBER` repeats one run with its story; `PARFAIT_RUNS=NUMBER` says how many.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod changes;
#[path = "../../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod foreign;
#[path = "../../../../model/cluster/tests/fixture/changed.rs"]
mod news;
mod world;

use std::collections::BTreeSet;
use std::io::Write as _;

use parfait_agent::{Machine, Round, Upkeep, prove};
use parfait_cluster::Snapshot;
use parfait_kernel::{Call, FakeKernel, Kernel as _, Netfilter as _};
use rustix::io::Errno;

use world::{Racing, World};

const RUNS: u64 = 200;
const EVENTS: usize = 60;

/// Rounds within which an agent must come to rest once the world has.
const PATIENCE: usize = 6;

/// xorshift64*: a run is its seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % sides
    }

    fn pick<T: Clone>(&mut self, from: impl IntoIterator<Item = T>) -> Option<T> {
        let all: Vec<T> = from.into_iter().collect();
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }
}

#[test]
fn whatever_happens_the_agent_comes_to_rest_at_the_plan() {
    let number = |key: &str| std::env::var(key).ok().and_then(|text| text.parse().ok());
    let only = number("PARFAIT_SEED");
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..number("PARFAIT_RUNS").unwrap_or(RUNS),
    };
    let mut failures = Vec::new();
    let mut steps = 0;
    for seed in seeds {
        let mut run = Run::new(seed);
        let outcome = run.all();
        if only.is_some() || outcome.is_err() {
            let story = run.world.story.join("\n  ");
            writeln!(std::io::stderr(), "PARFAIT_SEED={seed}\n  {story}").unwrap();
        }
        steps += run.steps;
        failures.extend(
            outcome
                .err()
                .map(|law| format!("PARFAIT_SEED={seed}: {law}")),
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(steps > 0, "the agent did nothing in all runs");
}

/// One run of one seed.
struct Run {
    dice: Dice,
    world: World,
    agent: Upkeep<FakeKernel, Racing>,
    /// What the agent has been told so far.
    told: Snapshot,
    steps: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let world = World::new();
        let machine = Machine::new(FakeKernel::new(World::machine()), Racing::default());
        Self {
            dice: Dice::new(seed),
            world,
            agent: Upkeep::new("node-1", machine),
            told: Snapshot::default(),
            steps: 0,
        }
    }

    fn all(&mut self) -> Result<(), String> {
        for _ in 0..EVENTS {
            self.event()?;
        }
        self.rest()
    }

    fn event(&mut self) -> Result<(), String> {
        let dice = self.dice.below(100);
        let (kernel, netfilter) = self.agent.machine().parts();
        match dice {
            0..25 => self
                .world
                .cluster_changes(&mut self.dice, &mut kernel.state),
            25..45 => self.world.plugin_acts(&mut self.dice, &mut kernel.state)?,
            45..60 => {
                foreign::act(
                    &mut self.world,
                    &mut self.dice,
                    &mut kernel.state,
                    netfilter,
                );
            }
            60..66 => {
                let errnos = [Errno::NOBUFS, Errno::PERM, Errno::NETUNREACH, Errno::INTR];
                let errno = self.dice.pick(errnos).unwrap();
                let nth = self.dice.below(8);
                self.world
                    .tell(format!("call {nth} from now fails: {errno}"));
                match self.dice.below(3) {
                    0 => drop(
                        netfilter
                            .fake
                            .faults
                            .insert(netfilter.fake.calls + nth, errno),
                    ),
                    _ => drop(kernel.faults.insert(kernel.calls.len() + nth, errno)),
                }
            }
            66..69 => {
                self.world
                    .tell("another transaction will come between".to_owned());
                netfilter.races += 1 + self.dice.below(3);
            }
            69..73 => self.restart(),
            73..80 => {
                self.world.tell("the agent looks again".to_owned());
                self.agent.look_again();
                drop(self.round()?);
            }
            _ => drop(self.round()?),
        }
        Ok(())
    }

    /// The agent is killed and started.
    fn restart(&mut self) {
        self.world.tell("the agent starts anew".to_owned());
        let (kernel, netfilter) = self.agent.machine().parts();
        let machine = Machine::new(kernel.clone(), netfilter.clone());
        self.agent = Upkeep::new("node-1", machine);
    }

    /// One round of the agent, and what must hold after any.
    fn round(&mut self) -> Result<Option<Round>, String> {
        let snapshot = self.world.snapshot();
        let before = self.agent.machine().parts().0.calls.len();
        let changed = news::changed(&self.told, &snapshot);
        let round = self.agent.round(&snapshot, &changed);
        self.told = snapshot;
        if let Some(round) = &round {
            self.steps += round.steps;
            self.world.reported(round.underlay.as_ref());
            self.world.tell(format!(
                "round: {} steps, failures {:?}, put off {:?}",
                round.steps, round.failures, round.put_off
            ));
        }
        let (kernel, netfilter) = self.agent.machine().parts();
        for call in &kernel.calls[before..] {
            if let Call::Execute(step) = call {
                self.world.tell(format!("  {step}"));
            }
        }
        World::kernel_reacts(&mut kernel.state);
        self.world.nothing_is_lost(&kernel.state, &netfilter.fake)?;
        Ok(round)
    }

    /// The world comes to rest; so must the agent.
    fn rest(&mut self) -> Result<(), String> {
        let (kernel, netfilter) = self.agent.machine().parts();
        kernel.faults.clear();
        netfilter.fake.faults.clear();
        netfilter.races = 0;
        foreign::clear_the_way(&mut self.world, &mut kernel.state);
        if self.dice.below(2) == 0 {
            self.world.api_catches_up();
        }
        self.world
            .tell("everything rests; the agent looks again".to_owned());
        self.agent.look_again();
        let mut quiet = false;
        for _ in 0..PATIENCE {
            let told = self.world.snapshot();
            let round = self.round()?.ok_or("node-1 is gone")?;
            // What the agent reports comes back to it as a change.
            quiet = round.steps == 0 && !round.unfinished() && told == self.world.snapshot();
            if quiet {
                break;
            }
        }
        if !quiet {
            return Err("the agent does not come to rest".to_owned());
        }
        self.all_is_proved()?;
        self.a_restart_does_nothing()
    }

    fn all_is_proved(&mut self) -> Result<(), String> {
        let snapshot = self.world.snapshot();
        let plan = parfait_join::NodePlan::new(&snapshot, "node-1");
        let desired = plan.state();
        let (kernel, netfilter) = self.agent.machine().parts();
        let sysctls: Vec<_> = desired.sysctls.keys().cloned().collect();
        let mut observed = kernel
            .observe(&sysctls)
            .map_err(|error| error.to_string())?;
        let tables = netfilter
            .observe("parfait")
            .map_err(|error| error.to_string())?;
        observed.tables = tables.tables;
        let found = prove(&plan, &desired, &observed).sure;
        let found: BTreeSet<_> = found.iter().map(ToString::to_string).collect();
        match found.is_empty() {
            true => self.world.pods_are_whole(&observed),
            false => Err(format!("at rest, and still found: {found:#?}")),
        }
    }

    fn a_restart_does_nothing(&mut self) -> Result<(), String> {
        self.restart();
        let held = |agent: &mut Upkeep<FakeKernel, Racing>| {
            let (kernel, netfilter) = agent.machine().parts();
            (kernel.state.clone(), netfilter.fake.tables.clone())
        };
        let before = held(&mut self.agent);
        let round = self.round()?.ok_or("node-1 is gone")?;
        match round.steps == 0 && held(&mut self.agent) == before {
            true => Ok(()),
            false => Err(format!("a restart took {} steps", round.steps)),
        }
    }
}
