//! The examples of the standard, and invalid blocks.

use super::*;

/// Reads a block; fields are `name: value`.
#[track_caller]
fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    decoder.decode(block, |name, value| fields.push(format!("{}: {}", text(name), text(value))))?;
    Ok(fields)
}

const FIRST: [&str; 4] =
    [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];

#[test]
fn requests_with_huffman_codes_share_a_table() {
    // RFC 7541, C.4.
    let mut decoder = Decoder::default();
    let mut first = vec![0x82, 0x86, 0x84, 0x41, 0x8c];
    first.extend([0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff]);
    assert_eq!(read(&mut decoder, &first).unwrap(), FIRST);
    assert_eq!(decoder.size(), 57);

    let mut second = vec![0x82, 0x86, 0x84, 0xbe, 0x58, 0x86];
    second.extend([0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]);
    let expected: Vec<_> = FIRST.into_iter().chain(["cache-control: no-cache"]).collect();
    assert_eq!(read(&mut decoder, &second).unwrap(), expected);
    assert_eq!(decoder.size(), 110);

    let mut third = vec![0x82, 0x87, 0x85, 0xbf, 0x40, 0x88];
    third.extend([0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89]);
    third.extend([0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]);
    let expected = [
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ];
    assert_eq!(read(&mut decoder, &third).unwrap(), expected);
    assert_eq!(decoder.size(), 164);
}

#[test]
fn a_full_table_forgets_its_oldest() {
    let mut decoder = Decoder::default();
    let field = |name: u8| {
        let mut block = vec![0x40];
        put_string(&mut block, &[name]);
        put_string(&mut block, &[b'v'; 1_967]);
        block
    };
    for name in [b'a', b'b', b'c'] {
        read(&mut decoder, &field(name)).unwrap();
    }
    // There is room for two entries of 2,000 bytes.
    assert_eq!(decoder.size(), 4_000);
    assert!(read(&mut decoder, &[0x80 | 62]).unwrap()[0].starts_with("c: "));
    assert!(read(&mut decoder, &[0x80 | 63]).unwrap()[0].starts_with("b: "));
    assert_eq!(read(&mut decoder, &[0x80 | 64]), Err(DecodeError));
    // An entry that is larger than the table empties it.
    let mut large = vec![0x40];
    put_string(&mut large, b"d");
    put_string(&mut large, &[b'v'; 5_000]);
    assert_eq!(read(&mut decoder, &large).unwrap().len(), 1);
    assert_eq!(decoder.size(), 0);
}

#[test]
fn a_table_is_resized_before_fields_only_and_within_its_bounds() {
    let mut decoder = Decoder::default();
    read(&mut decoder, &[0x40, 1, b'a', 1, b'b']).unwrap();
    assert_eq!(decoder.size(), 34);
    assert_eq!(read(&mut decoder, &[0x20, 0x82]).unwrap(), [":method: GET"]);
    assert_eq!(decoder.size(), 0);
    assert_eq!(read(&mut decoder, &[0x82, 0x20]), Err(DecodeError));
    // 4,097 is one too many.
    assert_eq!(read(&mut decoder, &[0x3f, 0xe2, 0x1f]), Err(DecodeError));
    assert_eq!(read(&mut decoder, &[0x3f, 0xe1, 0x1f]).unwrap(), Vec::<String>::new());
}

#[test]
fn what_is_written_is_read() {
    let mut block = Vec::new();
    put_empty_table(&mut block);
    put_status(&mut block, 200);
    put_status(&mut block, 431);
    let long = "x".repeat(20_000);
    for length in [0, 1, 126, 127, 128, 254, 255, 20_000] {
        put(&mut block, b"grpc-message", &long.as_bytes()[..length]);
    }
    let fields = read(&mut Decoder::default(), &block).unwrap();
    assert_eq!(fields[..2], [":status: 200", ":status: 431"]);
    let lengths: Vec<_> = fields[2..].iter().map(|f| f.len() - "grpc-message: ".len()).collect();
    assert_eq!(lengths, [0, 1, 126, 127, 128, 254, 255, 20_000]);
}

#[test]
fn what_is_no_block_is_refused() {
    let bad: [&[u8]; 9] = [
        // Index 0 does not exist, and the dynamic table is empty.
        &[0x80],
        &[0xbe],
        &[0xff, 0x80, 0x80, 0x01],
        // Integers that do not end, and one that is too long.
        &[0xff, 0x80],
        &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
        // Strings that end too early.
        &[0x00],
        &[0x00, 0x05, b'a'],
        &[0x00, 0x01, b'a'],
        // A Huffman code that is only padding.
        &[0x00, 0x81, 0xff, 0x01, b'b'],
    ];
    for block in bad {
        assert_eq!(read(&mut Decoder::default(), block), Err(DecodeError), "{block:02x?}");
    }
}
