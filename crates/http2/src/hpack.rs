//! HPACK: header lists as bytes (RFC 7541).
//!
//! In: the header blocks of one connection, in their order. Out: names and values. The
//! encoder keeps no table of what was sent before, because responses have few headers.
//! Pure. A peer can make it hold at most 4 KiB.

use std::collections::VecDeque;

mod huffman;
mod table;

use table::STATIC;

/// Decodes the header blocks of one connection, in their order.
#[derive(Debug)]
pub struct Decoder {
    /// The newest entry first.
    dynamic: VecDeque<Entry>,
    size: usize,
    limit: usize,
}

#[derive(Debug)]
struct Entry {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

/// The error of a block that is not well formed. The blocks after it cannot be decoded
/// either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError;

/// The size of the dynamic table that a peer may use, in bytes: HTTP/2's default, which
/// need not be announced.
const TABLE_MAX: usize = 4_096;
/// The size of an entry beyond its bytes (RFC 7541, 4.1).
const ENTRY: usize = 32;

impl Default for Decoder {
    fn default() -> Self {
        Self { dynamic: VecDeque::new(), size: 0, limit: TABLE_MAX }
    }
}

impl Decoder {
    /// Passes each field of a block to `take`, as name and value.
    ///
    /// # Errors
    /// When the block is not well formed.
    pub fn decode(
        &mut self,
        block: &[u8],
        mut take: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), DecodeError> {
        let mut rest = block;
        let mut fields = 0;
        while let Some(&first) = rest.first() {
            // Size updates come before all fields.
            if first & 0b1110_0000 == 0b0010_0000 {
                let size = integer(&mut rest, 5)?;
                if fields > 0 || size > TABLE_MAX {
                    return Err(DecodeError);
                }
                self.limit = size;
                self.make_room(0);
                continue;
            }
            fields += 1;
            match first {
                0b1000_0000.. => {
                    let (name, value) = self.entry(integer(&mut rest, 7)?)?;
                    take(name, value);
                }
                0b0100_0000.. => {
                    let (name, value) = self.literal(&mut rest, 6)?;
                    take(&name, &value);
                    self.insert(name, value);
                }
                // "Never indexed" is the same as "not indexed" for a table: the field is
                // not kept.
                _ => {
                    let (name, value) = self.literal(&mut rest, 4)?;
                    take(&name, &value);
                }
            }
        }
        Ok(())
    }

    /// Returns the size of the table, as the standard counts it.
    #[cfg(test)]
    fn size(&self) -> usize {
        self.size
    }

    fn literal(&self, rest: &mut &[u8], bits: u32) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
        let name = match integer(rest, bits)? {
            0 => string(rest)?,
            index => self.entry(index)?.0.to_vec(),
        };
        Ok((name, string(rest)?))
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), DecodeError> {
        let place = index.checked_sub(1).ok_or(DecodeError)?;
        if let Some(&(name, value)) = STATIC.get(place) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.dynamic.get(place - STATIC.len()).ok_or(DecodeError)?;
        Ok((&entry.name, &entry.value))
    }

    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let size = name.len() + value.len() + ENTRY;
        self.make_room(size);
        // An entry that is larger than the table only empties it.
        if size <= self.limit {
            self.size += size;
            self.dynamic.push_front(Entry { name: name.into(), value: value.into() });
        }
    }

    fn make_room(&mut self, size: usize) {
        while self.size + size > self.limit
            && let Some(Entry { name, value }) = self.dynamic.pop_back()
        {
            self.size -= name.len() + value.len() + ENTRY;
        }
    }
}

/// Appends a field to a block, marked so that the peer does not put it into its table.
pub fn put(block: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    block.push(0);
    put_string(block, name);
    put_string(block, value);
}

/// Appends `:status`.
pub(super) fn put_status(block: &mut Vec<u8>, status: u16) {
    if status == 200 {
        // The eighth entry of the static table.
        return block.push(0x88);
    }
    block.push(8);
    put_string(block, status.to_string().as_bytes());
}

/// Tells a peer that made its table smaller that the table is empty (RFC 7541, 4.2).
pub(super) fn put_empty_table(block: &mut Vec<u8>) {
    block.push(0b0010_0000);
}

fn put_string(block: &mut Vec<u8>, text: &[u8]) {
    const MAX: usize = 127;
    let mut length = text.len();
    if length < MAX {
        block.push(length as u8);
    } else {
        block.push(MAX as u8);
        length -= MAX;
        while length >= 128 {
            block.push(length as u8 | 128);
            length >>= 7;
        }
        block.push(length as u8);
    }
    block.extend_from_slice(text);
}

/// Reads a number that begins in the lower `bits` of the first byte (RFC 7541, 5.1).
fn integer(rest: &mut &[u8], bits: u32) -> Result<usize, DecodeError> {
    let (&first, mut more) = rest.split_first().ok_or(DecodeError)?;
    let max = (1_usize << bits) - 1;
    let mut value = usize::from(first) & max;
    if value == max {
        let mut shift = 0;
        loop {
            let (&byte, after) = more.split_first().ok_or(DecodeError)?;
            more = after;
            value += usize::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
            shift += 7;
            // No valid number here is that long.
            if shift > 21 {
                return Err(DecodeError);
            }
        }
    }
    *rest = more;
    Ok(value)
}

fn string(rest: &mut &[u8]) -> Result<Vec<u8>, DecodeError> {
    let coded = rest.first().is_some_and(|first| first & 128 != 0);
    let length = integer(rest, 7)?;
    let (text, after) = rest.split_at_checked(length).ok_or(DecodeError)?;
    *rest = after;
    if !coded {
        return Ok(text.to_vec());
    }
    let mut out = Vec::with_capacity(text.len() * 8 / 5);
    huffman::decode(text, &mut out).then_some(out).ok_or(DecodeError)
}

#[cfg(test)]
mod tests;
