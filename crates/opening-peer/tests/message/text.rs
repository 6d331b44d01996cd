//! What peers say in words.

use opening_peer::message::{MAX_PRINTABLE_LENGTH, printable};

use super::*;

fn data_of(type_number: u8, data: &[u8]) -> String {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    match decode(&[&[0, type_number][..], &[9; 32], &length, data].concat()).unwrap() {
        Message::Error(error) => error.data,
        Message::Warning(warning) => warning.data,
        other => panic!("{other:?}"),
    }
}

// req: B1-ERR-R-06
#[test]
fn bytes_that_are_not_printable_never_get_in() {
    for type_number in [17, 1] {
        assert_eq!(data_of(type_number, b"\x1b[\x00\xff ok~\x7f"), "?[?? ok~?");
        let all: Vec<u8> = (0..=255).collect();
        assert!(data_of(type_number, &all).bytes().all(|byte| (32..=126).contains(&byte)));
    }
    let all: Vec<u8> = (32..=126).collect();
    assert_eq!(printable(&all).as_bytes(), all);
}

#[test]
fn a_text_is_bounded() {
    assert_eq!(data_of(17, &[b'a'; 65000]).len(), MAX_PRINTABLE_LENGTH);
    assert_eq!(printable(&[b'a'; MAX_PRINTABLE_LENGTH]).len(), MAX_PRINTABLE_LENGTH);
}

// req: B1-ERR-S-09
#[test]
fn an_error_may_say_nothing() {
    let error = msgs::ErrorMessage { channel_id: ChannelId([9; 32]), data: String::new() };
    let encoded = encode(&error);
    assert_eq!(hex::encode(&encoded), ["0011", &"09".repeat(32), "0000"].concat());
    assert_eq!(decode(&encoded), Ok(Message::Error(error)));
}

#[test]
fn the_recorded_refusal_can_be_read() {
    let Ok(Message::Error(error)) = decode(&bytes(golden::ERROR)) else { panic!() };
    assert!(
        error.data.starts_with("You gave bad parameters: channel capacity with funding 400000sat"),
        "{}",
        error.data
    );
}
