//! One kept-alive HTTP/1.1 connection that costs next to nothing: requests are bytes made once, and of an answer only
//! the status and the length are read. What a load generator spends is missing from what it measures.

use std::{borrow::Cow, io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    body: std::ops::Range<usize>,
}

impl Wire {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Wire {
            stream,
            buffer: Vec::with_capacity(4096),
            body: 0..0,
        })
    }

    /// Sends a request and reads its whole answer; returns the status.
    ///
    /// # Errors
    /// Also when the answer has neither a length nor no body.
    pub async fn call(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let (status, length) = read_head(&self.buffer[..head])?;
        while self.buffer.len() < head + length {
            self.more().await?;
        }
        self.body = head..head + length;
        Ok(status)
    }

    /// The same, where any other answer than `status` is an error that shows it.
    ///
    /// # Errors
    /// See [`Wire::call`].
    pub async fn expect(&mut self, status: u16, request: &[u8]) -> io::Result<()> {
        match self.call(request).await? {
            got if got == status => Ok(()),
            got => Err(io::Error::other(format!("{got}: {}", self.body()))),
        }
    }

    /// The body of the last answer.
    pub fn body(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.buffer[self.body.clone()])
    }

    /// Sends a request and reads until `mark` was seen in the answer. The connection is of no use afterwards.
    ///
    /// # Errors
    /// Also when the answer ends without it; the answer is in the text then.
    pub async fn until(&mut self, request: &[u8], mark: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        while find(&self.buffer, mark).is_none() {
            if let Err(error) = self.more().await {
                let answer = String::from_utf8_lossy(&self.buffer).into_owned();
                return Err(io::Error::new(error.kind(), answer));
            }
        }
        Ok(())
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// The bytes of a GET.
pub fn get(path: &str) -> Vec<u8> {
    get_with(path, "")
}

/// The bytes of a GET with `headers`, which end in `\r\n` each.
pub fn get_with(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n").into_bytes()
}

/// The bytes of a POST with a JSON body; `headers` end in `\r\n` each.
pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn read_head(head: &[u8]) -> io::Result<(u16, usize)> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let head = std::str::from_utf8(head).map_err(|_| bad("the head of an answer is not text"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| bad("an answer without a status"))?;
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    });
    let length = lengths
        .next_back()
        .ok_or_else(|| bad("an answer without a length"))?;
    Ok((status, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_head_status_and_length_are_read() {
        let head = b"HTTP/1.1 202 Accepted\r\nx: y\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(read_head(head).unwrap(), (202, 12));
        assert!(read_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }

    #[tokio::test]
    async fn answers_are_read_to_their_end_however_they_arrive() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut wire = Wire::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let request = post("/x", "", b"{}");
        for status in [200, 503] {
            let answering = async {
                let mut got = vec![0; request.len()];
                peer.read_exact(&mut got).await.unwrap();
                assert_eq!(got, request);
                for part in [
                    &format!("HTTP/1.1 {status} OK\r\ncontent-le"),
                    "ngth: 3\r\n\r\na",
                    "bc",
                ] {
                    peer.write_all(part.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (answered, ()) = tokio::join!(wire.call(&request), answering);
            assert_eq!(answered.unwrap(), status);
        }
    }
}
