//! What a request carries: nothing, bytes, or a file read as it is sent. Its length is always known beforehand.

use std::fs::File;
use std::io::Read as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

const CHUNK_BYTES: u64 = 128 << 10;

/// The body of one request.
pub(in crate::image::registry) struct Payload {
    bytes: Bytes,
    file: Option<File>,
    left: u64,
}

impl Payload {
    pub(in crate::image::registry) fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    pub(in crate::image::registry) fn bytes(bytes: Bytes) -> Self {
        Self { left: bytes.len() as u64, bytes, file: None }
    }

    /// `size` bytes from where the file stands; fewer are an error.
    pub(in crate::image::registry) fn file(file: File, size: u64) -> Self {
        Self { bytes: Bytes::new(), file: Some(file), left: size }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let wanted = self.left.min(CHUNK_BYTES);
        let chunk = match &mut self.file {
            None => std::mem::take(&mut self.bytes),
            Some(file) => {
                let mut chunk = Vec::new();
                match file.take(wanted).read_to_end(&mut chunk) {
                    Ok(0) => return Poll::Ready(Some(Err(std::io::ErrorKind::UnexpectedEof.into()))),
                    Ok(_) => chunk.into(),
                    Err(e) => return Poll::Ready(Some(Err(e))),
                }
            }
        };
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
