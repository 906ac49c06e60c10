//! Packed bodies, unpacked as far as a payload may be long and no further.

use std::io::Read;

use catchment_common::metrics::Reason;
use catchment_common::plan::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;

/// Unpacks into `out`. A body that comes to more than `bytes_max` is refused as soon as it does.
pub(super) fn unpack<'o>(
    compression: Compression,
    body: &[u8],
    bytes_max: usize,
    out: &'o mut Vec<u8>,
) -> Result<&'o [u8], Reason> {
    out.clear();
    let limit = bytes_max as u64 + 1;
    let done = match compression {
        Compression::None => {
            out.extend_from_slice(body);
            Ok(body.len())
        }
        Compression::Gzip => MultiGzDecoder::new(body).take(limit).read_to_end(out),
        Compression::Zstd => {
            let window = zstd_window(body).ok_or(Reason::MalformedPayload)?;
            if window > ZSTD_WINDOW_MAX {
                return Err(Reason::OversizedPayload);
            }
            let decoder = StreamingDecoder::new(body).map_err(|_| Reason::MalformedPayload)?;
            decoder.take(limit).read_to_end(out)
        }
    };
    if out.len() > bytes_max {
        return Err(Reason::OversizedPayload);
    }
    done.map_err(|_| Reason::MalformedPayload)?;
    Ok(out)
}

/// Unpacks a body of DEFLATE (RFC 1951), with the head and checksum of zlib (RFC 1950) or without. Refuses as
/// [`unpack`] does.
pub(super) fn inflate<'o>(body: &[u8], bytes_max: usize, out: &'o mut Vec<u8>) -> Result<&'o [u8], Reason> {
    let limit = bytes_max as u64 + 1;
    out.clear();
    let mut done = ZlibDecoder::new(body).take(limit).read_to_end(out);
    if done.is_err() {
        out.clear();
        done = DeflateDecoder::new(body).take(limit).read_to_end(out);
    }
    if out.len() > bytes_max {
        return Err(Reason::OversizedPayload);
    }
    done.map_err(|_| Reason::MalformedPayload)?;
    Ok(out)
}

/// The decoder takes memory for the window that a frame asks for, however little follows. A stream of the default level
/// asks for this much.
const ZSTD_WINDOW_MAX: u64 = 2 << 20;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The window of a frame (RFC 8878, 3.1.1.1), before anything takes memory for it. None for what is no frame.
fn zstd_window(body: &[u8]) -> Option<u64> {
    let rest = body.strip_prefix(&ZSTD_MAGIC)?;
    let (&descriptor, rest) = rest.split_first()?;
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let exponent = rest.first()? >> 3;
        let mantissa = u64::from(rest.first()? & 7);
        let base = 1_u64 << (10 + exponent);
        return Some(base + base / 8 * mantissa);
    }
    // The size of the content is the window; it stands behind the number of a dictionary.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let bytes = rest.get(dictionary..dictionary + length)?;
    let size = bytes
        .iter()
        .rev()
        .fold(0, |all, &byte| all << 8 | u64::from(byte));
    Some(if length == 2 { size + 256 } else { size })
}
