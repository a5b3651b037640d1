//! TLS with whoever answers: for checks that ask whether a program in a container answers at all. Its certificate is made by
//! itself more often than not, so none is looked at, as Kubernetes does it. Nothing that is trusted comes this way.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// Sends a request and reads the answer, at most so many bytes of it. Blocks, at most `timeout` for each read and write.
///
/// # Errors
/// Those of the connection, and of a handshake that fails; the other side's end in the middle is the end of the answer.
pub fn ask_anybody(stream: TcpStream, request: &[u8], bytes_max: usize, timeout: Duration) -> io::Result<Vec<u8>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.dangerous();
    let config = config.with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth();
    let name = ServerName::from(stream.peer_addr()?.ip());
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(request)?;
    tls.flush()?;
    let mut answer = Vec::new();
    let mut block = [0; 1024];
    while answer.len() < bytes_max {
        match tls.read(&mut block) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&block[..read]),
            // one that closes without saying so has still answered
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    answer.truncate(bytes_max);
    Ok(answer)
}

/// Takes every certificate; that its owner signs the handshake is still looked at.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    /// A key and the certificate it gave itself, which was good for one day of 2026.
    const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgE06et35o3SJp8iaFlEZoBWCPX81pbHyjz8Ao4XNsNPChRANCAASTpOD30AJpNLrwD0PeoFyviYWGgxu6DJZdkKkSErmGsTgBYtuQwwYN4nb2ekQ+Nxdb3PzbBQ+03Z/aASSGPws2";
    const CERTIFICATE: &str = "MIIBdzCCAR2gAwIBAgIUdsj172KqCNOoF+BV1ygvZwmmNDcwCgYIKoZIzj0EAwIwETEPMA0GA1UEAwwGbm9ib2R5MB4XDTI2MTEyMTIxNTMxNVoXDTI2MTEyMjIxNTMxNVowETEPMA0GA1UEAwwGbm9ib2R5MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEk6Tg99ACaTS68A9D3qBcr4mFhoMbugyWXZCpEhK5hrE4AWLbkMMGDeJ29npEPjcXW9z82wUPtN2f2gEkhj8LNqNTMFEwHQYDVR0OBBYEFDCcNwHhKeDAIxmevu9A4W1jvVmJMB8GA1UdIwQYMBaAFDCcNwHhKeDAIxmevu9A4W1jvVmJMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAI+KHuKsDmxsqDdcRh2wW7ainc8GQynDFaTKJ53dgUoZAiAiUi3Vdv/4YVsPaK0rAC2S9V/gG22uuMHtvwrvaTyhTg==";

    #[test]
    fn a_certificate_nobody_vouches_for_is_taken_and_a_server_without_tls_is_told() {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(BASE64.decode(KEY).unwrap()));
        let certificate = CertificateDer::from(BASE64.decode(CERTIFICATE).unwrap());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(vec![certificate], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
            let mut asked = [0; 5];
            tls.read_exact(&mut asked).unwrap();
            tls.write_all(&asked).unwrap();
            tls.conn.send_close_notify();
            let _ = tls.flush();
            let (mut plain, _) = listener.accept().unwrap();
            let _ = plain.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        });
        let limit = Duration::from_secs(20);
        let answer = ask_anybody(TcpStream::connect(address).unwrap(), b"hello", 100, limit).unwrap();
        assert_eq!(answer, b"hello");
        assert!(ask_anybody(TcpStream::connect(address).unwrap(), b"hello", 100, limit).is_err());
        server.join().unwrap();
    }
}
