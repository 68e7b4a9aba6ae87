//! SPDY/3 header blocks: name and value lists behind zlib with a dictionary known to both sides.
//!
//! Owns: one compression context in each direction, for the life of a connection (SPDY/3.1, section 2.6.10).
//! Called by: `spdy`.
//! Never: trusts a length it was sent.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::dictionary::DICTIONARY;

/// A block this large is no exec's.
const BLOCK_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("a header block is not valid zlib")]
    Zlib,
    #[error("a header block is larger than {BLOCK_BYTES_MAX} bytes")]
    TooLarge,
    #[error("a header block ends early")]
    Truncated,
}

pub struct Reader(Decompress);
pub struct Writer(Compress);

impl Reader {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Names and values, in order.
    pub fn read(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, HeaderError> {
        let plain = self.inflate(block)?;
        let mut rest = plain.as_slice();
        let count = number(&mut rest)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text(&mut rest)?;
            headers.push((name.to_ascii_lowercase(), text(&mut rest)?));
        }
        Ok(headers)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut plain = Vec::with_capacity(1024);
        let mut at = 0;
        loop {
            if plain.len() == plain.capacity() {
                plain.reserve(plain.len());
            }
            let (before_in, before_out) = (self.0.total_in(), plain.len());
            match self.0.decompress_vec(&block[at..], &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Ok(plain),
                Ok(Status::Ok | Status::BufError) => {}
                Err(e) if e.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| HeaderError::Zlib)?;
                }
                Err(_) => return Err(HeaderError::Zlib),
            }
            at += usize::try_from(self.0.total_in() - before_in).map_err(|_| HeaderError::Zlib)?;
            if plain.len() > BLOCK_BYTES_MAX {
                return Err(HeaderError::TooLarge);
            }
            if at == block.len() && plain.len() < plain.capacity() && plain.len() == before_out {
                return Ok(plain);
            }
        }
    }
}

impl Writer {
    pub fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(DICTIONARY).expect("a new stream takes a dictionary");
        Self(compress)
    }

    pub fn write(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let length = |n: usize| u32::try_from(n).expect("our own headers are short").to_be_bytes();
        let mut plain = length(headers.len()).to_vec();
        for (name, value) in headers {
            for part in [name, value] {
                plain.extend(length(part.len()));
                plain.extend(part.as_bytes());
            }
        }
        let mut block = Vec::with_capacity(plain.len() + 256);
        // A sync flush ends the block; room is left so that one call suffices.
        self.0.compress_vec(&plain, &mut block, FlushCompress::Sync).expect("compressing memory cannot fail");
        block
    }
}

fn number(rest: &mut &[u8]) -> Result<u32, HeaderError> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(HeaderError::Truncated)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn text(rest: &mut &[u8]) -> Result<String, HeaderError> {
    let length = number(rest)? as usize;
    let (head, tail) = rest.split_at_checked(length).ok_or(HeaderError::Truncated)?;
    *rest = tail;
    Ok(String::from_utf8_lossy(head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_share_one_context_over_a_connection() {
        let (mut writer, mut reader) = (Writer::new(), Reader::new());
        for value in ["stdin", "stdout", "error"] {
            let block = writer.write(&[("streamtype", value), ("port", "80")]);
            let expected = vec![("streamtype".to_string(), value.to_string()), ("port".into(), "80".into())];
            assert_eq!(reader.read(&block).unwrap(), expected);
        }
    }

    #[test]
    fn garbage_is_an_error_and_not_a_panic() {
        for block in [&b""[..], b"x", &[0x78, 0xbb, 1, 2, 3, 4, 5, 6], &[0xff; 100]] {
            assert!(Reader::new().read(block).is_err(), "{block:?} was accepted");
        }
    }
}
