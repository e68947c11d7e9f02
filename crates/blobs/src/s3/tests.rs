//! Against a server that verifies signatures, in this process; and OSS's way of addressing, as it is on the wire.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use futures::stream;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{
    S3Request, S3Result, access::S3Access, auth::SimpleAuth, dto, s3_error, service::S3ServiceBuilder,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::*;
use crate::conformance::{self, key};

const BUCKET: &str = "darkroom-test";

/// A real server on files; it can be killed and come back at its address.
struct Server {
    address: SocketAddr,
    files: tempfile::TempDir,
    running: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Server {
    async fn start() -> Server {
        let files = tempfile::tempdir().unwrap();
        std::fs::create_dir(files.path().join(BUCKET)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            files,
            running: Mutex::default(),
        };
        server.serve(listener);
        server
    }

    fn serve(&self, listener: TcpListener) {
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(self.files.path()).unwrap());
        service.set_auth(SimpleAuth::from_single("access", "s3cret"));
        service.set_access(FlatKeys(self.files.path().to_owned()));
        let service = service.build();
        let accepting = async move {
            // Dropped with this task, and with them every connection.
            let mut connections = JoinSet::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let service = service.clone();
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(connection), service).await;
                });
            }
        };
        *self.running.lock().unwrap() = Some(tokio::spawn(accepting));
    }

    async fn kill(&self) {
        let running = self.running.lock().unwrap().take().unwrap();
        running.abort();
        let _ = running.await;
    }

    async fn come_back(&self) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.serve(socket.listen(64).unwrap());
    }

    fn options(&self) -> S3Options {
        S3Options {
            bucket: BUCKET.to_owned(),
            prefix: "some/prefix".to_owned(),
            endpoint: Some(format!("http://{}", self.address)),
            region: "us-east-1".to_owned(),
            virtual_host: false,
            credentials: S3Credentials {
                access_key: "access".to_owned(),
                secret_key: "s3cret".to_owned(),
                session_token: None,
            },
        }
    }

    fn blobs(&self) -> S3Blobs {
        open(&self.options())
    }
}

/// The server's objects are files: a key above or below another is an error to it, and any bucket is made when something
/// is put there. Here they are as in a real one: not there.
struct FlatKeys(PathBuf);

impl FlatKeys {
    fn look(&self, bucket: &str, key: &str) -> S3Result<()> {
        match self.0.join(bucket).join(key).is_file() {
            true => Ok(()),
            false => Err(s3_error!(NoSuchKey)),
        }
    }
}

#[async_trait]
impl S3Access for FlatKeys {
    async fn get_object(&self, request: &mut S3Request<dto::GetObjectInput>) -> S3Result<()> {
        self.look(&request.input.bucket, &request.input.key)
    }
    async fn head_object(&self, request: &mut S3Request<dto::HeadObjectInput>) -> S3Result<()> {
        self.look(&request.input.bucket, &request.input.key)
    }
    async fn delete_object(&self, request: &mut S3Request<dto::DeleteObjectInput>) -> S3Result<()> {
        self.look(&request.input.bucket, &request.input.key)
    }
    async fn put_object(&self, request: &mut S3Request<dto::PutObjectInput>) -> S3Result<()> {
        match self.0.join(&request.input.bucket).is_dir() {
            true => Ok(()),
            false => Err(s3_error!(NoSuchBucket)),
        }
    }
}

/// Fails at the first failure: tests say themselves when to try again.
fn open(options: &S3Options) -> S3Blobs {
    S3Blobs::with_client(options, no_retries(), client()).unwrap()
}

fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn a_bucket_does_what_every_blob_store_does() {
    let server = Server::start().await;
    conformance::all(&server.blobs()).await;
}

#[tokio::test]
async fn a_bucket_without_a_prefix_does_the_same() {
    let server = Server::start().await;
    let options = S3Options {
        prefix: String::new(),
        ..server.options()
    };
    conformance::all(&open(&options)).await;
}

