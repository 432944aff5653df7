//! HPACK's Huffman code (RFC 7541, 5.2 and appendix B).
//!
//! In: coded bytes. Out: the decoded bytes. Pure. The code is canonical: the lengths of
//! its symbols determine it.

/// The length in bits of the code of each byte, and of the end symbol.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
/// The longest code.
const LONGEST: usize = 30;

/// The code, by length.
struct Code {
    /// For each length, the first bits whose code is longer, at the top of 32.
    limits: [u64; LONGEST + 1],
    /// For each length, the number to add to a code to get the index of its symbol.
    places: [i64; LONGEST + 1],
    /// The symbols, by length and then by value.
    symbols: [u16; 257],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Self {
        let mut code =
            Self { limits: [0; LONGEST + 1], places: [0; LONGEST + 1], symbols: [0; 257] };
        let (mut next, mut place) = (0_u64, 0);
        let mut length = 1;
        while length <= LONGEST {
            next <<= 1;
            code.places[length] = place as i64 - next as i64;
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    code.symbols[place] = symbol as u16;
                    place += 1;
                    next += 1;
                }
                symbol += 1;
            }
            code.limits[length] = next << (32 - length);
            length += 1;
        }
        code
    }
}

/// Appends the decoded bytes. Returns false if `coded` is invalid: an end symbol is in
/// it, or its padding is not the first zero to seven bits of that symbol.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> bool {
    let mut bytes = coded.iter();
    // Bits that are not decoded yet, at the top.
    let (mut bits, mut count) = (0_u64, 0);
    loop {
        while count <= 32 {
            let Some(&byte) = bytes.next() else { break };
            bits |= u64::from(byte) << (56 - count);
            count += 8;
        }
        let top = bits >> 32;
        // No code is shorter than five bits.
        let found = (5..=LONGEST).find(|&length| top < CODE.limits[length]);
        match found {
            Some(length) if length <= count => {
                let code = (top >> (32 - length)) as i64;
                let place = usize::try_from(code + CODE.places[length]).unwrap_or_default();
                // The only symbol that is no byte is the end symbol, which must not be
                // sent.
                let Ok(byte) = u8::try_from(CODE.symbols[place]) else { return false };
                out.push(byte);
                bits <<= length;
                count -= length;
            }
            // The rest is padding: the first bits of the end symbol.
            _ => return count < 8 && (count == 0 || bits >> (64 - count) == (1 << count) - 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(coded: &[u8], expected: Option<&[u8]>) {
        let mut out = Vec::new();
        let decoded = decode(coded, &mut out).then_some(out);
        assert_eq!(decoded.as_deref(), expected, "{coded:02x?}");
    }

    #[test]
    fn the_code_is_complete() {
        let sum: u64 = LENGTHS.iter().map(|&length| 1 << (LONGEST - usize::from(length))).sum();
        assert_eq!(sum, 1 << LONGEST);
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        check(&www, Some(b"www.example.com"));
        check(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], Some(b"no-cache"));
        check(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], Some(b"custom-value"));
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b,
            0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
        ];
        check(&date, Some(b"Mon, 21 Oct 2013 20:13:21 GMT"));
        check(&[], Some(b""));
    }

    #[test]
    fn the_longest_codes_are_read() {
        // 10 and 13 have thirty bits each, 1 has twenty-three.
        check(&[0xff, 0xff, 0xff, 0xf3, 0xff, 0xff, 0xff, 0xdf], Some(b"\n\r"));
        check(&[0xff, 0xff, 0xb1], Some(b"\x01"));
    }

    #[test]
    fn what_is_no_code_is_refused() {
        // An end symbol, eight bits of padding, padding of zeros.
        check(&[0xff, 0xff, 0xff, 0xff], None);
        check(&[0x1f, 0xff], None);
        check(&[0x00], None);
        check(&[0x18], None);
    }
}
