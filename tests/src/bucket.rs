//! A bucket of an S3 server that verifies signatures, in this process. It can be killed and come back at its address.

use std::{net::SocketAddr, path::PathBuf, sync::Mutex};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{
    S3Request, S3Result, access::S3Access, auth::SimpleAuth, dto::PutObjectInput, s3_error,
    service::S3ServiceBuilder,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::{JoinHandle, JoinSet},
};

const NAME: &str = "darkroom-test";
const ACCESS_KEY: &str = "access";
const SECRET_KEY: &str = "s3cret-of-the-bucket";

/// The server, with one bucket.
pub struct Bucket {
    address: SocketAddr,
    files: tempfile::TempDir,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Bucket {
    /// Starts it, empty.
    pub async fn start() -> Bucket {
        let files = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(files.path().join(NAME)).expect("the bucket");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let bucket = Bucket {
            address: listener.local_addr().expect("an address"),
            files,
            running: Mutex::default(),
        };
        bucket.serve(listener);
        bucket
    }

    fn serve(&self, listener: TcpListener) {
        let files = s3s_fs::FileSystem::new(self.files.path()).expect("the files");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        service.set_access(KnownBuckets(self.files.path().to_owned()));
        let service = service.build();
        let accepting = async move {
            // Dropped with this task, and with them every connection.
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let service = service.clone();
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(connection), service).await;
                });
            }
        };
        *self.running.lock().expect("no test panicked with it") = Some(tokio::spawn(accepting));
    }

    /// Ends it with all its connections.
    pub async fn kill(&self) {
        let running = self.running.lock().expect("no test panicked with it").take();
        if let Some(running) = running {
            running.abort();
            let _ = running.await;
        }
    }

    /// Starts it again, with what it had.
    pub async fn come_back(&self) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option of it");
        socket.bind(self.address).expect("its port is still its own");
        self.serve(socket.listen(64).expect("it listens"));
    }

    /// The section of a server's configuration that keeps blobs there.
    pub fn config(&self) -> String {
        self.config_with(SECRET_KEY)
    }

    /// The same with another secret.
    pub fn config_with(&self, secret: &str) -> String {
        format!(
            "[blobs]\nurl = \"s3://{NAME}/some/prefix\"\nendpoint = \"http://{}\"\naccess_key = \"{ACCESS_KEY}\"\nsecret_key = \"{secret}\"\n",
            self.address
        )
    }

    /// Puts an object beside what the server keeps, and says its address.
    pub fn put(&self, key: &str, bytes: &[u8]) -> String {
        let path = self.files.path().join(NAME).join(key);
        let folder = path.parent().expect("it lies in the bucket");
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(&path, bytes).expect("an object");
        format!("s3://{NAME}/{key}")
    }

    /// Where the objects under the prefix lie, as files.
    pub fn objects(&self) -> PathBuf {
        self.files.path().join(NAME).join("some/prefix")
    }
}

/// The server makes a bucket when something is put there; a real one does not.
struct KnownBuckets(PathBuf);

#[async_trait::async_trait]
impl S3Access for KnownBuckets {
    async fn put_object(&self, request: &mut S3Request<PutObjectInput>) -> S3Result<()> {
        match self.0.join(&request.input.bucket).is_dir() {
            true => Ok(()),
            false => Err(s3_error!(NoSuchBucket)),
        }
    }
}
