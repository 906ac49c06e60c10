//! Reading and writing bytes with every step checked: the little language that frames and the agent's files share.

use alloc::vec::Vec;

use super::WireFault;

/// A position in borrowed bytes.
#[derive(Clone, Copy)]
pub struct Cursor<'b> {
    bytes: &'b [u8],
}

impl<'b> Cursor<'b> {
    /// A cursor at the start of `bytes`.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes }
    }

    /// What has not been taken yet.
    pub fn rest(&self) -> &'b [u8] {
        self.bytes
    }

    /// Refuses bytes that are left over.
    pub fn finish(self) -> Result<(), WireFault> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(WireFault::Trailing)
        }
    }

    /// The next `length` bytes.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'b [u8], WireFault> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(WireFault::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// The next byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, WireFault> {
        Ok(self.take(1)?[0])
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireFault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A LEB128 number of at most 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireFault> {
        u64::try_from(self.varint_wide()?).map_err(|_| WireFault::Invalid("number above 64 bits"))
    }

    /// A LEB128 number of at most 128 bits.
    pub fn varint_wide(&mut self) -> Result<u128, WireFault> {
        let mut number: u128 = 0;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if shift > 121 && bits >> (128 - shift) != 0 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(WireFault::Invalid("number above 128 bits"))
    }

    /// A length or count, refused above `limit`.
    pub fn length(&mut self, limit: usize, what: &'static str) -> Result<usize, WireFault> {
        let length = self.varint()?;
        usize::try_from(length)
            .ok()
            .filter(|&length| length <= limit)
            .ok_or(WireFault::TooLong(what))
    }
}

/// Appends a LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, number: u64) {
    put_varint_wide(out, u128::from(number));
}

/// [`put_varint`] for 128 bits.
pub fn put_varint_wide(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Maps small numbers of either sign to small numbers without one.
#[inline]
pub fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// [`zigzag`] for 128 bits.
pub fn zigzag_wide(number: i128) -> u128 {
    ((number << 1) ^ (number >> 127)) as u128
}

/// The inverse of [`zigzag_wide`].
pub fn unzigzag_wide(number: u128) -> i128 {
    (number >> 1) as i128 ^ -((number & 1) as i128)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_round_trip(number in any::<u128>(), signed in any::<i128>()) {
            let mut out = Vec::new();
            put_varint_wide(&mut out, number);
            put_varint_wide(&mut out, zigzag_wide(signed));
            put_varint(&mut out, zigzag(signed as i64));
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.varint_wide(), Ok(number));
            prop_assert_eq!(cursor.varint_wide().map(unzigzag_wide), Ok(signed));
            prop_assert_eq!(cursor.varint().map(unzigzag), Ok(signed as i64));
            prop_assert_eq!(cursor.finish(), Ok(()));
        }
    }

    #[test]
    fn overlong_numbers_are_refused() {
        let mut cursor = Cursor::new(&[0xff; 40]);
        assert!(cursor.varint_wide().is_err());
        let mut cursor = Cursor::new(&[0x80; 5]);
        assert_eq!(cursor.varint(), Err(WireFault::Truncated));
        let mut cursor = Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(cursor.varint(), Err(WireFault::Invalid("number above 64 bits")));
    }
}