#[tokio::test]
async fn long_files_and_streams_go_in_parts() {
    let server = Server::start().await;
    let blobs = server.blobs();
    let bytes = pattern(12 << 20);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    std::fs::write(&path, &bytes).unwrap();
    let file = blobs.put_file(&key("large/file"), &path).await.unwrap();
    let pieces: Vec<io::Result<Bytes>> = bytes.chunks(77_777).map(|c| Ok(c.to_vec().into())).collect();
    let streamed = blobs
        .put_stream(
            &key("large/stream"),
            stream::iter(pieces).boxed(),
            bytes.len() as u64,
        )
        .await
        .unwrap();
    assert_eq!(file, streamed);
    assert_eq!(file.blake3, blake3::hash(&bytes).to_hex().to_string());
    for name in ["large/file", "large/stream"] {
        assert!(
            blobs.read(&key(name), 1 << 30).await.unwrap().unwrap() == bytes,
            "{name}"
        );
    }
    let middle = blobs
        .open(&key("large/file"), Some(6_000_000..6_000_010))
        .await
        .unwrap()
        .unwrap();
    let middle: Vec<Bytes> = middle.stream.try_collect().await.unwrap();
    assert_eq!(middle.concat(), bytes[6_000_000..6_000_010]);
}

#[tokio::test]
async fn a_store_killed_in_the_middle_of_an_upload_has_nothing_and_takes_it_the_next_time() {
    let server = Server::start().await;
    let blobs = server.blobs();
    let bytes = Bytes::from(pattern(1 << 20));
    // After the first part was taken, the server is gone.
    let body = stream::iter(0..12).then(|n| {
        let (bytes, server) = (bytes.clone(), &server);
        async move {
            if n == 7 {
                server.kill().await;
            }
            Ok(bytes)
        }
    });
    let error = blobs
        .put_stream(&key("killed/a"), body.boxed(), u64::MAX)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Unavailable { .. }) && error.is_transient(),
        "{error}"
    );
    assert!(blobs.stat(&key("killed/a")).await.unwrap_err().is_transient());
    server.come_back().await;
    assert!(blobs.stat(&key("killed/a")).await.unwrap().is_none());
    let body = stream::iter((0..12).map(|_| Ok(bytes.clone())));
    blobs
        .put_stream(&key("killed/a"), body.boxed(), u64::MAX)
        .await
        .unwrap();
    let stat = blobs.stat(&key("killed/a")).await.unwrap().unwrap();
    assert_eq!(stat.size, 12 << 20);
}

#[tokio::test]
async fn requests_are_tried_again_while_the_bucket_is_away() {
    let server = Server::start().await;
    server.kill().await;
    let retries = RetryConfig {
        max_retries: 1000,
        retry_timeout: Duration::from_secs(60),
        ..RetryConfig::default()
    };
    let blobs = S3Blobs::with_client(&server.options(), retries, client()).unwrap();
    let (key, put_key) = (key("away/a"), key("away/a"));
    let (put, ()) = tokio::join!(blobs.put_bytes(&put_key, "kept".into()), async {
        // It was refused at least once by now, or will be served at once: either is right.
        tokio::task::yield_now().await;
        server.come_back().await;
    });
    put.unwrap();
    assert_eq!(blobs.read(&key, 10).await.unwrap().unwrap(), "kept");
}

