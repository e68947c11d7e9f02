//! How an engine is started: flags, and what they mean.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// ComfyUI's default for `--max-upload-size`, in bytes; the limit of every request body.
pub const DEFAULT_MAX_UPLOAD_BYTES: usize = 100 << 20;
const DEFAULT_PORT: u16 = 8188;

/// One engine's settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; told in `/system_stats` only.
    pub listen: SocketAddr,
    /// Uploads.
    pub input_dir: PathBuf,
    /// Saved files.
    pub output_dir: PathBuf,
    /// Previews; emptied at start.
    pub temp_dir: PathBuf,
    /// Settings and user data.
    pub user_dir: PathBuf,
    /// Also offer the classes for testing.
    pub test_nodes: bool,
    /// Save images without the graph in them.
    pub disable_metadata: bool,
    /// Limit of a request body.
    pub max_upload_bytes: usize,
}

/// The flags of `darkroom engine`, named as ComfyUI names them.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Address to listen on: HOST or HOST:PORT
    #[arg(long, default_value = "127.0.0.1", value_parser = parse_listen)]
    pub listen: Listen,
    /// Port to listen on, unless --listen names one
    #[arg(long)]
    pub port: Option<u16>,
    /// Directory of uploaded files
    #[arg(long, default_value = "input")]
    pub input_directory: PathBuf,
    /// Directory of saved files
    #[arg(long, default_value = "output")]
    pub output_directory: PathBuf,
    /// Directory of previews, emptied at start
    #[arg(long, default_value = "temp")]
    pub temp_directory: PathBuf,
    /// Directory of settings and user data
    #[arg(long, default_value = "user")]
    pub user_directory: PathBuf,
    /// Limit of a request body, in megabytes
    #[arg(long, default_value_t = DEFAULT_MAX_UPLOAD_BYTES >> 20)]
    pub max_upload_size: usize,
    /// Save images without the graph in them
    #[arg(long)]
    pub disable_metadata: bool,
    /// Also offer node classes that sleep, fail and crash, for testing
    #[arg(long, hide = true)]
    pub test_nodes: bool,
}

/// The value of `--listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    host: IpAddr,
    port: Option<u16>,
}

impl Args {
    /// The settings these flags stand for.
    pub fn options(&self) -> Options {
        let port = self.listen.port.or(self.port).unwrap_or(DEFAULT_PORT);
        Options {
            listen: SocketAddr::new(self.listen.host, port),
            input_dir: self.input_directory.clone(),
            output_dir: self.output_directory.clone(),
            temp_dir: self.temp_directory.clone(),
            user_dir: self.user_directory.clone(),
            test_nodes: self.test_nodes,
            disable_metadata: self.disable_metadata,
            max_upload_bytes: self.max_upload_size.saturating_mul(1 << 20),
        }
    }
}

fn parse_listen(text: &str) -> Result<Listen, String> {
    let text = text.replacen("localhost", "127.0.0.1", 1);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Listen {
            host: address.ip(),
            port: Some(address.port()),
        });
    }
    let host = text
        .parse()
        .map_err(|_| format!("'{text}' is not an address: use HOST or HOST:PORT"))?;
    Ok(Listen { host, port: None })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn listen(flags: &[&str]) -> Option<String> {
        let cli = Cli::try_parse_from([&["engine"], flags].concat()).ok()?;
        Some(cli.args.options().listen.to_string())
    }

    #[test]
    fn the_address_can_be_given_both_ways() {
        assert_eq!(listen(&[]).as_deref(), Some("127.0.0.1:8188"));
        assert_eq!(
            listen(&["--listen", "0.0.0.0:9000"]).as_deref(),
            Some("0.0.0.0:9000")
        );
        assert_eq!(
            listen(&["--listen", "127.0.0.1", "--port", "0"]).as_deref(),
            Some("127.0.0.1:0")
        );
        assert_eq!(
            listen(&["--listen", "localhost:1"]).as_deref(),
            Some("127.0.0.1:1")
        );
        assert_eq!(listen(&["--listen", "[::1]:5"]).as_deref(), Some("[::1]:5"));
        assert_eq!(listen(&["--listen", "no such host"]), None);
    }
}
