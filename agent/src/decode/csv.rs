//! CSV: a reading for each line, a path for each column.

use catchment_common::limits::COLUMNS_MAX;
use catchment_common::metrics::Reason;
use catchment_common::plan::Csv;
use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

use super::text;
use super::{Decoded, PathTree};

/// First room for a cell. It doubles until the longest cell of a payload fits.
const CELL_BYTES: usize = 64;

/// Takes lines apart. Names of columns come from the plan or the first line; a line may have fewer cells than there are
/// columns. A line with more cells is given up, and no other line with it.
pub(super) fn decode(out: &mut Decoded, tree: &PathTree, payload: &str, csv: &Csv) -> Result<(), Reason> {
    let mut cells = Cells {
        reader: ReaderBuilder::new().delimiter(csv.delimiter).build(),
        rest: payload.as_bytes(),
        cell: std::mem::take(&mut out.scratch),
        length: 0,
    };
    let mut columns = std::mem::take(&mut out.columns);
    columns.clear();
    if let Some(names) = &csv.columns {
        columns.extend(names.iter().map(|name| tree.named(name)));
    }
    let done = read(out, tree, &mut cells, &mut columns, csv.columns.is_none());
    out.scratch = cells.cell;
    out.columns = columns;
    done
}

fn read(
    out: &mut Decoded,
    tree: &PathTree,
    cells: &mut Cells<'_>,
    columns: &mut Vec<Option<usize>>,
    has_header: bool,
) -> Result<(), Reason> {
    if has_header {
        header(tree, cells, columns)?;
    }
    while let Some(mut is_last) = cells.next()? {
        let row = out.start_reading()?;
        let mut column = 0;
        loop {
            // Cells without a name: the whole line is passed over, and given up at its end.
            if let Some(path) = columns.get(column).copied().flatten() {
                let cell = cells.text()?;
                out.put(row, path, |arena| text::cell(arena, cell))?;
            }
            column += 1;
            if is_last {
                break;
            }
            is_last = cells.next()?.ok_or(Reason::MalformedPayload)?;
        }
        if column > columns.len() {
            out.give_up_reading(Reason::MalformedPayload);
        }
    }
    Ok(())
}

/// The first line: for each column the path that it is, if it is looked for.
fn header(tree: &PathTree, cells: &mut Cells<'_>, columns: &mut Vec<Option<usize>>) -> Result<(), Reason> {
    while let Some(is_last) = cells.next()? {
        if columns.len() == COLUMNS_MAX {
            return Err(Reason::OversizedPayload);
        }
        columns.push(tree.named(cells.text()?.trim()));
        if is_last {
            break;
        }
    }
    Ok(())
}

/// The cells of a payload, one after the other.
struct Cells<'p> {
    reader: Reader,
    rest: &'p [u8],
    /// Room for a cell, and how much of it the current one takes.
    cell: Vec<u8>,
    length: usize,
}

impl Cells<'_> {
    /// Reads the next cell; returns whether it is the last of its line, or none at the end.
    fn next(&mut self) -> Result<Option<bool>, Reason> {
        self.length = 0;
        loop {
            let (result, read, written) = self.reader.read_field(self.rest, &mut self.cell[self.length..]);
            self.rest = &self.rest[read..];
            self.length += written;
            match result {
                ReadFieldResult::Field { record_end } => return Ok(Some(record_end)),
                ReadFieldResult::End => return Ok(None),
                // With nothing left to read, the next call ends the cell.
                ReadFieldResult::InputEmpty => {}
                ReadFieldResult::OutputFull => self.cell.resize(CELL_BYTES.max(2 * self.cell.len()), 0),
            }
        }
    }

    fn text(&self) -> Result<&str, Reason> {
        // A cell of valid UTF-8 is valid: quotes and delimiters are ASCII.
        std::str::from_utf8(&self.cell[..self.length]).map_err(|_| Reason::InvalidUtf8)
    }
}
