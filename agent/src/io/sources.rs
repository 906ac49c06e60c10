//! The agent's sources, as the loop has them: a task for each, what it is told, and what it is asked for.

use std::time::Instant;

use anyhow::Result;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::warn;

use super::config::Config;
use super::mqtt::{self, Handle, Told};
use crate::agent::Agent;
use crate::source::SourceId;

/// All sources of an agent, by their place in its configuration.
pub(super) struct Sources(Vec<Source>);

struct Source {
    handle: Handle,
    /// Whether there is anything to be connected for.
    wanted: watch::Sender<bool>,
    /// The connection that packets came on.
    connection: u64,
}

impl Sources {
    /// Starts a task for each. Fails on a configuration that cannot work.
    pub(super) fn start(
        config: &Config,
        agent: &Agent,
        told: &mpsc::Sender<(SourceId, Told)>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Self> {
        if config.is_of_before() {
            warn!(
                "`[broker]` is read by this version and not by the next; write it as `[[source]]` with type = \"mqtt\" \
                 and name = \"broker\""
            );
        }
        let rested = mqtt::Rested::new(Instant::now().into());
        let start = |id| {
            let wanted = watch::Sender::new(agent.wants_source(id));
            let (handle, task) =
                mqtt::subscribe(config, id, wanted.subscribe(), told.clone(), rested.clone())?;
            tasks.spawn(task);
            Ok(Source {
                handle,
                wanted,
                connection: 0,
            })
        };
        agent.sources().map(start).collect::<Result<_>>().map(Self)
    }

    /// What comes from a source now comes on this connection.
    pub(super) fn handle_connection(&mut self, source: SourceId, connection: u64) {
        self.0[source.index()].connection = connection;
    }

    /// Tells the sources what is settled, and asks them for what is wanted.
    pub(super) fn drain(&self, agent: &mut Agent) {
        while let Some((source, settled)) = agent.poll_settled() {
            let Source {
                handle, connection, ..
            } = &self.0[source.index()];
            handle.settle(*connection, settled);
        }
        for source in agent.sources() {
            let Source {
                handle,
                wanted,
                connection,
            } = &self.0[source.index()];
            while let Some(request) = agent.poll_source(source) {
                handle.request(*connection, request);
            }
            handle.flush();
            let wants = agent.wants_source(source);
            wanted.send_if_modified(|wanted| std::mem::replace(wanted, wants) != wants);
        }
    }

    /// Nothing more is to be read.
    pub(super) fn stop(&self) {
        for source in &self.0 {
            source.handle.stop();
        }
    }
}
