//! A column of unsigned integers in blocks of 64, each packed to the bits that it needs.
//!
//! Frame of reference: a block stores its smallest value once and, for each value, the difference in as few bits as
//! the largest difference takes. A column of equal values costs two or three bytes a block; columns of sensor partials
//! come near their entropy without a compressor. Rows of a column are known from outside, so there is no length.
//!
//! ```text
//! block := base:varint  width:u8 (0..=64)  packed: ceil(rows·width / 8) bytes, least significant bit first
//! ```

use alloc::vec::Vec;

use super::WireFault;
use super::cursor::{Cursor, put_varint};

/// Values per block: small enough that one outlier widens few neighbours.
const BLOCK: usize = 64;
/// Up to this width a value and what is left over beside it fit 64 bits.
const NARROW_WIDTH_MAX: usize = 32;

/// Appends a column.
pub(super) fn put_column(out: &mut Vec<u8>, values: &[u64]) {
    for block in values.chunks(BLOCK) {
        let (base, width) = frame_of_reference(block);
        put_varint(out, base);
        out.push(width as u8);
        if width as usize <= NARROW_WIDTH_MAX {
            put_narrow(out, block, base, width);
            continue;
        }
        let mut pending: u128 = 0;
        let mut bits = 0;
        for &value in block {
            pending |= u128::from(value - base) << bits;
            bits += width;
            while bits >= 8 {
                out.push(pending as u8);
                pending >>= 8;
                bits -= 8;
            }
        }
        if bits > 0 {
            out.push(pending as u8);
        }
    }
}

/// The same for few bits, in one word.
fn put_narrow(out: &mut Vec<u8>, block: &[u64], base: u64, width: u32) {
    let mut pending: u64 = 0;
    let mut bits = 0;
    for &value in block {
        pending |= (value - base) << bits;
        bits += width;
        // Whole bytes go out four at a time; at most 31 + 32 bits are pending.
        if bits >= 32 {
            out.extend_from_slice(&(pending as u32).to_le_bytes());
            pending >>= 32;
            bits -= 32;
        }
    }
    let rest = bits.div_ceil(8) as usize;
    out.extend_from_slice(&pending.to_le_bytes()[..rest]);
}

/// The smallest value and the width of the differences from it. Where base and widest difference could together pass
/// 64 bits, which a reader refuses, the base is left at zero.
fn frame_of_reference(block: &[u64]) -> (u64, u32) {
    let base = block.iter().copied().min().unwrap_or(0);
    let widest = block.iter().fold(0, |bits, &value| bits | (value - base));
    let width = 64 - widest.leading_zeros();
    if base.checked_add(mask(width)).is_some() {
        (base, width)
    } else {
        (0, 64)
    }
}

fn mask(width: u32) -> u64 {
    if width == 64 { u64::MAX } else { (1 << width) - 1 }
}

/// Reads a column of `rows` values into `values`, replacing what was there. The caller has bounded `rows`.
pub(super) fn take_column(
    cursor: &mut Cursor<'_>,
    rows: usize,
    values: &mut Vec<u64>,
) -> Result<(), WireFault> {
    values.clear();
    while values.len() < rows {
        let count = (rows - values.len()).min(BLOCK);
        let base = cursor.varint()?;
        let width = u32::from(cursor.byte()?);
        if width > 64 {
            return Err(WireFault::Invalid("column width above 64 bits"));
        }
        if base.checked_add(mask(width)).is_none() {
            return Err(WireFault::Invalid("column block above 64 bits"));
        }
        let packed = cursor.take((count * width as usize).div_ceil(8))?;
        unpack(packed, base, width, count, values);
    }
    Ok(())
}

fn unpack(packed: &[u8], base: u64, width: u32, count: usize, values: &mut Vec<u64>) {
    if width == 0 {
        values.resize(values.len() + count, base);
        return;
    }
    // One bounds check for the block: the packed bytes with room to read past their end.
    let mut padded = [0; BLOCK * 8 + 16];
    padded[..packed.len()].copy_from_slice(packed);
    let (width, mask) = (width as usize, mask(width));
    if width <= NARROW_WIDTH_MAX {
        values.extend((0..count).map(|index| {
            let at = index * width;
            let mut window = [0; 8];
            window.copy_from_slice(&padded[at / 8..at / 8 + 8]);
            base + (u64::from_le_bytes(window) >> (at % 8) & mask)
        }));
        return;
    }
    values.extend((0..count).map(|index| {
        let at = index * width;
        let mut window = [0; 16];
        window.copy_from_slice(&padded[at / 8..at / 8 + 16]);
        base + ((u128::from_le_bytes(window) >> (at % 8)) as u64 & mask)
    }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[u64]) -> usize {
        let mut out = Vec::new();
        put_column(&mut out, values);
        let mut cursor = Cursor::new(&out);
        let mut read = Vec::new();
        take_column(&mut cursor, values.len(), &mut read).unwrap();
        assert_eq!(read, values);
        assert_eq!(cursor.finish(), Ok(()));
        out.len()
    }

    proptest! {
        #[test]
        fn columns_round_trip(values in prop::collection::vec(any::<u64>(), 0..200), shift in 0_u32..64) {
            round_trip(&values.iter().map(|value| value >> shift).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), rows in 0_usize..200) {
            let mut values = Vec::new();
            let _ = take_column(&mut Cursor::new(&bytes), rows, &mut values);
            prop_assert!(values.len() <= rows);
        }
    }

    #[test]
    fn equal_values_cost_two_bytes_a_block() {
        assert_eq!(round_trip(&[7; 1000]), 2 * 1000_usize.div_ceil(BLOCK));
        assert_eq!(round_trip(&[]), 0);
    }

    #[test]
    fn a_block_cannot_wrap_around() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        bytes.extend([1, 1]);
        let result = take_column(&mut Cursor::new(&bytes), 1, &mut Vec::new());
        assert_eq!(result, Err(WireFault::Invalid("column block above 64 bits")));
    }
}
