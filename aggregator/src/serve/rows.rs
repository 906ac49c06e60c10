//! Rows of a query's result table, page by page, the newest first.

use catchment_common::plan::Query;

use super::{AskFault, Question, query_of};
use crate::limits::PAGE_ROWS_MAX;
use crate::store::lookup::{Cell, Lookup, Page, RowCursor, Selection, compare_names, page_order};

/// Asks for rows of a query.
#[derive(Clone, PartialEq, Debug)]
pub struct Rows {
    /// The query's name.
    pub query: String,
    /// Which of its rows.
    pub selection: Selection,
    /// The row after which to go on; none for the newest.
    pub after: Option<RowCursor>,
    /// Most rows of the page; more than [`PAGE_ROWS_MAX`] are not given at once.
    pub rows_max: usize,
}

impl Question for Rows {
    type Answer = Page;

    fn ask(&self, store: &impl Lookup) -> Result<Page, AskFault> {
        let plan = store.plan()?;
        let query = query_of(&plan.queries, &self.query)?;
        check_tags(query, &self.selection)?;
        let fits = |after: &RowCursor| after.0.len() == page_order(query).len();
        if !self.after.as_ref().is_none_or(fits) {
            let problem = format!("the cursor is not of `{}`", query.name);
            return Err(AskFault::Misfit(problem));
        }
        let rows_max = self.rows_max.min(PAGE_ROWS_MAX);
        let page = store.page(query, &self.selection, self.after.as_ref(), rows_max)?;
        Ok(page)
    }
}

/// Asks for the newest rows of a query, however many, in the order in which they are shown: page after page.
#[derive(Clone, PartialEq, Debug)]
pub struct Newest {
    /// The query's name.
    pub query: String,
    /// Which of its rows.
    pub selection: Selection,
    /// Most rows.
    pub rows_max: usize,
}

impl Question for Newest {
    type Answer = Page;

    /// The rows come oldest first: by start, end, tags, and then by number or coarseness.
    fn ask(&self, store: &impl Lookup) -> Result<Page, AskFault> {
        let mut question = Rows {
            query: self.query.clone(),
            selection: self.selection.clone(),
            after: None,
            rows_max: self.rows_max,
        };
        let mut all = question.ask(store)?;
        while let Some(next) = all.next.take()
            && all.rows.len() < self.rows_max
        {
            question.after = Some(next);
            question.rows_max = self.rows_max - all.rows.len();
            let mut page = question.ask(store)?;
            all.rows.append(&mut page.rows);
            all.next = page.next;
        }
        in_order(query_of(&store.plan()?.queries, &self.query)?, &mut all);
        Ok(all)
    }
}

fn check_tags(query: &Query, selection: &Selection) -> Result<(), AskFault> {
    let tags = query.row_tags();
    let unknown = selection
        .tags
        .iter()
        .find(|(tag, _)| !tags.contains(&tag.as_str()));
    unknown.map_or(Ok(()), |(tag, _)| {
        Err(AskFault::Misfit(format!(
            "`{tag}` is no tag of `{}`; its key is {tags:?}",
            query.name
        )))
    })
}

/// Puts rows into the order in which they are shown.
fn in_order(query: &Query, page: &mut Page) {
    let last = if query.window.count().is_some() {
        "window_number"
    } else {
        "coarse"
    };
    let names = ["window_start", "window_end"].into_iter().chain(query.row_tags());
    let names = names.chain([last]);
    let place = |name: &str| page.columns.iter().position(|column| column == name);
    let places: Vec<usize> = names.filter_map(place).collect();
    let name_of = |row: &'_ [Cell]| -> Vec<Cell> { places.iter().map(|place| row[*place].clone()).collect() };
    page.rows.sort_by_cached_key(|row| Name(name_of(row)));
}

/// What rows are sorted by.
struct Name(Vec<Cell>);

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        compare_names(&self.0, &other.0)
    }
}
