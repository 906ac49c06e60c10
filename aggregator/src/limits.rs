//! Every bound of the aggregator, on one page, with its reason.

use catchment_common::time::Span;

/// Most agents that may be connected.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Most agents that are remembered. Forgetting one is for an operator to decide, so this is far above any fleet.
pub const AGENTS_MAX: usize = 100_000;
/// Most epochs remembered of one agent: one for each of its starts that delivered something.
pub const EPOCHS_MAX: usize = 100_000;
/// Most ranges of one epoch's seqs. Batches come nearly in order, so an agent has two or three while its backlog drains.
pub const EPOCH_RANGES_MAX: usize = 1 << 14;
/// Most ranges of all epochs of one agent: each has one in the end.
pub const AGENT_RANGES_MAX: usize = 1 << 18;
/// Largest seq: at a thousand batches a second no epoch comes to it, and it is a number for SQLite.
pub const SEQ_MAX: u64 = i64::MAX as u64;
/// Largest number that an agent may say of itself, such as a counter or the size of its backlog; more counts as this
/// much. A thousand of them can be added in 64 bits.
pub const CLAIM_MAX: u64 = 1 << 53;
/// Epochs of an agent that are remembered to have greeted, newest first: enough to tell a second agent with the same
/// name from restarts of the one.
pub const EPOCHS_GREETED_MAX: usize = 16;
/// Lineages of an agent's state that are remembered, the newest first: one for each time that its state was new, or an
/// older copy was told to begin anew.
pub const LINEAGES_MAX: usize = 64;
/// Acknowledgements gathered for one commit: duplicates cost no journal, and must not cost unbounded memory either.
pub const ACKS_MAX: usize = 1 << 20;
/// Bytes that a loss record counts for towards [`COMMIT_BYTES_MAX`], for each entry.
pub const LOSS_ENTRY_BYTES: usize = 64;
/// Bytes of batches gathered for one commit; when as many wait, no more frames are taken until it is durable.
pub const COMMIT_BYTES_MAX: usize = 16 << 20;
/// Bytes of appended batches after which a checkpoint is taken before its time.
pub const JOURNAL_BYTES_MAX: usize = 64 << 20;
/// Rows of windows that have become due, for one commit; the window that reaches it is shown whole, the others with the
/// next commits. After a long outage all its windows are due at once, and live batches would wait for millions of rows.
pub const DUE_ROWS_MAX: usize = 1 << 15;
/// Panes of keys that one commit merges for windows with late data: some 50 ms. The window that reaches it is revised
/// whole, the others with the next commits.
pub const REVISED_PIECES_MAX: usize = 1 << 19;
/// Panes that one commit brings back into memory for windows with late data: half a second of an ordinary disk.
pub const REVISED_LOADS_MAX: usize = 1 << 15;
/// What bringing a pane into memory costs, in pieces to be merged.
pub const LOAD_PIECES: usize = 64;
/// Pieces that cost so little that nobody waits after them.
pub const REVISED_PIECES_FREE: usize = 1 << 14;
/// How long revisions rest after each piece, in nanoseconds: three times what it costs. Late data that comes meanwhile for
/// the same windows costs nothing more, and a wide plan leaves three quarters of the time to live data.
pub const REVISED_PIECE_REST_NS: u64 = 300;
/// Stretches of windows to revise that may wait, over all queries and keys; when as many do, no more frames are taken.
pub const UNREVISED_MAX: usize = 1 << 17;
/// How far a watermark may be ahead of the aggregator's clock: what clocks that are set by NTP may differ by, and more.
pub const WATERMARK_AHEAD_MAX: Span = Span::from_secs(5);
/// How many seconds retention may catch up in each second, once the clock and the data allow it: after a stop of a day
/// it is up to date within half an hour, and a clock that is days ahead for a minute costs an hour.
pub const RETENTION_PACE: i64 = 60;
/// How often dirty panes are written as columns.
pub const CHECKPOINT_INTERVAL: Span = Span::from_secs(5);
/// Things that nobody waits for (counters, last-heard) are committed this often.
pub const LAZY_COMMIT_INTERVAL: Span = Span::from_secs(1);
/// After a failed commit, or when a pane that it needs could not be read, the next attempt waits this long.
pub const COMMIT_RETRY: Span = Span::from_secs(1);
/// Statements about watermarks that may wait, for each agent, for their batches.
pub const STATEMENTS_MAX: usize = 16;
/// Moments remembered of how the foremost watermark advanced, for each query.
pub const FRONT_MOMENTS_MAX: usize = 1_024;
/// Agents that are connected run a new plan by so long after it was put into force: the server looks for one each second,
/// and the rest is for links that are slow.
pub const PLAN_ROLLOUT: Span = Span::from_secs(5);
/// Most rows of one page of an answer: a few megabytes of the widest rows. Whoever wants more asks for the next page.
pub const PAGE_ROWS_MAX: usize = 1_000;
/// Most changes that are kept for a reader of the feed; one that falls farther behind must read the tables anew, which is
/// less than that to read. About 100 bytes each, and at most a key's length more.
pub const CHANGES_MAX: u64 = 1 << 20;
/// Changes that a commit removes besides as many as it adds: some 10 ms.
pub const CHANGES_REMOVED_MAX: u64 = 1 << 14;
/// Most changes that are read at once.
pub const CHANGES_READ_MAX: usize = 1 << 12;
/// Most readers of the feed: each commit looks for the one that is farthest behind.
pub const CURSORS_MAX: usize = 64;
/// Most bytes of a cursor's name.
pub const CURSOR_NAME_MAX: usize = 64;
/// Bytes of panes that stay in memory, unless the configuration says otherwise.
pub const MEMORY_DEFAULT: usize = 1 << 30;
/// The least that the configuration may say: the panes of one commit, and those of the windows that it shows.
pub const MEMORY_MIN: usize = 16 << 20;
/// What a pane takes besides its rows, about.
pub const PANE_BYTES: usize = 256;
/// What a row of a pane takes besides its partials and sketches, about: its number, its readings, its place in the index.
pub const ROW_BYTES: usize = 32;
/// What a key takes besides its bytes, about.
pub const KEY_BYTES: usize = 64;
/// What an entry of a sketch takes, about.
pub const SKETCH_ENTRY_BYTES: usize = 24;
/// Most keys of one chunk of a stored pane: those of one section.
pub const CHUNK_KEYS_MAX: usize = catchment_common::limits::BATCH_DELTAS_MAX;
/// The longest session that is shown whole even if it is longer than `retention`: panes of sessions stay so much longer,
/// because a session is known by its panes alone until it ends.
pub const SESSION_LONGEST: Span = Span::from_days(7);
/// How many gaps before the horizon the panes of sessions stay in memory; longer sessions load theirs when they end.
pub const SESSION_GAPS_KEPT: i64 = 32;
/// Windows that are provisional at once, for each query. Beyond it the oldest keep their status until data revises
/// them.
pub const PROVISIONAL_MAX: usize = 100_000;
