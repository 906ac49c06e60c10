//! CSV: a reading for each line, a path for each column.

use catchment_common::metrics::Reason;
use catchment_common::plan::Csv;
use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

use super::text;
use super::{Decoded, PathTree};

/// Takes lines apart. Names of columns come from the plan or the first line; a line may have fewer cells than there are
/// columns, but not more.
pub(super) fn decode(out: &mut Decoded, tree: &PathTree, payload: &str, csv: &Csv) -> Result<(), Reason> {
    let mut cells = Cells {
        reader: ReaderBuilder::new().delimiter(csv.delimiter).build(),
        rest: payload.as_bytes(),
        cell: std::mem::take(&mut out.scratch),
    };
    let mut columns = std::mem::take(&mut out.columns);
    columns.clear();
    let mut count = 0;
    if let Some(names) = &csv.columns {
        columns.extend(names.iter().map(|name| tree.named(name)));
        count = names.len();
    }
    let done = read(out, tree, &mut cells, &mut columns, count, csv.columns.is_none());
    out.scratch = cells.cell;
    out.columns = columns;
    done
}

fn read(
    out: &mut Decoded,
    tree: &PathTree,
    cells: &mut Cells<'_>,
    columns: &mut Vec<Option<usize>>,
    mut count: usize,
    mut is_header: bool,
) -> Result<(), Reason> {
    while let Some(mut is_last) = cells.next()? {
        let row = if is_header { 0 } else { out.start_reading()? };
        let mut column = 0;
        loop {
            let cell = cells.text()?;
            if is_header {
                columns.push(tree.named(cell.trim()));
            } else if column >= count {
                return Err(Reason::MalformedPayload);
            } else if let Some(path) = columns[column] {
                out.put(row, path, |arena| text::cell(arena, cell))?;
            }
            column += 1;
            if is_last {
                break;
            }
            is_last = cells.next()?.ok_or(Reason::MalformedPayload)?;
        }
        if std::mem::take(&mut is_header) {
            count = columns.len();
        }
    }
    Ok(())
}

/// The cells of a payload, one after the other.
struct Cells<'p> {
    reader: Reader,
    rest: &'p [u8],
    cell: Vec<u8>,
}

impl Cells<'_> {
    /// Reads the next cell; returns whether it is the last of its line, or none at the end.
    fn next(&mut self) -> Result<Option<bool>, Reason> {
        self.cell.clear();
        loop {
            let length = self.cell.len();
            // A cell is never longer than what is left of the payload.
            self.cell.resize(length + self.rest.len().max(1), 0);
            let (result, read, written) = self.reader.read_field(self.rest, &mut self.cell[length..]);
            self.rest = &self.rest[read..];
            self.cell.truncate(length + written);
            match result {
                ReadFieldResult::Field { record_end } => return Ok(Some(record_end)),
                ReadFieldResult::End => return Ok(None),
                // With nothing left to read, the next call ends the cell.
                ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => {}
            }
        }
    }

    fn text(&self) -> Result<&str, Reason> {
        // A cell of valid UTF-8 is valid: quotes and delimiters are ASCII.
        std::str::from_utf8(&self.cell).map_err(|_| Reason::InvalidUtf8)
    }
}
