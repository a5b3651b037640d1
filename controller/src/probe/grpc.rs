//! gRPC's health protocol (grpc/health/v1), over HTTP/2 without TLS: one request, written by hand, since a whole HTTP/2 client
//! would be more than everything else here. What is not understood of an answer is passed over; only SERVING passes.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::ask::connect;

/// Longest frame taken (RFC 9113, SETTINGS_MAX_FRAME_SIZE as it is unless somebody agrees to more).
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Frames read of one answer: a server that only says other things is not healthy.
const FRAMES_MAX: usize = 64;
/// Most bytes of the message that are looked at: it holds one number.
const MESSAGE_BYTES_MAX: usize = 256;

/// Kinds of frames (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// The answers of grpc.health.v1.HealthCheckResponse.ServingStatus.
const STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// The server says SERVING.
pub(super) async fn check(
    address: Option<Ipv4Addr>,
    port: u16,
    service: &str,
    timeout: Duration,
) -> Result<(), String> {
    let exchange = async {
        let mut stream = connect(address, port, timeout).await?;
        let broken = |e: std::io::Error| format!("grpc :{port}: {}", e.kind());
        let host = address.unwrap_or(Ipv4Addr::LOCALHOST);
        stream.write_all(&request(&format!("{host}:{port}"), service)).await.map_err(broken)?;
        let mut message = Vec::new();
        for _ in 0..FRAMES_MAX {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.map_err(broken)?;
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if length > FRAME_BYTES_MAX {
                return Err(format!("grpc :{port}: the answer is not HTTP/2"));
            }
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.map_err(broken)?;
            let (kind, flags) = (head[3], head[4]);
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.map_err(broken)?
                }
                PING if flags & ACK == 0 => stream.write_all(&frame(PING, ACK, 0, &payload)).await.map_err(broken)?,
                DATA => take_data(&mut message, &payload, flags),
                RST_STREAM | GOAWAY => return Err(format!("grpc :{port}: the server refused the question")),
                _ => {}
            }
            if let Some(status) = status(&message) {
                return judge(status).map_err(|said| format!("grpc :{port}: {said}"));
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return Err(format!("grpc :{port}: no answer of the health protocol; does the server offer it?"));
            }
        }
        Err(format!("grpc :{port}: no answer among {FRAMES_MAX} frames"))
    };
    match tokio::time::timeout(timeout, exchange).await {
        Ok(result) => result,
        Err(_) => Err(format!("grpc :{port}: no answer in {} ms", timeout.as_millis())),
    }
}

fn judge(status: usize) -> Result<(), String> {
    match STATUS.get(status) {
        Some(&"SERVING") => Ok(()),
        Some(other) => Err((*other).to_owned()),
        None => Err(format!("status {status}")),
    }
}

/// Preface, settings, and the one request of stream 1.
fn request(authority: &str, service: &str) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    // HPACK (RFC 7541): `:method POST` and `:scheme http` are of the static table, the rest is written out.
    let mut headers = vec![0x83, 0x86];
    let named = [(&[0x04][..], "/grpc.health.v1.Health/Check"), (&[0x01][..], authority)];
    // content-type is entry 31 and user-agent 58: past the 15 that fit beside the kind
    let more = [(&[0x0f, 0x10][..], "application/grpc"), (&[0x0f, 0x2b][..], "boxship-probe")];
    for (name, value) in named.into_iter().chain(more) {
        headers.extend(name);
        text(&mut headers, value);
    }
    headers.push(0x00);
    text(&mut headers, "te");
    text(&mut headers, "trailers");
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &headers));
    let mut message = Vec::new();
    if !service.is_empty() {
        // field 1, a text
        message.push(0x0a);
        number(&mut message, service.len());
        message.extend(service.as_bytes());
    }
    // not compressed, and how long it is
    let mut data = vec![0];
    data.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    data.extend(message);
    bytes.extend(frame(DATA, END_STREAM, 1, &data));
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A text of a header, without Huffman's code.
fn text(out: &mut Vec<u8>, value: &str) {
    // lengths past 126 go on in groups of seven bits
    match value.len() {
        short @ 0..=126 => out.push(u8::try_from(short).unwrap_or(0)),
        long => {
            out.push(127);
            number(out, long - 127);
        }
    }
    out.extend(value.as_bytes());
}

/// Groups of seven bits, the lowest first, as HPACK and protobuf have them.
fn number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 128 {
        out.push(u8::try_from(value & 127).unwrap_or(0) | 128);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

fn take_data(message: &mut Vec<u8>, payload: &[u8], flags: u8) {
    let padding = if flags & PADDED != 0 { payload.first().copied().unwrap_or(0) } else { 0 };
    let from = usize::from(flags & PADDED != 0).min(payload.len());
    let to = payload.len().saturating_sub(usize::from(padding)).max(from);
    let room = MESSAGE_BYTES_MAX.saturating_sub(message.len());
    message.extend(payload[from..to].iter().take(room));
}

/// The status in a message that is whole: field 1, a number; without it 0.
fn status(message: &[u8]) -> Option<usize> {
    let (head, rest) = message.split_at_checked(5)?;
    let length = usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])).ok()?;
    let body = rest.get(..length)?;
    match body {
        _ if head[0] != 0 => Some(usize::MAX),
        [] => Some(0),
        [0x08, status @ 0..=127, ..] => Some(usize::from(*status)),
        _ => Some(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that reads the question to its end and sends these bytes.
    async fn answered(answer: Vec<u8>) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let expected = request(&format!("127.0.0.1:{port}"), "shop.Cart");
            let mut asked = vec![0; expected.len()];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, expected);
            stream.write_all(&answer).await.unwrap();
            // until the other side is done with it
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let said = check(Some(Ipv4Addr::LOCALHOST), port, "shop.Cart", Duration::from_secs(10)).await;
        server.await.unwrap();
        said
    }

    fn answer(message: &[u8]) -> Vec<u8> {
        let mut data = vec![0];
        data.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        data.extend(message);
        let (first, last) = data.split_at(3);
        let frames = [
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
            frame(PING, 0, 0, &[7; 8]),
            frame(HEADERS, END_HEADERS, 1, &[0x88]),
            frame(DATA, 0, 1, first),
            frame(DATA, PADDED, 1, &[&[2], last, &[0, 0]].concat()),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88]),
        ];
        frames.concat()
    }

    #[tokio::test]
    async fn only_serving_passes() {
        assert_eq!(answered(answer(&[8, 1])).await, Ok(()));
        for (message, said) in [(&[8, 2][..], "NOT_SERVING"), (&[8, 3], "SERVICE_UNKNOWN"), (&[], "UNKNOWN")] {
            assert!(answered(answer(message)).await.unwrap_err().ends_with(said), "{said}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_fails() {
        let none = [frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x88])].concat();
        assert!(answered(none).await.unwrap_err().contains("does the server offer it"));
        assert!(answered(frame(GOAWAY, 0, 0, &[0; 8])).await.unwrap_err().contains("refused"));
        assert!(answered(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await.unwrap_err().contains("not HTTP/2"));
    }

    #[test]
    fn long_names_are_written_as_hpack_and_protobuf_have_them() {
        let mut out = Vec::new();
        number(&mut out, 300);
        assert_eq!(out, [0xac, 0x02]);
        let mut out = Vec::new();
        text(&mut out, &"x".repeat(130));
        assert_eq!(out[..2], [127, 3]);
    }
}
