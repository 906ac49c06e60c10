//! The statements of the result tables as they are: with the columns of today's plan, and those that earlier plans had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catchment_common::plan::Query;
use catchment_common::wire;
use rusqlite::Connection;

use crate::io::store::tables::TableSql;

/// The statements of these queries, in their order.
pub(super) fn of(connection: &Connection, queries: &[Query]) -> rusqlite::Result<Arc<[TableSql]>> {
    let mut former = Vec::new();
    for query in queries {
        let table = TableSql::new(query);
        let is_shown = |name: &str| table.values.iter().any(|(value, _)| value == name);
        let columns = columns(connection, &query.name)?.into_keys();
        let others = columns.filter(|name| !is_shown(name) && !table.is_fixed(name));
        former.push(Former {
            query,
            unknown: others.collect(),
            known: Vec::new(),
        });
    }
    trace(connection, &mut former)?;
    let complete = { former.into_iter() }.map(|former| TableSql::with_former(former.query, former.known));
    Ok(complete.collect())
}

/// The columns of a table, each with its place in the primary key, 0 for none.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<BTreeMap<String, i64>> {
    let mut statement = connection.prepare(&format!("PRAGMA table_info(\"{table}\")"))?;
    let columns = statement.query_map([], |row| {
        Ok((row.get::<_, String>("name")?, row.get::<_, i64>("pk")?))
    })?;
    columns.collect()
}

/// The columns of a query's table that its plan does not have: those that an earlier plan had, and others.
struct Former<'q> {
    query: &'q Query,
    unknown: BTreeSet<String>,
    known: Vec<String>,
}

/// Finds the columns that earlier plans had. One that none had was added by somebody else, and is left alone.
fn trace(connection: &Connection, former: &mut [Former<'_>]) -> rusqlite::Result<()> {
    if former.iter().all(|former| former.unknown.is_empty()) {
        return Ok(());
    }
    let mut statement = connection.prepare("SELECT definition FROM catchment_plan ORDER BY version DESC")?;
    let mut plans = statement.query([])?;
    while former.iter().any(|former| !former.unknown.is_empty())
        && let Some(row) = plans.next()?
    {
        // What a plan that cannot be read had, nobody knows.
        let Ok(plan) = wire::parse_plan(&row.get::<_, Vec<u8>>(0)?) else {
            continue;
        };
        for former in former.iter_mut() {
            let before = plan
                .queries
                .iter()
                .filter(|before| before.name == former.query.name);
            for column in before.flat_map(Query::columns) {
                former.known.extend(former.unknown.take(&column.name));
            }
        }
    }
    Ok(())
}