#[tokio::test]
async fn presigned_addresses_open_one_blob_for_one_thing() {
    let server = Server::start().await;
    let blobs = server.blobs();
    let name = key("signed/图 1.png");
    let minute = Duration::from_secs(60);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let put = blobs.presign(Presigned::Put, &name, minute).await.unwrap();
    assert!(
        client
            .put(&put)
            .body("pixels")
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    assert_eq!(blobs.read(&name, 10).await.unwrap().unwrap(), "pixels");
    let get = blobs.presign(Presigned::Get, &name, minute).await.unwrap();
    let got = client.get(&get).send().await.unwrap();
    assert_eq!(got.text().await.unwrap(), "pixels");
    let bare = get.split('?').next().unwrap().to_owned();
    for refused in [
        client.put(&get).body("x"),
        client.get(get.replace("Expires=60", "Expires=61")),
        client.get(get.replace("signed", "other")),
        client.get(&bare),
    ] {
        let status = refused.send().await.unwrap().status();
        assert!(status.is_client_error() && status != 404, "{status}");
    }
    assert_eq!(blobs.read(&name, 10).await.unwrap().unwrap(), "pixels");
}

#[tokio::test]
async fn wrong_credentials_and_missing_buckets_say_so() {
    let server = Server::start().await;
    let mut options = server.options();
    options.credentials.secret_key = "wrong".to_owned();
    assert!(!format!("{options:?}").contains("wrong"));
    let error = open(&options).put_bytes(&key("a"), "x".into()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("SignatureDoesNotMatch"), "{cause}");
    let mut options = server.options();
    options.bucket = "no-such-bucket".to_owned();
    let error = open(&options).put_bytes(&key("a"), "x".into()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("NoSuchBucket"), "{cause}");
}

/// Takes one request, answers that all is well, and gives back the head.
async fn one_request(listener: &TcpListener, body_bytes: usize) -> String {
    let (mut connection, _): (TcpStream, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    let head_end = loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(connection.read_buf(&mut received).await.unwrap() > 0);
    };
    while received.len() < head_end + body_bytes {
        assert!(connection.read_buf(&mut received).await.unwrap() > 0);
    }
    assert_eq!(
        received.len(),
        head_end + body_bytes,
        "nothing but the body itself"
    );
    connection
        .write_all(b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    String::from_utf8(received[..head_end].to_vec())
        .unwrap()
        .to_ascii_lowercase()
}

#[tokio::test]
async fn alibabas_oss_is_addressed_by_its_host_and_gets_bodies_as_they_are() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = S3Options {
        bucket: "pictures".to_owned(),
        prefix: "darkroom".to_owned(),
        endpoint: Some("http://oss-cn-hangzhou.aliyuncs.com".to_owned()),
        region: "oss-cn-hangzhou".to_owned(),
        virtual_host: true,
        credentials: S3Credentials {
            access_key: "LTAI".to_owned(),
            secret_key: "s3cret".to_owned(),
            session_token: Some("a-token".to_owned()),
        },
    };
    // The name does not exist here: what a proxy gets is what the service would.
    let through = client().with_proxy_url(format!("http://{}", listener.local_addr().unwrap()));
    let blobs = S3Blobs::with_client(&options, no_retries(), through).unwrap();
    let name = key("outputs/图.png");
    let (put, head) = tokio::join!(blobs.put_bytes(&name, "pixels".into()), one_request(&listener, 6));
    put.unwrap();
    let first = head.lines().next().unwrap();
    assert_eq!(
        first,
        "put http://pictures.oss-cn-hangzhou.aliyuncs.com/darkroom/outputs/%e5%9b%be.png http/1.1"
    );
    for line in [
        "host: pictures.oss-cn-hangzhou.aliyuncs.com",
        "content-length: 6",
        "x-amz-content-sha256: unsigned-payload",
        "x-amz-security-token: a-token",
    ] {
        assert!(head.lines().any(|given| given == line), "{line} in {head}");
    }
    for never in [
        "streaming",
        "aws-chunked",
        "transfer-encoding",
        "x-amz-decoded",
        "x-amz-checksum",
        "x-amz-trailer",
        "x-amz-tagging",
    ] {
        assert!(!head.contains(never), "{never} in {head}");
    }
    assert!(head.contains("/oss-cn-hangzhou/s3/aws4_request"), "{head}");
    let url = blobs
        .presign(Presigned::Get, &name, Duration::from_secs(60))
        .await
        .unwrap();
    assert!(
        url.starts_with("http://pictures.oss-cn-hangzhou.aliyuncs.com/darkroom/outputs/%E5%9B%BE.png?"),
        "{url}"
    );
}

#[tokio::test]
async fn memory_does_not_grow_with_a_file() {
    // Only that no more than one part is asked of the source before the one before was taken.
    let server = Arc::new(Server::start().await);
    let blobs = server.blobs();
    let asked = Arc::new(Mutex::new(0_usize));
    let counted = asked.clone();
    server.kill().await;
    let body = stream::iter(0..64).map(move |_| {
        *counted.lock().unwrap() += 1;
        Ok(Bytes::from(vec![7; 1 << 20]))
    });
    blobs
        .put_stream(&key("never/a"), body.boxed(), u64::MAX)
        .await
        .unwrap_err();
    assert!(*asked.lock().unwrap() <= 6, "a part has 5 MiB");
}
